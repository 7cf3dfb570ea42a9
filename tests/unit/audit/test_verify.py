"""Offline verification: the untouched pack passes, and nothing else does."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from odd_sessions import ODD_SESSIONS, SOUND_SESSIONS, approved

from agentos.abi import event as ev
from agentos.abi.canonical import canonical, digest
from agentos.abi.errors import EvidenceError
from agentos.abi.record import header_of, join, split
from agentos.audit.keys import SigningKey
from agentos.audit.layout import MANIFEST, SIGNATURE, SIGNED_PREFIX, unzip_members, zip_members
from agentos.audit.verify import CHECKS, CHECKS_V2, CHECKS_V3, Report, verify_pack

OTHER = SigningKey.from_seed(bytes(32))


@pytest.fixture(scope="session")
def pack(fleet) -> bytes:
    return fleet.pack()


@pytest.fixture
def verify(fleet):
    return lambda data: verify_pack(data, fleet.key.public_pem)


def failed(report: Report) -> set[str]:
    assert not report.ok
    assert report.faults
    return {check.name for check in report.checks if check.ok is False}


def re_signed(members: dict[str, bytes], key: SigningKey = OTHER, **changes: object) -> bytes:
    """What a forger can do: make the manifest fit the members again and sign it with a key of his own."""
    body = json.loads(members[MANIFEST])
    body["members"] = [
        {"name": name, "sha256": digest(data), "size": len(data)}
        for name, data in members.items()
        if name not in {MANIFEST, SIGNATURE}
    ]
    manifest = canonical(body | {"key": key.id} | changes)
    return zip_members(members | {MANIFEST: manifest, SIGNATURE: key.sign(SIGNED_PREFIX + manifest)})


def rechained(lines: list[bytes]) -> list[bytes]:
    """The same events, numbered and linked anew, each header naming the payload that it has now."""
    prev, stored = "sha256:" + "0" * 64, []
    for seq, line in enumerate(lines, 1):
        header, opening = split(line)
        body = json.loads(header) | {"seq": seq, "prev": prev, "p": digest(opening)}
        stored.append(join(canonical(body), opening))
        prev = digest(header_of(stored[-1]))
    return stored


def with_events(members: dict[str, bytes], session: str, lines: list[bytes]) -> dict[str, bytes]:
    return members | {f"events/{session}.jsonl": b"".join(line + b"\n" for line in lines)}


def test_the_untouched_pack_passes_every_check(pack, verify):
    """A pack that nobody touched holds, and every check was made."""
    report = verify(pack)
    assert report.ok
    assert report.faults == ()
    assert [(check.name, check.ok) for check in report.checks] == [(name, True) for name in CHECKS | CHECKS_V2 | CHECKS_V3]
    assert report.absent == {"withheld": 0, "erased": 0, "lost": 0}
    assert report.not_made == ()
    assert (report.sessions, report.events, report.exporter) == (2, 20, "principal/olga")


def test_the_same_record_is_always_the_same_pack(fleet, pack):
    """Building twice gives the same bytes, whatever order the sessions are handed over in."""
    assert fleet.pack(sessions=dict(reversed(fleet.sessions.items()))) == pack


def test_any_zip_reader_reads_a_pack(pack):
    """The container is plain ZIP: the standard library finds the same members in the same order, checksums right."""
    with zipfile.ZipFile(io.BytesIO(pack)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == unzip_members(pack)


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_no_flipped_bit_goes_unnoticed(fleet, pack, data):
    """Whatever bit of the pack is flipped, it is refused."""
    at = data.draw(st.integers(0, len(pack) - 1))
    changed = bytearray(pack)
    changed[at] ^= 1 << data.draw(st.integers(0, 7))
    assert not verify_pack(bytes(changed), fleet.key.public_pem).ok


def test_no_changed_byte_of_the_frame_goes_unnoticed(fleet, pack):
    """Every single byte of the headers, the directory, the manifest and the signature counts."""
    body = pack.index(b"README.txt") + 10
    end = pack.index(b"PK\x01\x02")
    for at in (*range(body), *range(end, len(pack))):
        changed = bytearray(pack)
        changed[at] ^= 0xFF
        assert not verify_pack(bytes(changed), fleet.key.public_pem).ok, at


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_cut_or_grown_pack_passes(fleet, pack, data):
    """Bytes taken out, put in, put before or behind: refused."""
    at = data.draw(st.integers(0, len(pack)))
    cut = data.draw(st.integers(0, 64))
    extra = data.draw(st.binary(max_size=64))
    changed = pack[:at] + extra + pack[at + cut :]
    assert verify_pack(changed, fleet.key.public_pem).ok == (changed == pack)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=300))
def test_any_bytes_get_a_report(fleet, data):
    """The verifier never raises for what it is given to check, also when it begins like a pack."""
    for given_bytes in (data, b"PK\x03\x04" + data, zip_members({MANIFEST: data, SIGNATURE: b""})):
        assert not verify_pack(given_bytes, fleet.key.public_pem).ok


@settings(max_examples=200, deadline=None)
@given(
    body=st.recursive(
        st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    ),
    field=st.sampled_from(["tenant", "sessions", "registry", "audit", "members", "scope", "key", "format"]),
)
def test_a_signed_manifest_of_any_shape_gets_a_report(fleet, pack, body, field):
    """Even a manifest that the trusted key signed may hold anything: no shape of it makes the verifier raise."""
    members = unzip_members(pack)
    original = json.loads(members[MANIFEST])
    manifest = canonical(original | {field: body})
    signed = members | {MANIFEST: manifest, SIGNATURE: fleet.key.sign(SIGNED_PREFIX + manifest)}
    assert verify_pack(zip_members(signed), fleet.key.public_pem).ok == (body == original[field])


def _edit(lines: list[bytes]) -> list[bytes]:
    return [lines[0].replace(b"sort the inbox", b"read the inbox"), *lines[1:]]


EVENT_TAMPERING = {
    "edited": _edit,
    "dropped": lambda lines: lines[:2] + lines[3:],
    "reordered": lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
    "repeated": lambda lines: [*lines, lines[-1]],
    "cut tail": lambda lines: lines[:-1],
    "emptied": lambda lines: [],
    "not canonical": lambda lines: [lines[0].replace(b",", b", ", 1), *lines[1:]],
    "blank line": lambda lines: [*lines, b""],
}


@pytest.mark.parametrize("tampering", EVENT_TAMPERING)
def test_tampered_events_are_named(pack, verify, fleet, tampering):
    """Events that were changed break the chain or its head, even with a manifest that fits them and a foreign signature."""
    members = with_events(unzip_members(pack), "s-busy", EVENT_TAMPERING[tampering](fleet.sessions["s-busy"]))
    report = verify(zip_members(members))
    assert {"members", "chains"} <= failed(report)
    assert any("s-busy" in fault.where for fault in report.faults)
    assert {"signature", "chains"} <= failed(verify(re_signed(members)))


def test_an_appended_event_is_named(pack, verify, fleet, record):
    """A well-made event behind the signed head is refused."""
    chain = record.Chain("s-short")
    chain.created(agent="clerk")
    chain.decided("c1", "list", "allow")
    chain.finished("c1", "list")
    assert chain.stored == fleet.sessions["s-short"]
    chain.add(ev.SESSION_FINISHED, {"result": "all is well"})
    members = with_events(unzip_members(pack), "s-short", chain.stored)
    assert {"members", "chains"} <= failed(verify(zip_members(members)))


@pytest.mark.parametrize("tampering", ["edited", "dropped", "reordered", "cut tail"])
def test_a_recomputed_chain_is_refused(pack, verify, fleet, tampering):
    """A chain recomputed after an edit ends elsewhere; with heads, digests and signature made anew, the key gives it away."""
    lines = rechained(EVENT_TAMPERING[tampering](fleet.sessions["s-busy"]))
    members = with_events(unzip_members(pack), "s-busy", lines)
    assert {"members", "chains"} <= failed(verify(zip_members(members)))
    sessions = json.loads(members[MANIFEST])["sessions"]
    sessions[0] |= {"seq": len(lines), "hash": digest(header_of(lines[-1]))}
    forged = re_signed(members, sessions=sessions)
    assert "signature" in failed(verify(forged))
    assert verify_pack(forged, fleet.key.public_pem).key == OTHER.id


def test_a_manifest_that_claims_the_trusted_key_is_refused(pack, verify, fleet):
    """Naming the trusted key's id does not help a forger who cannot sign with it."""
    assert failed(verify(_claims(pack, fleet.key))) == {"signature"}


