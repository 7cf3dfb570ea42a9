"""`examples/service-desk` on a real runtime: programs, an API, an MCP server and the way out, and a ticket that gives orders."""

from __future__ import annotations

import importlib.util
import re
import secrets
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from e2e_files import tree_digest
from e2e_runtime import ROOT, Cli, Done

EXAMPLE = ROOT / "examples" / "service-desk"
METADATA = "/latest/meta-data/iam/security-credentials/"


@dataclass(frozen=True)
class Desk:
    """The example, applied, with its order service running; `heard` is what that was asked, and whether with the token."""

    cli: Cli
    token: str
    heard: list[tuple[str, bool]]

    def __call__(self, *words: str, expect: int | None = 0, stdin: str | None = None) -> Done:
        return self.cli("--tenant", "helpdesk", *words, expect=expect, stdin=stdin)

    def run(self) -> str:
        """Answer the tickets, until the reply waits."""
        words = ("run", "service-desk", "answer the tickets", "--input", str(EXAMPLE / "tickets"), "--wait", "-o", "json")
        return str(self(*words, expect=5).json["session"])

    def outcomes(self, session: str) -> dict[str, list[tuple[str, str]]]:
        """What came of each call: of which tool, and the rule or the code that stopped it."""
        found: dict[str, list[tuple[str, str]]] = {}
        tools: dict[str, str] = {}
        for event in self("logs", session, "-o", "json").json:
            data, kind = event["data"], event["type"].removeprefix("agentos.syscall.")
            if kind == "decided":
                tools[data["call"]] = data["tool"]
                effect = data["decision"]["effect"]
                if effect != "allow":
                    found.setdefault(effect, []).append((data["tool"], " ".join(data["decision"]["rules"])))
            elif kind == "failed":
                found.setdefault("failed", []).append((tools[data["call"]], data["error"]["code"]))
            elif kind == "finished" and data["result"].get("is_error"):
                found.setdefault("error", []).append((tools[data["call"]], ""))
        return found


@pytest.fixture
def desk(up: Cli, tmp_path: Path) -> Iterator[Desk]:
    """The example with a port and a token of its own."""
    spec = importlib.util.spec_from_file_location("orders", EXAMPLE / "orders.py")
    assert spec is not None
    assert spec.loader is not None
    orders: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(orders)
    token = secrets.token_hex(20)
    (tmp_path / "token").write_text(f"{token}\n")
    (tmp_path / "token").chmod(0o600)
    server = orders.server(token, 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        folder = tmp_path / "desk"
        shutil.copytree(EXAMPLE, folder)
        file = folder / "desk.yaml"
        text = file.read_text().replace("8321", str(server.server_port))
        file.write_text(text.replace("/tmp/service-desk/token", str(tmp_path / "token")))
        up("apply", str(folder), "--yes", "--allow-widen")
        up("principal", "create", "ann", "--role", "approver")
        yield Desk(up, token, server.RequestHandlerClass.heard)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def holders(root: Path, secret: str) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


def test_a_reply_is_proposed_and_what_the_ticket_wants_is_not_done(desk: Desk) -> None:
    """Everything that the ticket orders is denied or refused, and stands in the log by its rule; the work is done all the same,
    and the token that the careless service sends back is nowhere."""
    assert desk("secret", "check", "orders", "-o", "json").json["ok"]
    session = desk.run()
    assert desk.outcomes(session) == {
        "deny": [
            ("net-request", "network.undeclared"),
            ("read", "workspace.absolute"),
            ("search-tickets", "workspace.parent"),
            ("old-lookup", "isolated_hands.denied"),
            ("net-request", "network.undeclared"),
        ],
        "error": [("fetch", ""), ("fetch", "")],
        "failed": [("get-order", "driver")],
        "ask": [("propose-reply", "propose.approval")],
    }
    assert sorted(desk.heard) == [("/status", False), ("/v1/orders/KR-10376", True), ("/v1/orders/KR-10440", True)]
    log = desk("logs", session).out
    assert f"169.254.169.254:80 GET {METADATA[:20]}" in log
    [row] = desk("approvals", "list", "-o", "json").json
    assert re.search(r"^\+your order KR-10376 is in transit\. It leaves at 0[78]:30 Dublin time\.$", row["diff"], re.MULTILINE)
    desk("--as", "ann", "approvals", "approve", session, "--reason", "reads well")
    desk("wait", session)
    why = desk("policy", "why", session).out
    assert "propose.approval" in why
    changes = desk("fs", "log", session, "-o", "json").json[::-1]
    assert [(one["author"].get("call"), [entry["path"] for entry in one["entries"]]) for one in changes[1:]] == [
        ("call-4-3", ["notes", "notes/orders.txt"]),
        ("call-5-1", ["notes/orders.txt"]),
        ("call-5-2", ["replies", "replies/4711.md"]),
        ("call-6-1", ["replies/4711.md"]),
    ]
    assert changes[-1]["author"]["approvals"] == ["principal/ann"]
    assert desk("fs", "cat", session, "notes/orders.txt").out == "KR-10376 in transit\nKR-10440 delivered\n"
    assert "[masked]" in "".join(str(event["data"]) for event in desk("logs", session, "-o", "json").json)
    desk.cli("down")
    assert holders(desk.cli.home, desk.token) == []


def test_its_policy_is_that_of_the_library() -> None:
    """Word for word, so that what is said of one, and tested of it, holds for the other."""
    name = "isolated_hands.rego"
    ours, library = EXAMPLE / "policies" / name, ROOT / "policies" / "library" / "isolated_hands" / name
    assert ours.read_text() == library.read_text()


def test_all_of_it_is_taken_back_and_forth(desk: Desk) -> None:
    """The workspace is what came in, byte for byte, and what it was again."""
    session = desk.run()
    folder = desk.cli.home / "workspaces" / "helpdesk" / session
    before = tree_digest(folder)
    number = desk("fs", "undo", session, "--reason", "not these tickets", "-o", "json").json["change"]
    assert sorted(path.name for path in folder.iterdir()) == ["input"]
    desk("fs", "undo", session, "--change", str(number))
    assert tree_digest(folder) == before


def test_a_reply_that_a_person_has_written_meanwhile_is_not_replaced(desk: Desk) -> None:
    """Who is asked is told so, and a yes does not help: the call fails, and the person's words stay."""
    session = desk.run()
    desk("fs", "write", session, "replies/4711.md", "--expected", "any", stdin="Dear customer,\nI have called you.\nAnn\n")
    [row] = desk("approvals", "list", "-o", "json").json
    assert row["diff"].splitlines()[0] == "the file has changed since this was proposed, so it will be refused"
    assert "-I have called you." in row["diff"]
    desk("--as", "ann", "approvals", "approve", session, "--reason", "did not look")
    desk("wait", session)
    assert ("propose-reply", "file.conflict") in desk.outcomes(session)["failed"]
    assert desk("fs", "cat", session, "replies/4711.md").out == "Dear customer,\nI have called you.\nAnn\n"
