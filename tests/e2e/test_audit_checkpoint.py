"""Tamper evidence as an auditor meets it: a note to keep, proofs that need no runtime, a log that shows a change."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from e2e_runtime import Cli
from jsonschema import Draft202012Validator

SCHEMAS = Path(__file__).resolve().parents[2] / "schemas" / "v1"


def hello(cli: Cli) -> str:
    cli("apply", "examples/01-hello", "--yes", "--allow-widen")
    return str(cli("run", "hello", "say hello", "--wait", "-o", "json").json["session"])


def warnings(cli: Cli) -> list[str]:
    return list(cli("status", "-o", "json").json["warnings"])


def test_keep_a_note_prove_an_event_verify_the_log(up: Cli, tmp_path: Path) -> None:
    """The whole of it, the last step on a machine that holds two files and nothing that runs agents."""
    session = hello(up)
    note, proof, key = (tmp_path / name for name in ("checkpoint.note", "proof.json", "runtime.pub"))
    note.write_text(up("audit", "checkpoint", "--now").out)
    assert note.read_text().splitlines()[0].endswith("/default")
    assert "\n\n— agentos/" in note.read_text()
    proof.write_text(up("audit", "prove", f"{session}#2").out)
    Draft202012Validator(json.loads((SCHEMAS / "event-proof.json").read_text())).validate(json.loads(proof.read_text()))
    up("evidence", "key", "-o", str(key))
    report = up("audit", "verify", "-o", "json").json
    Draft202012Validator(json.loads((SCHEMAS / "audit-verification.json").read_text())).validate(report)
    assert (report["ok"], report["unsigned"]) == (True, 0)
    assert "verified" in up("audit", "verify", "--since", str(note)).out
    up("audit", "rotate-key", "--yes")
    hello(up)
    assert up("audit", "verify", "-o", "json").json["ok"]
    pack = tmp_path / "pack.zip"
    up("evidence", "export", "-o", str(pack))
    up("down")
    # The key is the one that was handed over before the rotation.
    assert up("audit", "verify-proof", str(proof), "--trust", str(key), "-o", "json").json["ok"]
    assert up("evidence", "verify", str(pack), "--trust", str(key), "-o", "json").json["ok"]
    offline = """
import sys
for name in ("nats", "nkeys", "orjson", "sqlite3", "yaml", "mcp", "anthropic", "jinja2", "opa_bindings", "jsonschema"):
    sys.modules[name] = None
from pathlib import Path
from agentos.audit.proof import verify_proof
print(verify_proof(Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]).read_bytes()).ok)
"""
    done = subprocess.run([sys.executable, "-c", offline, proof, key], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_roles_of_the_verbs(up: Cli) -> None:
    """Auditor and compliance read and verify, an operator rotates as well, an approver gets the public keys only."""
    hello(up)
    for name in ("auditor", "compliance", "approver"):
        up("principal", "create", f"{name}-one", "--role", name)
    for name in ("auditor-one", "compliance-one"):
        up("--as", name, "audit", "checkpoint", "--now")
        up("--as", name, "audit", "verify")
        assert "may not audit.rotate" in up("--as", name, "audit", "rotate-key", "--yes", expect=3).err
    up("--as", "approver-one", "audit", "keys")
    up("--as", "approver-one", "audit", "checkpoint", expect=3)


def test_killed_again_and_again_it_stays_in_order(cli: Cli) -> None:
    """SIGKILL of runtime and server while events come: every start goes on, and the log verifies from the first event."""
    cli("up", "--detach")
    cli("apply", "examples/01-hello", "--yes", "--allow-widen")
    numbers = []
    for delay, server_only in ((0.0, True), (0.5, False), (0.0, False)):
        for _ in range(3):
            cli("run", "hello", "say hello", "-o", "json")
        time.sleep(delay)  # where the kill falls is left to chance; what must hold does not depend on it
        runtime = cli.runtime_pid()
        children = Path(f"/proc/{runtime}/task/{runtime}/children").read_text().split()
        for pid in ([] if server_only else [runtime]) + list(map(int, children)):
            os.kill(pid, signal.SIGKILL)
        if not server_only:
            cli("up", "--detach")
        numbers.append(cli("audit", "checkpoint", "--now", "-o", "json").json["number"])
        assert warnings(cli) == []
    assert numbers == sorted(set(numbers))
    report = cli("audit", "verify", "-o", "json").json
    assert report["ok"], report
    assert report["checkpoints"] >= numbers[-1]


@pytest.mark.parametrize("trees", [True, False], ids=["with its trees", "without"])
def test_a_stream_that_vanished_is_found_at_the_start(up: Cli, trees: bool) -> None:
    """Somebody with the disk removes a stream while the runtime is down: status says so, and nothing is signed any more."""
    hello(up)
    sizes = up("audit", "checkpoint", "--now", "-o", "json").json["streams"]
    up("down")
    stream = next(name for name, size in sizes.items() if size)
    (folder,) = up.home.glob(f"nats/jetstream/T-default/streams/{stream}")
    shutil.rmtree(folder)
    if not trees:
        for path in (up.home / "read").glob("default.tiles.db*"):
            path.unlink()
    up("up", "--detach")
    until = time.monotonic() + 20
    while not warnings(up) and time.monotonic() < until:
        pass
    told = f"changed behind the runtime's back: {stream}: the stream is empty or gone"
    assert any(told in line for line in warnings(up))
    refused = up("audit", "checkpoint", "--now", expect=1)
    assert "it was deleted" in refused.err
    assert "NOT verified" in up("audit", "verify", expect=1).out
    assert "nothing is signed" in up("evidence", "export", "-o", str(up.home / "pack.zip"), expect=1).err
