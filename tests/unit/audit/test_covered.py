"""Packs under checkpoints: what the runtime's own signature could hide (a forged or trimmed record), a checkpoint shows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from agentos.abi.assets import asset
from agentos.abi.canonical import canonical
from agentos.audit.covered import REGISTRY_NOTE, ROTATIONS, TENANT_NOTE, Covered
from agentos.audit.evidence import Scope, gather
from agentos.audit.keyring import KeyRing
from agentos.audit.keys import SigningKey
from agentos.audit.layout import FORMAT, FORMAT_V2, MANIFEST, SIGNATURE, SIGNED_PREFIX, unzip_members, zip_members
from agentos.audit.note import Verifier
from agentos.audit.prover import Prover
from agentos.audit.rotation import make_rotation
from agentos.audit.tiles import TileStore
from agentos.audit.verify import CHECKS, CHECKS_V2, verify_pack
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.eventlog.port import Message
from agentos.eventlog.subject import PRINCIPALS, REVISIONS, blob_subject, session_subject

OTHER = SigningKey.from_seed(bytes(32))


class Still:
    def now_ms(self) -> int:
        return 1_795_000_000_000


async def put(log, subject: str, lines) -> None:
    await log.append(subject, [Message(f"{subject}-{at}", line) for at, line in enumerate(lines)], after=0)


async def prover_of(name: str, log, key, folder, streams) -> Prover:
    made = Prover(name, log, TileStore.open(folder / f"{name}.db", tenant=name), KeyRing(None, key), Still(), streams=streams)
    await made.open()
    for stream in made.streams:
        await made.take([(stream, stored) async for stored in log.scan(stream)])
    return made


@pytest.fixture
async def covered(fleet, record, tmp_path) -> Covered:
    """What an export of the fleet's two sessions adds; a third session is in the log and not in the pack."""
    log, registry = MemoryLog(), MemoryLog()
    for session, lines in {"s-else": record.short_session("s-else").stored, **fleet.sessions}.items():
        await put(log, session_subject(session), lines)
    for name, data in fleet.registry.blobs.items():
        await put(registry, blob_subject(name), [data])
    await put(registry, REVISIONS, fleet.registry.revisions)
    await put(registry, PRINCIPALS, fleet.registry.principals)
    ours = await prover_of("default", log, fleet.key, tmp_path, None)
    theirs = await prover_of("REG", registry, fleet.key, tmp_path, ("REG",))
    tenant, fleets = await ours.sign(), await theirs.sign()
    found = await gather(log, registry, tenant="default", scope=Scope(sessions=("s-busy", "s-short")))
    proofs = [await ours.cover(stream, leaves, tenant) for stream, leaves in found.leaves.items()]
    proofs.append(await theirs.cover("REG", found.registry_leaves, fleets))
    ours.tiles.close()
    theirs.tiles.close()
    return Covered(tenant.note, fleets.note, (), proofs)


def checks(report) -> dict[str, bool | None]:
    return {check.name: check.ok for check in report.checks}


def test_a_pack_under_checkpoints_verifies(fleet, covered) -> None:
    """With the public key, and with the verifier key of the tenant's log; the manifest is what its schema says."""
    pack = fleet.pack(covered=covered)
    report = verify_pack(pack, fleet.key.public_pem)
    assert report.ok, report.faults
    assert checks(report)["checkpoint"] is checks(report)["inclusion"] is True
    origin = covered.tenant_note.split("\n", 1)[0]
    assert verify_pack(pack, Verifier(origin, fleet.key.public).text.encode()).ok
    assert not verify_pack(pack, Verifier(origin + "x", fleet.key.public).text.encode()).ok
    manifest = json.loads(unzip_members(pack)[MANIFEST])
    assert manifest["format"] == FORMAT
    schema = json.loads((asset("schemas") / "v1" / "evidence-manifest.json").read_text())
    Draft202012Validator(schema).validate(manifest)


PACKS = Path(__file__).parent / "packs"
"""Packs as versions before this one wrote them, of the fleet of `conftest.py` with open events."""


@pytest.mark.parametrize(("name", "made"), [("v1", CHECKS), ("v2", CHECKS | CHECKS_V2)])
def test_packs_from_before_stay_readable(fleet, name: str, made: dict[str, str]) -> None:
    """Each with the checks of its format, all of them made, and not one bit of it changed."""
    pack = (PACKS / f"{name}.zip").read_bytes()
    report = verify_pack(pack, fleet.key.public_pem)
    assert checks(report) == dict.fromkeys(made, True)
    assert report.ok
    manifest = json.loads(unzip_members(pack)[MANIFEST])
    assert manifest["format"] == f"agentos-evidence/{name}"
    Draft202012Validator(json.loads((asset("schemas") / "v1" / "evidence-manifest.json").read_text())).validate(manifest)
    for at in range(0, len(pack), 97):
        changed = bytearray(pack)
        changed[at] ^= 1
        assert not verify_pack(bytes(changed), fleet.key.public_pem).ok, at


def test_records_do_not_pass_under_the_name_of_an_older_format(fleet, covered) -> None:
    """What an older format does not check is not let through by calling a pack one of it, even by the trusted key."""
    members = unzip_members(fleet.pack(covered=covered))
    body = json.loads(members[MANIFEST])
    del body["audit"], body["scope"]["withhold"]
    for one in body["sessions"]:
        del one["withheld"], one["erased"], one["lost"]
    manifest = canonical(body | {"format": FORMAT_V2})
    signed = members | {MANIFEST: manifest, SIGNATURE: fleet.key.sign(SIGNED_PREFIX + manifest)}
    report = verify_pack(zip_members(signed), fleet.key.public_pem)
    assert {"chains", "members"} <= {fault.check for fault in report.faults}


