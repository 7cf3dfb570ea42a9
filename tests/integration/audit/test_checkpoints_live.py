"""Checkpoints in a whole runtime: every tenant has its own, from the moment at which it exists, and each runtime goes on."""

from __future__ import annotations

import base64
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))

from house import WORKER, Door, House, documents

from agentos.abi.errors import Denied, NotFound
from agentos.audit.checkpoint import Checkpoint
from agentos.audit.note import Verifier, parse_note
from agentos.audit.verify import verify_pack


async def verified(door: Door) -> dict:
    answer = await door("audit.verify")
    while not answer["done"]:
        answer = await door("audit.verify", run=answer["run"])
    return answer["report"]


async def signed(door: Door) -> Checkpoint:
    """The checkpoint of this moment, its signature checked with the key that everyone may fetch."""
    note = parse_note((await door("audit.checkpoint", now=True))["note"])
    keys = [Verifier.parse(key["verifier"]) for key in (await door("audit.keys"))["keys"]]
    assert note.signers(keys) == (keys[-1],)
    return Checkpoint.parse(note.text)


async def test_a_new_tenant_is_under_checkpoints_at_once(tmp_path) -> None:
    """Its log has an origin, numbers and roots of its own; its operator cannot replace the key of the fleet."""
    async with House(tmp_path / "home").open() as door:
        await door.apply({"apiVersion": "agentos/v1", "kind": "Tenant", "metadata": {"name": "acme"}, "spec": {}})
        acme = await door.in_tenant("acme")
        await door.apply(*documents(WORKER, tenant="acme"))
        session = await acme.run()
        await acme.until(session)
        ours, theirs = await signed(door), await signed(acme)
        assert (ours.origin.rsplit("/", 1)[1], theirs.origin.rsplit("/", 1)[1]) == ("default", "acme")
        assert sum(tree.size for tree in ours.streams.values()) == 0
        assert sum(tree.size for tree in theirs.streams.values()) == len(await acme.events(session))
        assert (await verified(acme))["ok"]
        with pytest.raises(NotFound):
            await door("audit.prove", event=f"{session}#1")
        local = await door.as_principal("al", ["operator", "auditor"], "acme")
        assert (await local.call("audit.prove", {"event": f"{session}#1"}))["proof"]["leaf"] == 0
        with pytest.raises(Denied):
            await local.call("audit.rotate", {})
        pack = base64.b64decode((await acme("evidence.export"))["pack"])
        report = verify_pack(pack, (await door("evidence.key"))["pem"].encode())
        assert report.ok, report.faults


async def test_the_next_runtime_goes_on(tmp_path) -> None:
    """Numbers, origin and key survive restarts and a rotation; the registry's log is under checkpoints too."""
    house = House(tmp_path / "home")
    last = None
    for turn in range(3):
        async with house.open() as door:
            if turn == 0:
                await door.apply(*documents(WORKER))
            await door.until(await door.run(goal=f"turn {turn}"))
            point = await signed(door)
            assert last is None or (point.origin == last.origin and point.number > last.number)
            assert last is None or all(point.tree(name).size >= tree.size for name, tree in last.streams.items())
            registry = door.runtime.checkpoints.get("*")
            assert (await registry.now()).checkpoint.tree("REG").size == await registry.prover.log.end("REG")
            await door("audit.rotate")
            assert (await verified(door))["ok"]
            assert (await door("runtime.status"))["warnings"] == []
            last = point
