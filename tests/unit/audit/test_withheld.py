"""Packs without payloads: what is left is checked as before, what cannot be checked is counted, and nothing false passes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from odd_sessions import ODD_SESSIONS, SOUND_SESSIONS

from agentos.abi import event as ev
from agentos.abi.canonical import canonical, digest
from agentos.abi.errors import ChainBroken, EvidenceError, UsageError
from agentos.abi.event import Event
from agentos.abi.record import decode, header_of, join, make_opening, split
from agentos.audit.evidence import Scope, kept_back
from agentos.audit.layout import MANIFEST, SIGNATURE, SIGNED_PREFIX, unzip_members, zip_members
from agentos.audit.verify import Report, verify_pack
from agentos.audit.withhold import Withhold

SECRETS = (b"sort the inbox", b"a mail", b"=SUM(A1)", b"looks right", b"in/c1.md")
"""Said in payloads of `busy_session`."""


def scope(*texts: str, **more: object) -> Scope:
    return Scope(withhold=Withhold.parse(texts), **more)


def made_whole(report: Report) -> set[str]:
    """The checks that were made for every event."""
    return {check.name for check in report.checks if check.ok} - {one.check for one in report.not_made}


def checks_failed(report: Report) -> set[str]:
    return {check.name for check in report.checks if check.ok is False}


def signed(fleet, members: dict[str, bytes], **changes: object) -> bytes:
    """Any members, under a manifest that lists them, signed by the trusted key: what only the runtime itself could do."""
    body = json.loads(members[MANIFEST]) | changes
    body["members"] = [
        {"name": name, "sha256": digest(data), "size": len(data)}
        for name, data in members.items()
        if name not in {MANIFEST, SIGNATURE}
    ]
    manifest = canonical(body)
    return zip_members(members | {MANIFEST: manifest, SIGNATURE: fleet.key.sign(SIGNED_PREFIX + manifest)})


def test_a_pack_of_headers_verifies_and_says_so(fleet) -> None:
    """All payloads withheld: no word of them is in the pack, every check holds for what is there, the rest is counted."""
    pack = fleet.pack(scope=scope("all"))
    assert not any(secret in pack for secret in SECRETS)
    report = verify_pack(pack, fleet.key.public_pem)
    assert report.ok, report.faults
    events = sum(len(records) for records in fleet.sessions.values())
    assert report.absent == {"withheld": events, "erased": 0, "lost": 0}
    assert {(one.check, one.reason) for one in report.not_made} == {
        ("headers", "withheld"),
        ("intent", "withheld"),
        ("approvals", "withheld"),
    }
    assert next(one.events for one in report.not_made if one.check == "headers") == events
    assert {"signature", "chains", "inclusion", "checkpoint", "actors", "revisions", "withheld"} <= made_whole(report)
    assert report.to_dict()["absent"]["withheld"] == events


def test_one_session_or_one_tool_is_kept_back(fleet) -> None:
    """The others are disclosed whole; of a call of the tool every event is kept back, question and answer among them."""
    report = verify_pack(fleet.pack(scope=scope("s-short")), fleet.key.public_pem)
    assert report.ok, report.faults
    assert report.absent["withheld"] == len(fleet.sessions["s-short"])
    pack = fleet.pack(scope=scope("tool=write"))
    assert b"=SUM(A1)" not in pack
    assert b"looks right" not in pack
    assert b"sort the inbox" in pack
    report = verify_pack(pack, fleet.key.public_pem)
    assert report.ok, report.faults
    lines = unzip_members(pack)["events/s-busy.jsonl"].splitlines()
    about = {Event.from_bytes(line).type for line in lines if split(line)[1] is None}
    assert about == {ev.SYSCALL_DECIDED, ev.SESSION_WAITING, ev.APPROVAL_GRANTED, ev.SYSCALL_FINISHED}
    assert report.absent["withheld"] == 5


def test_a_fork_is_kept_back_with_any_tool(fleet, record) -> None:
    """Its first payload holds calls of another session; one that is no fork stays."""
    chain = record.Chain("s-fork")
    state = {"calls": [{"call": "c1", "tool": "write", "args": {"text": "=SUM(A1)"}}]}
    chain.add(
        ev.SESSION_CREATED, {"agent": "triage", "goal": "again", "inputs": [], "forked": {"state": state}}, "principal/alice"
    )
    withhold = Withhold.parse(["tool=read"])
    assert withhold.disclosed("s-fork", chain.stored) == [header_of(chain.stored[0])]
    assert withhold.disclosed("s-short", fleet.sessions["s-short"]) == fleet.sessions["s-short"]


def test_a_refused_call_is_kept_back_by_the_name_that_the_model_gave(record) -> None:
    """Its header names no tool, its payload does."""
    chain = record.Chain("s-odd")
    chain.created()
    chain.add(ev.SYSCALL_REFUSED, {"call": "c1", "tool": "wipe", "args_text": "{", "error": {"code": "args", "message": "no"}})
    left = Withhold.parse(["tool=wipe"]).disclosed("s-odd", chain.stored)
    assert left == [chain.stored[0], header_of(chain.stored[1])]


def test_what_is_asked_for_is_told_and_counted(fleet) -> None:
    """The manifest has the texts; a part that keeps nothing back is seen; what cannot be meant is refused."""
    asked = Withhold.parse(["tool=write", "s-short,s-busy", "tool=none"])
    assert asked.told() == ["s-busy", "s-short", "tool=none", "tool=write"]
    assert kept_back(asked, fleet.sessions) == {"s-busy": 12, "s-short": 3, "tool=none": 0, "tool=write": 5}
    manifest = json.loads(unzip_members(fleet.pack(scope=Scope(withhold=asked)))[MANIFEST])
    assert manifest["scope"]["withhold"] == asked.told()
    with pytest.raises(EvidenceError, match="s-none"):
        fleet.pack(scope=scope("s-none"))
    for text in ("", "tool=", "tool=a b", "s-a,,s-b", "../s-a"):
        with pytest.raises(UsageError):
            Withhold.parse([text])


def _edited(opening: bytes) -> bytes:
    return opening.replace(b"a mail", b"a bill")


def _opened(lines: list[bytes], at: int, edit: Callable[[bytes], bytes]) -> list[bytes]:
    header, opening = split(lines[at])
    return [*lines[:at], join(header, edit(opening)), *lines[at + 1 :]]


def _moved(lines: list[bytes]) -> list[bytes]:
    (one, first), (two, second) = split(lines[3]), split(lines[4])
    return [*lines[:3], join(one, second), join(two, first), *lines[5:]]


FOREIGN = make_opening({"reason": "because"}, bytes(16))

OPENINGS = {
    "edited": lambda lines: _opened(lines, 4, _edited),
    "salted anew": lambda lines: _opened(lines, 4, lambda opening: opening.replace(b'"salt":"', b'"salt":"00')),
    "emptied": lambda lines: _opened(lines, 4, lambda _: b""),
    "moved": _moved,
    "another's": lambda lines: _opened(lines, 4, lambda _: FOREIGN),
    "two": lambda lines: _opened(lines, 4, lambda opening: opening + b"\t" + opening),
}


@pytest.mark.parametrize("case", OPENINGS)
def test_a_payload_that_is_not_the_headers_is_found(fleet, case: str) -> None:
    """Whoever signs it, and whatever else was made to fit; nor does a runtime sign one that it finds in its log."""
    lines = OPENINGS[case](fleet.sessions["s-busy"])
    members = unzip_members(fleet.pack()) | {"events/s-busy.jsonl": b"".join(line + b"\n" for line in lines)}
    report = verify_pack(signed(fleet, members), fleet.key.public_pem)
    assert "chains" in checks_failed(report)
    assert not {"headers", "intent"} & made_whole(report)
    with pytest.raises(ChainBroken):
        fleet.pack(sessions=fleet.sessions | {"s-busy": lines})


def test_a_payload_beside_a_header_that_was_withheld_is_found(fleet) -> None:
    """One that is not the header's is found; one that is was disclosed in spite of the manifest."""
    members = unzip_members(fleet.pack(scope=scope("all")))
    lines = members["events/s-busy.jsonl"].splitlines()
    for opening, check in ((FOREIGN, "chains"), (split(fleet.sessions["s-busy"][4])[1], "withheld")):
        changed = [*lines[:4], join(lines[4], opening), *lines[5:]]
        forged = members | {"events/s-busy.jsonl": b"".join(line + b"\n" for line in changed)}
        assert check in checks_failed(verify_pack(signed(fleet, forged), fleet.key.public_pem))


