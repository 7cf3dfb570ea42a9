"""Erasure as a person meets it: a plan, a question, a refusal that says what to do, and a log that still verifies."""

from __future__ import annotations

from pathlib import Path

from e2e_runtime import Cli

BASIS = ("--basis", "request 17")


def hello(cli: Cli, goal: str, *words: str) -> str:
    return str(cli("run", "hello", goal, *words, "--wait", "-o", "json").json["session"])


def holders(root: Path, secret: bytes) -> list[Path]:
    return [path for path in sorted(root.rglob("*")) if path.is_file() and secret in path.read_bytes()]


def test_erase_what_is_about_one_person(up: Cli, tmp_path: Path) -> None:
    """Without a yes nothing happens; with it the words are in no file, and who did what still stands and verifies."""
    up("apply", "examples/01-hello", "--yes", "--allow-widen")
    ours = [hello(up, "kestrel-canary-91c4", "--data-subject", "customer-4711") for _ in range(2)]
    other = hello(up, "say hello")
    refused = up("audit", "erase", "--data-subject", "customer-4711", *BASIS, expect=64)
    assert "--yes" in refused.err
    assert all(name in refused.out for name in ours)
    assert holders(up.home, b"kestrel-canary-91c4")
    alone = up("audit", "erase", "--session", ours[0], *BASIS, "--yes", expect=4)
    assert "--data-subject" in alone.err
    done = up("audit", "erase", "--data-subject", "customer-4711", *BASIS, "--yes", "-o", "json").json
    assert {one["session"] for one in done["sessions"]} == set(ours)
    assert holders(up.home, b"kestrel-canary-91c4") == []
    assert holders(up.home, b"customer-4711") == []
    assert "erased" in up("session", "show", ours[0], expect=1).err
    assert up("session", "show", other, "-o", "json").json["goal"] == "say hello"
    assert up("audit", "verify", "-o", "json").json["ok"]
    key, pack = tmp_path / "runtime.pub", tmp_path / "pack.zip"
    up("evidence", "key", "-o", str(key))
    up("evidence", "export", "-o", str(pack))
    assert up("evidence", "verify", str(pack), "--trust", str(key), "-o", "json").json["ok"]


def test_hold_list_release(up: Cli) -> None:
    """A hold blocks the erasure until it is released by its id."""
    up("apply", "examples/01-hello", "--yes", "--allow-widen")
    session = hello(up, "say hello")
    hold = up("audit", "hold", "--session", session, "--reason", "case 12", "-o", "json").json["hold"]
    assert hold in up("audit", "holds").out
    blocked = up("audit", "erase", "--session", session, *BASIS, "--yes", "--overrule-retention", expect=4)
    assert f"agentos audit release {hold}" in blocked.err
    up("audit", "release", hold, "--reason", "closed")
    assert up("audit", "holds", "-o", "json").json == []
    up("audit", "erase", "--session", session, *BASIS, "--yes")
    again = up("audit", "erase", "--session", session, *BASIS, "--yes")
    assert "erased before" in again.err


def test_words_that_are_off(up: Cli, tmp_path: Path) -> None:
    """What to erase, to hold and to retire is said exactly once; a month that is not over stays."""
    for words in (
        ("erase", *BASIS),
        ("erase", "--session", "s-1", "--data-subject", "c", *BASIS),
        ("erase", "--session", "s-1"),
        ("hold", "--reason", "r"),
        ("hold", "--session", "s-1", "--agent", "a", "--reason", "r"),
        ("retire", "november", "--to", str(tmp_path), *BASIS),
    ):
        up("audit", *words, expect=64)
    up("apply", "examples/01-hello", "--yes", "--allow-widen")
    session = hello(up, "say hello")
    up("audit", "erase", "--session", "s-nowhere", *BASIS, "--yes", expect=1)
    period = next(name for name in up("audit", "checkpoint", "--now", "-o", "json").json["streams"] if name.startswith("EV_"))
    refused = up("audit", "retire", period.split("_")[1], "--to", str(tmp_path / "archive"), *BASIS, "--yes", expect=4)
    assert "is not over" in refused.err
    assert not (tmp_path / "archive").exists()
    assert session in up("ps", "--all").out


def test_compliance_erases_and_an_operator_does_not(up: Cli) -> None:
    """The role that may is named."""
    up("principal", "create", "ops", "--role", "operator")
    refused = up("--as", "ops", "audit", "erase", "--session", "s-1", *BASIS, "--yes", expect=3)
    assert "role compliance can" in refused.err
