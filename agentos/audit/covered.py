"""What ties the events of an evidence pack to signed checkpoints: written at export, checked offline.

A pack holds two checkpoints, the tenant's and the registry's, and for each stream one JSON member: which leaves the chains of the
pack are (`leaves`: name → numbers from 0, in the chain's order), and the hashes that stand for everything else
(`nodes`, base64), so that the signed root can be computed from the pack alone. `docs/audit.md` has the order of the hashes. Pure.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from agentos.abi.canonical import Json, NotCanonical, canonical, parse_strict
from agentos.abi.errors import EvidenceError
from agentos.audit.checkpoint import Checkpoint, open_checkpoint
from agentos.audit.merkle import batch_root, leaf_hash
from agentos.audit.rotation import Rotation, TrustedKey, chain_of
from agentos.audit.trust import Trust

FOLDER: Final = "checkpoint/"
TENANT_NOTE: Final = "checkpoint/tenant.note"
REGISTRY_NOTE: Final = "checkpoint/registry.note"
ROTATIONS: Final = "checkpoint/rotations.json"
REGISTRY_PROOF: Final = "checkpoint/REG.json"
AUDIT_PROOF: Final = "checkpoint/AUD.json"

AUDIT_CHAIN: Final = "audit"
"""What the audit chain is called among the chains of its stream."""

AUDIT_STREAM: Final = "AUD"
"""Where the audit chain is kept, and nothing else."""

Fault = Callable[[str, str, str], None]
"""How a fault is reported: check, where, message."""


@dataclass(frozen=True, slots=True)
class StreamProof:
    """The leaves of one stream that a pack holds: `leaves` is chain → numbers, in the chain's order; `nodes` as `batch_proof`."""

    stream: str
    leaves: Mapping[str, Sequence[int]] = field(hash=False)
    nodes: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class Covered:
    """What an export adds: both notes as they were signed, all rotations, and a proof per stream."""

    tenant_note: str
    registry_note: str
    rotations: Sequence[str]
    proofs: Sequence[StreamProof]

    def members(self) -> dict[str, bytes]:
        """The members of the pack, in their order."""
        found = {
            TENANT_NOTE: self.tenant_note.encode(),
            REGISTRY_NOTE: self.registry_note.encode(),
            ROTATIONS: canonical(list(self.rotations)),
        }
        for proof in sorted(self.proofs, key=lambda one: one.stream):
            nodes = [base64.b64encode(node).decode("ascii") for node in proof.nodes]
            body = {"leaves": {name: list(numbers) for name, numbers in proof.leaves.items()}, "nodes": nodes}
            found[member_of(proof.stream)] = canonical(body)
        return found


def member_of(stream: str) -> str:
    """Where the proof of `stream` lies."""
    return f"{FOLDER}{stream}.json"


def read_rotations(members: Mapping[str, bytes], trust: Trust) -> tuple[TrustedKey, ...]:
    """The keys that count for somebody who trusts `trust` and sees the rotations of the pack. Raises EvidenceError."""
    chain: tuple[Rotation, ...] = ()
    if ROTATIONS in members:
        try:
            notes = parse_strict(members[ROTATIONS])
        except NotCanonical as error:
            raise EvidenceError(f"the rotations cannot be read: {error}", where=ROTATIONS) from error
        if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
            raise EvidenceError("the rotations are not a list of notes", where=ROTATIONS)
        chain = chain_of(notes)
    return trust.keys(chain)