def test_a_payload_cut_off_is_missed(fleet) -> None:
    """Payloads that the manifest does not count as absent."""
    members = unzip_members(fleet.pack())
    lines = [header_of(line) for line in members["events/s-short.jsonl"].splitlines()]
    forged = members | {"events/s-short.jsonl": b"".join(line + b"\n" for line in lines)}
    assert checks_failed(verify_pack(signed(fleet, forged), fleet.key.public_pem)) == {"withheld"}


def relinked(lines: list[bytes], at: int, **changes: object) -> list[bytes]:
    """The records with other attributes in one header, all headers behind it linked anew."""
    prev, found = "sha256:" + "0" * 64, []
    for place, line in enumerate(lines):
        header, opening = split(line)
        body = json.loads(header) | {"prev": prev} | (changes if place == at else {})
        found.append(join(canonical({key: value for key, value in body.items() if value is not None}), opening))
        prev = digest(header_of(found[-1]))
    return found


FALSE_HEADERS = {
    "tool": (3, {"tool": "list"}),
    "decision": (5, {"decision": "allow"}),
    "rules": (5, {"rules": "grants.granted"}),
    "labels": (4, {"dataclasses": "public"}),
    "nothing of the call": (4, {"call": None, "tool": None}),
    "more than there is": (4, {"errorcode": "tool"}),
    "an unknown one": (4, {"colour": "red"}),
    "another agent": (4, {"agent": "clerk"}),
    "another starter": (4, {"onbehalfof": "principal/anna"}),
    "a parent": (4, {"parent": "s-short"}),
    "the first one's agent": (0, {"agent": "clerk"}),
    "another trace": (4, {"traceparent": "00-" + "0" * 32 + "-" + "0" * 16 + "-01"}),
}