def faults(fleet, covered: Covered, **changes) -> set[str]:
    report = verify_pack(fleet.pack(covered=covered, **changes), fleet.key.public_pem)
    assert not report.ok
    return {fault.check for fault in report.faults}


def test_a_record_made_up_afterwards_is_not_covered(fleet, covered, record) -> None:
    """The runtime's key signs a pack with another history of a session: chain and signature hold, the checkpoint does not."""
    forged = record.Chain("s-short")
    forged.created(agent="clerk")
    forged.decided("c1", "list", "allow")
    forged.finished("c1", "list", "something else")
    assert len(forged.stored) == len(fleet.sessions["s-short"])
    assert faults(fleet, covered, sessions=fleet.sessions | {"s-short": forged.stored}) == {"inclusion"}


def test_a_shortened_session_is_not_covered(fleet, covered) -> None:
    """Its last events left out, or a whole session more than the checkpoints show."""
    assert faults(fleet, covered, sessions=fleet.sessions | {"s-short": fleet.sessions["s-short"][:-1]}) == {"inclusion"}


def test_a_chain_nobody_covers_is_said(fleet, covered, record) -> None:
    """A session, or the registry, without leaves; and leaves of a session that is not there."""
    extra = record.short_session("s-extra").stored
    assert faults(fleet, covered, sessions=fleet.sessions | {"s-extra": extra}) == {"inclusion"}
    without = replace(covered, proofs=[proof for proof in covered.proofs if proof.stream != "REG"])
    assert faults(fleet, without) == {"inclusion"}
    assert "inclusion" in faults(fleet, covered, sessions={"s-busy": fleet.sessions["s-busy"]})


def test_notes_of_others_are_no_checkpoints_of_ours(fleet, covered) -> None:
    """Another key, another log, an edited note, no note at all."""
    for note in ("tenant_note", "registry_note"):
        swapped = replace(covered, tenant_note=covered.registry_note, registry_note=covered.tenant_note)
        edited = replace(covered, **{note: getattr(covered, note).replace("\n1\n", "\n2\n")})
        empty = replace(covered, **{note: ""})
        for wrong in (swapped, edited, empty):
            assert "checkpoint" in faults(fleet, wrong)
    report = verify_pack(fleet.pack(covered=covered, key=OTHER), OTHER.public_pem)
    assert checks(report)["signature"] is True
    assert checks(report)["checkpoint"] is False


def test_leaves_and_hashes_that_are_off_are_refused(fleet, covered) -> None:
    """Out of order, twice, too many, of no numbers; hashes cut or added: said, never a traceback."""
    proof = next(one for one in covered.proofs if "s-busy" in one.leaves)
    leaves = list(proof.leaves["s-busy"])
    rest = [one for one in covered.proofs if one is not proof]
    for wrong in (leaves[::-1], leaves[:-1], [leaves[0]] * len(leaves), [leaf + 1 for leaf in leaves], [-1, *leaves[1:]]):
        changed = replace(proof, leaves=dict(proof.leaves) | {"s-busy": wrong})
        assert faults(fleet, replace(covered, proofs=[*rest, changed])) == {"inclusion"}
    for nodes in ([*proof.nodes, bytes(32)], [b"short"]):
        assert faults(fleet, replace(covered, proofs=[*rest, replace(proof, nodes=nodes)])) == {"inclusion"}


@pytest.mark.parametrize(
    "body", [b"[]", b"{", b'{"leaves":[],"nodes":[]}', b'{"leaves":{"s-busy":[true]},"nodes":[]}', b'{"leaves":{},"nodes":["x"]}']
)
def test_proofs_that_cannot_be_read_are_said(fleet, covered, body: bytes) -> None:
    """Whatever stands in the member, there is a report."""

    class Odd(Covered):
        def members(self):
            found = super().members()
            return found | {name: body for name in found if name.startswith("checkpoint/EV_")}

    odd = Odd(covered.tenant_note, covered.registry_note, covered.rotations, covered.proofs)
    assert faults(fleet, odd) == {"inclusion"}


def test_a_rotated_key_carries_its_proof(fleet, covered) -> None:
    """Signed by the new key, with the rotation in the pack: both keys verify it; without, only one of the checks holds."""
    rotation = make_rotation(fleet.key, OTHER, Still().now_ms())
    turned = replace(covered, rotations=(rotation.note,))
    pack = fleet.pack(covered=turned, key=OTHER)
    for key in (fleet.key, OTHER):
        report = verify_pack(pack, key.public_pem)
        assert report.ok, report.faults
    assert not verify_pack(fleet.pack(covered=covered, key=OTHER), fleet.key.public_pem).ok
    late = replace(covered, rotations=(make_rotation(fleet.key, OTHER, 2 * Still().now_ms()).note,))
    report = verify_pack(fleet.pack(covered=late, key=OTHER), fleet.key.public_pem)
    assert "not in use" in next(fault.message for fault in report.faults if fault.check == "signature")
    for notes in ((covered.tenant_note,), ("",)):
        assert not verify_pack(fleet.pack(covered=replace(covered, rotations=notes)), fleet.key.public_pem).ok


def test_a_member_left_out_is_missed(fleet, covered) -> None:
    """The three members that every pack of this format has."""
    members = unzip_members(fleet.pack(covered=covered))
    for name in (TENANT_NOTE, REGISTRY_NOTE, ROTATIONS):
        report = verify_pack(zip_members({key: data for key, data in members.items() if key != name}), fleet.key.public_pem)
        assert {"members"} <= {fault.check for fault in report.faults}
    assert members[ROTATIONS] == b"[]"