class Coverage:
    """Checks the checkpoints of one pack and what they cover. Chains are name → what is hashed of their events, in order."""

    def __init__(self, members: Mapping[str, bytes], tenant: str, trust: Trust, keys: Sequence[TrustedKey], fault: Fault) -> None:
        self._members = members
        self._tenant = tenant
        self._trust = trust
        self._keys = keys
        self._fault = fault

    def check(
        self,
        sessions: Mapping[str, Sequence[bytes]],
        registry: Mapping[str, Sequence[bytes]],
        audit: Sequence[bytes] | None,
    ) -> None:
        """Report every fault of the checks `checkpoint` and `inclusion`. `audit` is None where packs have no audit chain."""
        ours = sorted(name for name in self._members if name.startswith(f"{FOLDER}EV_"))
        point = self._checkpoint(TENANT_NOTE, self._tenant)
        self._chains(point, ours, sessions)
        if audit is not None:
            self._chains(point, self._there(AUDIT_PROOF), {AUDIT_CHAIN: audit})
            if point is not None and point.tree(AUDIT_STREAM).size != len(audit):
                said = f"has {len(audit)} events in the pack, {point.tree(AUDIT_STREAM).size} in checkpoint {point.number}"
                self._fault("inclusion", "audit/chain", said)
        self._chains(self._checkpoint(REGISTRY_NOTE, "REG"), self._there(REGISTRY_PROOF), registry)

    def _there(self, member: str) -> list[str]:
        return [member] if member in self._members else []

    def _chains(self, point: Checkpoint | None, proofs: Sequence[str], chains: Mapping[str, Sequence[bytes]]) -> None:
        """Whether the events of `chains` are what `point` covers, as the members `proofs` show."""
        chains = {name: events for name, events in chains.items() if events}
        proven: set[str] = set()
        for member in proofs:
            try:
                leaves, nodes = _read(self._members[member])
            except (EvidenceError, NotCanonical, binascii.Error) as error:
                self._fault("inclusion", member, f"cannot be read: {error}")
                continue
            proven |= leaves.keys()
            if point is not None:
                self._stream(member, point, leaves, nodes, chains)
        for chain in sorted(chains.keys() - proven):
            self._fault("inclusion", chain, "no checkpoint is shown to cover its events")
        for chain in sorted(proven - chains.keys()):
            self._fault("inclusion", chain, "leaves are claimed for a chain that is not in the pack")

    def _checkpoint(self, member: str, name: str) -> Checkpoint | None:
        try:
            point = open_checkpoint(self._members.get(member, b""), self._keys)
            if name != "REG":
                self._trust.require(point.origin)
        except EvidenceError as error:
            self._fault("checkpoint", member, error.message)
            return None
        if point.origin.rsplit("/", 1)[1] != name:
            self._fault("checkpoint", member, f"is of the log {point.origin}, expected that of {name}")
            return None
        return point

    def _stream(
        self,
        member: str,
        point: Checkpoint,
        leaves: Mapping[str, list[int]],
        nodes: Sequence[bytes],
        chains: Mapping[str, Sequence[bytes]],
    ) -> None:
        hashes: dict[int, bytes] = {}
        for chain, numbers in leaves.items():
            events = chains.get(chain, ())
            if len(events) != len(numbers):
                self._fault("inclusion", chain, f"{len(numbers)} leaves are claimed for {len(events)} events")
                return
            for number, data in zip(numbers, events, strict=True):
                if number in hashes:
                    self._fault("inclusion", chain, f"leaf {number} is claimed for two events")
                    return
                hashes[number] = leaf_hash(data)
        tree = point.tree(member.removeprefix(FOLDER).removesuffix(".json"))
        if batch_root(hashes, tree.size, nodes) != tree.root:
            said = f"its events are not the leaves that checkpoint {point.number} signed: one was edited, added or moved"
            self._fault("inclusion", member, said)


def _read(data: bytes) -> tuple[dict[str, list[int]], list[bytes]]:
    body: Json = parse_strict(data)
    if not isinstance(body, dict) or set(body) != {"leaves", "nodes"} or not isinstance(body["leaves"], dict):
        raise EvidenceError("expected an object with leaves and nodes")
    for numbers in body["leaves"].values():
        if not isinstance(numbers, list) or not all(type(number) is int and number >= 0 for number in numbers):
            raise EvidenceError("the leaves of a chain are a list of numbers")
        if any(one >= two for one, two in pairwise(numbers)):
            raise EvidenceError("the leaves of a chain are not in its order")
    if not isinstance(body["nodes"], list) or not all(isinstance(node, str) for node in body["nodes"]):
        raise EvidenceError("the nodes are a list of hashes")
    return body["leaves"], [base64.b64decode(node, validate=True) for node in body["nodes"]]