@pytest.mark.parametrize("case", FALSE_HEADERS)
def test_a_header_that_is_not_true_is_found(fleet, case: str) -> None:
    """Though the runtime wrote it so, linked it and put it under a checkpoint."""
    at, changes = FALSE_HEADERS[case]
    sessions = fleet.sessions | {"s-busy": relinked(fleet.sessions["s-busy"], at, **changes)}
    report = verify_pack(fleet.pack(sessions=sessions), fleet.key.public_pem)
    assert "headers" in checks_failed(report)
    assert "inclusion" not in checks_failed(report)


@pytest.mark.parametrize("case", ["another agent", "another starter", "a parent", "the first one's agent", "another trace"])
def test_what_all_headers_repeat_is_checked_without_payloads(fleet, case: str) -> None:
    """An agent, a starter, a parent or a trace that differs from those of the session."""
    at, changes = FALSE_HEADERS[case]
    sessions = {"s-busy": relinked(fleet.sessions["s-busy"], at, **changes)}
    assert checks_failed(verify_pack(fleet.pack(sessions=sessions, scope=scope("all")), fleet.key.public_pem)) == {"headers"}


def test_a_record_without_attributes_or_among_open_events_is_found(fleet, record) -> None:
    """A header that says nothing is not true either; a chain of open events holds no record."""
    bare = record.Chain("s-odd")
    bare.created()
    stripped = relinked(bare.stored, 0, agent=None, onbehalfof=None, traceparent=None)
    assert checks_failed(verify_pack(fleet.pack(sessions={"s-odd": stripped}), fleet.key.public_pem)) == {"headers"}
    mixed = record.Chain("s-odd", open=True)
    mixed.created()
    report = verify_pack(fleet.pack(sessions={"s-odd": mixed.stored}), fleet.key.public_pem)
    assert report.ok, report.faults
    mixed.open = False
    mixed.decided("c1", "read", "allow")
    assert "chains" in checks_failed(verify_pack(fleet.pack(sessions={"s-odd": mixed.stored}), fleet.key.public_pem))


def written(record, write) -> list[bytes]:
    chain = record.Chain("s-odd")
    chain.created()
    write(chain)
    return chain.stored