def _claims(pack: bytes, key: SigningKey) -> bytes:
    members = unzip_members(pack)
    body = json.loads(members[MANIFEST]) | {"exporter": "principal/mallory", "key": key.id}
    manifest = canonical(body)
    return zip_members(members | {MANIFEST: manifest, SIGNATURE: OTHER.sign(SIGNED_PREFIX + manifest)})


def test_a_signature_without_its_prefix_is_refused(pack, verify, fleet):
    """What the key signed for another purpose is no signature of a manifest."""
    members = unzip_members(pack)
    assert failed(verify(zip_members(members | {SIGNATURE: fleet.key.sign(members[MANIFEST])}))) == {"signature"}


def test_a_dropped_session_is_named(pack, verify):
    """A session that is signed for and not there is missed, also when the manifest was made to fit."""
    members = unzip_members(pack)
    del members["events/s-short.jsonl"]
    assert {"members", "chains"} <= failed(verify(zip_members(members)))
    assert {"signature", "chains", "members"} <= failed(verify(re_signed(members)))


def test_swapped_sessions_are_named(pack, verify):
    """The events of one session under the name of another are refused."""
    members = unzip_members(pack)
    one, two = "events/s-busy.jsonl", "events/s-short.jsonl"
    members[one], members[two] = members[two], members[one]
    assert {"members", "chains"} <= failed(verify(zip_members(members)))
    assert {"signature", "chains"} <= failed(verify(re_signed(members)))


