"""Who may do what: roles are decided by Rego, tenants are walls, nobody is anonymous."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import nats
import pytest
from e2e_runtime import Cli

HELLO = "examples/01-hello"


@pytest.mark.parametrize("role", ["approver", "auditor", "compliance"])
def test_a_principal_without_the_operator_role_cannot_apply(up: Cli, role: str) -> None:
    """Exit 3, the rule and who could; and nothing is changed."""
    up("principal", "create", "ann", "--role", role)
    done = up("--as", "ann", "apply", HELLO, "--yes", "--allow-widen", expect=3)
    assert "may not registry.apply" in done.err or "may not registry.plan" in done.err
    assert up("history", "-o", "json").json == []


def test_a_revoked_principal_is_cut_off(up: Cli) -> None:
    """After the revocation the identity opens no door, and its name cannot be had again."""
    up("principal", "create", "ann", "--role", "operator")
    up("--as", "ann", "status")
    up("principal", "revoke", "ann", "--reason", "left")
    assert "refuses the credentials" in up("--as", "ann", "status", expect=1).err
    assert up("principal", "create", "ann", "--role", "operator", "--out", str(up.home / "x.json"), expect=4).code == 4


def test_a_rotated_key_is_dead_and_the_new_one_is_in_place(up: Cli, tmp_path: Path) -> None:
    """Somebody else's, one's own, and one whose rotation was interrupted after the runtime had the key: none is ever lost."""
    up("principal", "create", "ann", "--role", "auditor")
    path, old = up.home / "identities" / "ann.json", tmp_path / "old.json"
    old.write_bytes(path.read_bytes())
    old.chmod(0o600)
    up("principal", "rotate", "ann", "--reason", "laptop lost")
    assert "refuses the credentials" in up("--identity", str(old), "status", expect=1).err
    up("--as", "ann", "status")
    assert path.stat().st_mode & 0o777 == 0o600
    up("principal", "rotate", "operator", "--reason", "yearly")
    up("principal", "rotate", "operator", "--reason", "yearly")
    waits = path.with_name("ann.json.new")
    up("principal", "rotate", "ann", "--reason", "again", "--out", str(waits))
    assert "refuses the credentials" in up("--as", "ann", "status", expect=1).err
    up("principal", "rotate", "ann", "--reason", "go on")
    up("--as", "ann", "status")
    assert not waits.exists()
    rows = {row["name"]: row for row in up("principal", "list", "-o", "json").json}
    assert (len(rows["ann"]["past_keys"]), len(rows["operator"]["past_keys"])) == (2, 2)
    assert "there is no principal bob" in up("principal", "rotate", "bob", "--reason", "x", expect=1).err
    assert "may not principal.list" in up("--as", "ann", "principal", "rotate", "ann", "--reason", "x", expect=3).err


def test_the_last_operator_cannot_be_revoked(up: Cli) -> None:
    """Somebody must be left who can create others."""
    assert "last operator" in up("principal", "revoke", "operator", "--reason", "oops", expect=4).err


def test_a_tenants_principal_sees_its_tenant_only(up: Cli, tmp_path: Path) -> None:
    """An operator of one tenant can neither read nor change another, nor declare tenants."""
    manifest = tmp_path / "tenants.yaml"
    manifest.write_text("apiVersion: agentos/v1\nkind: Tenant\nmetadata: {name: acme}\nspec: {}\n")
    up("apply", str(manifest), "--yes", "--allow-widen")
    up("principal", "create", "acme-ops", "--role", "operator", "--for", "acme")
    up("apply", HELLO, "--yes", "--allow-widen")
    assert up("--as", "acme-ops", "get", "agent", "-o", "json").json == []
    assert up("--as", "acme-ops", "--tenant", "default", "ps", expect=3).code == 3
    assert up("--as", "acme-ops", "apply", HELLO, "--yes", "--allow-widen", expect=3).code == 3


def test_an_identity_file_that_others_can_read_is_refused(up: Cli) -> None:
    """As ssh does."""
    path = up.home / "identities" / "operator.json"
    path.chmod(0o644)
    assert "chmod 600" in up("status", expect=1).err
    path.chmod(0o600)


def anonymous(url: str) -> str:
    """What the server answers to a connection without a key."""
    host, port = url.removeprefix("nats://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as door, door.makefile("rwb") as lines:
        assert lines.readline().startswith(b"INFO ")
        lines.write(b'CONNECT {"verbose":false}\r\nPING\r\n')
        lines.flush()
        return lines.readline().decode()


def test_nobody_is_anonymous_and_nobody_writes_events(up: Cli) -> None:
    """Without a key there is no connection; with a principal's key there is no way to the log, not even as a reply subject."""
    url = json.loads((up.home / "run" / "endpoint.json").read_text())["url"]
    identity = json.loads((up.home / "identities" / "operator.json").read_text())

    async def knock() -> None:
        refused = asyncio.Event()

        async def note(error: Exception) -> None:
            told.append(str(error))
            if len(told) == 4:
                refused.set()

        nc = await nats.connect(
            url, nkeys_seed_str=identity["seed"], inbox_prefix="_INBOX.operator", error_cb=note, allow_reconnect=False
        )
        for subject in ("ev.0.s-x", "reg.revision", "$JS.API.STREAM.LIST", "ctl.ann.registry.apply"):
            await nc.publish(subject, b"{}")
        await nc.publish("ctl.operator.runtime.status", b'{"params":{}}', reply="reg.revision")
        await nc.flush()
        await refused.wait()
        await nc.close()

    told: list[str] = []
    assert "Authorization Violation" in anonymous(url)
    asyncio.run(knock())
    assert all("permissions violation" in text.lower() for text in told)
    assert up("history", "-o", "json").json == []
    assert "which is not its inbox" in (up.home / "log" / "runtime.log").read_text()