def without(fleet, records: list[bytes], kept: set[int]) -> Report:
    """The report on a pack in which the payloads of the events `kept` are withheld."""
    members = unzip_members(fleet.pack(sessions={"s-odd": records}))
    lines = [header_of(line) if at in kept else line for at, line in enumerate(records)]
    body = json.loads(members[MANIFEST])
    sessions = [one | {"withheld": len(kept)} for one in body["sessions"]]
    changed = members | {"events/s-odd.jsonl": b"".join(line + b"\n" for line in lines)}
    return verify_pack(signed(fleet, changed, sessions=sessions), fleet.key.public_pem)


@pytest.mark.parametrize("case", ODD_SESSIONS)
def test_what_was_not_in_order_is_found_or_not_called_checked(fleet, record, case: str) -> None:
    """Whichever payload is withheld, and with all of them: the fault is found, or the check is said not to be made whole."""
    check, write = ODD_SESSIONS[case]
    records = written(record, write)
    for kept in ({at} for at in range(len(records))), [set(range(len(records)))]:
        for one in kept:
            report = without(fleet, records, one)
            for name in check.split():
                assert name in checks_failed(report) or name in {gap.check for gap in report.not_made}, one


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_withholding_makes_no_fault(fleet, record, data) -> None:
    """A sound session is sound without any of its payloads; what is found in another one is found with them too."""
    case = data.draw(st.sampled_from([*SOUND_SESSIONS, *ODD_SESSIONS]))
    expected, write = (set(), SOUND_SESSIONS[case]) if case in SOUND_SESSIONS else ODD_SESSIONS[case]
    records = written(record, write)
    kept = data.draw(st.sets(st.sampled_from(range(len(records)))))
    report = without(fleet, records, kept)
    assert checks_failed(report) <= set(expected.split() if expected else ())
    assert report.absent["withheld"] == len(kept)


@pytest.mark.parametrize("kept", [{0, 1, 6}, {3}, {6}, {3, 6, 9}])
def test_a_withheld_yes_that_was_given_again_is_the_one_that_counts(fleet, record, kept: set[int]) -> None:
    """Not the one before it, which has expired by then."""
    report = without(fleet, written(record, SOUND_SESSIONS["a yes that was given again"]), kept)
    assert checks_failed(report) == set()


WHAT_HEADERS_TELL = (
    "outcome without a decision",
    "outcome of a denied call",
    "outcome of another tool",
    "two outcomes",
    "outcome before its decision",
    "revision that was never applied",
    "asked, allowed, nobody answered",
    "approved by one who is no approver",
    "approved by the agent",
    "approved by somebody unknown",
    "approved by who started it",
    "approved and never asked",
    "allowed after a no",
    "another approver is named",
    "a yes to another question",
    "a yes after the end of its question",
    "a question that ended too soon",
    "a question that a person ended",
    "approval claimed, none there",
    "approved by people, none named",
    "unknown principal acted",
    "acted before it was created",
    "went on after its end",
    "decided without fields",
)


@pytest.mark.parametrize("case", WHAT_HEADERS_TELL)
def test_headers_alone_show_it(fleet, record, case: str) -> None:
    """Authority is checked without any payload: decisions, people, moments, revisions."""
    check, write = ODD_SESSIONS[case]
    records = written(record, write)
    report = verify_pack(fleet.pack(sessions={"s-odd": records}, scope=scope("all")), fleet.key.public_pem)
    assert checks_failed(report) == set(check.split())


def audit_chain(record, *sessions: str) -> list[bytes]:
    chain = record.Chain("audit", open=True, now_ms=record.START_MS + 100_000)
    data = {"sessions": list(sessions), "keys": ["00" * 16], "basis": "request 17", "overruled": False}
    chain.add(ev.AUDIT_ERASED, data, "principal/olga")
    return chain.stored


def erased(fleet) -> dict[str, list[bytes]]:
    return fleet.sessions | {"s-short": [header_of(line) for line in fleet.sessions["s-short"]]}