@pytest.mark.parametrize("name", ["notes.txt", "events/s-added.jsonl", "registry/blobs/00.json"])
def test_an_added_member_is_named(pack, verify, name):
    """Nothing may travel in a pack that the manifest does not list."""
    report = verify(zip_members(unzip_members(pack) | {name: b"{}"}))
    assert "members" in failed(report)
    assert any(fault.where == name for fault in report.faults)


def test_reordered_members_are_refused(pack, verify):
    """The order of the members is part of the pack."""
    members = unzip_members(pack)
    assert failed(verify(zip_members(dict(sorted(members.items()))))) == {"members"}


def test_a_comment_a_prefix_a_suffix_and_another_writer_are_refused(pack, verify):
    """The same members in other bytes are another file."""
    commented = io.BytesIO(pack)
    with zipfile.ZipFile(commented, "a") as archive:
        archive.comment = b"seen and approved"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in unzip_members(pack).items():
            archive.writestr(name, data)
    for changed in (commented.getvalue(), b"#!/bin/sh\n" + pack, pack + b"\x00", packed.getvalue(), pack + pack):
        assert failed(verify(changed)) == {"container"}


def test_two_members_of_one_name_are_refused(pack, verify):
    """A name that stands twice is refused: readers differ in which one they show."""
    end = pack.index(b"PK\x01\x02")
    extra = zip_members({"README.txt": b"trust me"})
    doubled = pack[:end] + extra[: extra.index(b"PK\x01\x02")] + pack[end:]
    report = verify(doubled)
    assert failed(report) == {"container"}
    assert report.faults[0].message == "two members are called README.txt"