def test_erased_payloads_are_counted_and_their_basis_is_in_the_pack(fleet, record) -> None:
    """With the tombstone they are erased, without one they are lost; both verify, and both are said."""
    audit = audit_chain(record, "s-short")
    report = verify_pack(fleet.pack(sessions=erased(fleet), audit=audit), fleet.key.public_pem)
    assert report.ok, report.faults
    assert report.absent == {"withheld": 0, "erased": 3, "lost": 0}
    assert {one.reason for one in report.not_made} == {"erased"}
    report = verify_pack(fleet.pack(sessions=erased(fleet)), fleet.key.public_pem)
    assert report.ok, report.faults
    assert report.absent == {"withheld": 0, "erased": 0, "lost": 3}
    report = verify_pack(fleet.pack(sessions=erased(fleet), audit=audit, scope=scope("all")), fleet.key.public_pem)
    assert report.absent == {"withheld": 12, "erased": 3, "lost": 0}


def test_an_erasure_that_nobody_recorded_is_a_fault(fleet, record) -> None:
    """The manifest says erased, and the audit chain does not; or names another session, or none at all."""
    pack = fleet.pack(sessions=erased(fleet), audit=audit_chain(record, "s-busy"))
    members = unzip_members(pack)
    sessions = [one | {"erased": one["lost"], "lost": 0} for one in json.loads(members[MANIFEST])["sessions"]]
    assert checks_failed(verify_pack(signed(fleet, members, sessions=sessions), fleet.key.public_pem)) == {"withheld"}
    chain = record.Chain("audit", open=True, now_ms=record.START_MS + 100_000)
    chain.add(ev.AUDIT_ERASED, {"basis": "request 17"}, "principal/olga")
    with pytest.raises(ChainBroken, match="names no sessions"):
        fleet.pack(audit=chain.stored)


def test_the_audit_chain_is_whole_or_a_fault(fleet, record) -> None:
    """Cut, edited, of another type, by nobody: found by its head, by the checkpoint, by who may act."""
    chain = record.Chain("audit", open=True, now_ms=record.START_MS + 100_000)
    chain.add(ev.AUDIT_HELD, {"hold": "h-1", "session": "s-busy", "reason": "lawsuit"}, "principal/olga")
    chain.add(ev.AUDIT_RELEASED, {"hold": "h-1", "reason": "settled"}, "principal/olga")
    assert verify_pack(fleet.pack(audit=chain.stored), fleet.key.public_pem).ok
    covered = record.cover(fleet.sessions, fleet.registry, chain.stored, fleet.key)
    for left in (chain.stored[:1], []):
        report = verify_pack(fleet.pack(audit=left, covered=covered), fleet.key.public_pem)
        assert checks_failed(report) == {"inclusion"}
    members = unzip_members(fleet.pack(audit=chain.stored))
    cut = members | {"audit/chain.jsonl": chain.stored[0] + b"\n"}
    assert "chains" in checks_failed(verify_pack(signed(fleet, cut), fleet.key.public_pem))
    odd = record.Chain("audit", open=True, now_ms=record.START_MS + 100_000)
    odd.add(ev.SESSION_PAUSED, {"reason": "x"}, "principal/olga")
    assert checks_failed(verify_pack(fleet.pack(audit=odd.stored), fleet.key.public_pem)) == {"chains"}
    odd = record.Chain("audit", open=True, now_ms=record.START_MS + 100_000)
    odd.add(ev.AUDIT_RELEASED, {"hold": "h-1", "reason": "settled"}, "principal/mallory")
    assert checks_failed(verify_pack(fleet.pack(audit=odd.stored), fleet.key.public_pem)) == {"actors"}


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_flipped_bit_goes_unnoticed(fleet, record, data) -> None:
    """A pack with withheld, erased and disclosed payloads: whatever bit is flipped, it is refused."""
    pack = fleet.pack(sessions=erased(fleet), audit=audit_chain(record, "s-short"), scope=scope("tool=write"))
    changed = bytearray(pack)
    changed[data.draw(st.integers(0, len(pack) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert not verify_pack(bytes(changed), fleet.key.public_pem).ok


def test_what_is_disclosed_is_what_was_recorded(fleet) -> None:
    """A disclosed line is the record, byte for byte, and reads as the event with its payload."""
    lines = unzip_members(fleet.pack(scope=scope("tool=write")))["events/s-busy.jsonl"].splitlines()
    for line, stored in zip(lines, fleet.sessions["s-busy"], strict=True):
        assert line in {stored, header_of(stored)}
        assert decode(line)["seq"] == decode(stored)["seq"]