def test_a_bomb_is_not_unpacked(verify):
    """A member that claims to be larger than the file is refused before anything is made of it."""
    bomb = bytearray(zip_members({"README.txt": b""}))
    bomb[18:26] = b"\xff\xff\xff\x7f" * 2
    assert failed(verify(bytes(bomb))) == {"container"}


def signed_session(fleet, record: ModuleType, write) -> Report:
    """A pack that the runtime itself signed, of one session that `write` made."""
    chain = record.Chain("s-odd")
    chain.created()
    write(chain)
    return verify_pack(fleet.pack(sessions={"s-odd": chain.stored}), fleet.key.public_pem)


@pytest.mark.parametrize("case", ODD_SESSIONS)
def test_what_was_not_in_order_is_a_fault_though_the_runtime_signed_it(fleet, record, case):
    """A whole chain and a good signature do not excuse an act without authority."""
    check, write = ODD_SESSIONS[case]
    assert failed(signed_session(fleet, record, write)) == set(check.split())


def test_a_revoked_approver_approves_no_more(fleet, record):
    """An approval counts if its giver was an approver at that moment, and not after being revoked."""
    principals = record.Chain("principals", tenant="*", revision=0, now_ms=record.START_MS - 90_000, open=True)
    for line in fleet.registry.principals:
        event = json.loads(line)
        principals.add(event["type"], event["data"], event["actor"])
    principals.now_ms = record.START_MS + 60_000
    principals.add(ev.PRINCIPAL_REVOKED, {"name": "anna", "reason": "left"}, "principal/olga")
    registry = record.RegistryRecord(fleet.registry.revisions, principals.stored, fleet.registry.blobs)

    def pack_at(moment_ms: int) -> bytes:
        chain = record.Chain("s-odd")
        chain.created()
        chain.now_ms = moment_ms
        approved(chain, "principal/anna")
        return fleet.pack(sessions={"s-odd": chain.stored}, registry=registry)

    assert verify_pack(pack_at(record.START_MS + 10_000), fleet.key.public_pem).ok
    assert failed(verify_pack(pack_at(record.START_MS + 90_000), fleet.key.public_pem)) == {"approvals", "actors"}


@pytest.mark.parametrize("case", SOUND_SESSIONS)
def test_what_was_in_order_is_no_fault(fleet, record, case):
    """Every way in which people may let a call through, or not."""
    report = signed_session(fleet, record, SOUND_SESSIONS[case])
    assert report.faults == ()


def test_missing_declarations_are_named(fleet):
    """A revision whose tree or declarations are not in the pack is not evidence of what was in force."""
    for gone in fleet.registry.blobs:
        blobs = {name: data for name, data in fleet.registry.blobs.items() if name != gone}
        registry = type(fleet.registry)(fleet.registry.revisions, fleet.registry.principals, blobs)
        assert failed(verify_pack(fleet.pack(registry=registry), fleet.key.public_pem)) == {"blobs"}


def test_the_trusted_key_must_be_a_public_ed25519_key(pack):
    """Anything else to trust is an error that says where to get the key."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    curve = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = curve.public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    for trust in (b"", b"no key", pem, pack):
        with pytest.raises(EvidenceError, match="trusted key") as caught:
            verify_pack(pack, trust)
        assert "agentos evidence key" in (caught.value.mend or "")


def test_the_verifier_needs_nothing_that_runs_agents():
    """Verification loads the ABI, this room's own modules and the standard library; `cryptography` when it checks."""
    program = (
        "import sys, agentos.audit.verify; print([name for name in sys.modules if '.' in name or name in ('nats', 'orjson')])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    rooms = {name.split(".")[1] for name in json.loads(found.replace("'", '"')) if name.startswith("agentos.")}
    assert rooms == {"abi", "audit"}
    for foreign in ("nats", "orjson", "yaml", "typer", "sqlite3"):
        assert f"'{foreign}'" not in found
        assert f"'{foreign}." not in found
