"""The whole log read again: every event hashed anew, every stored checkpoint compared, every session's chain followed.

Nothing is believed but the signatures: the checkpoints are read from their stream, each must be signed and follow from the one
before, and where a checkpoint says that a stream had `n` events, the `n` events that are there now must have the root that it
signed. Where they have not, the trees beside the log (if they lead to the signed root) tell which event is the first wrong one.

Signatures are over headers. A log as it is stored holds sealed payloads, which nobody but the keys can compare; a log that opens
them (`records`) gives each payload, and one that is not the header's is found too. An erased one is no finding.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from agentos.abi.canonical import Json, digest
from agentos.abi.chain import GENESIS
from agentos.abi.errors import ChainBroken, EvidenceError, NotFound
from agentos.abi.event import Event
from agentos.abi.exact import read_exact
from agentos.abi.record import opened, split
from agentos.audit.alarm import Alarm, gap
from agentos.audit.checkpoint import Checkpoint, Tree, follows, open_checkpoint
from agentos.audit.leaf import hashed, leaf_of
from agentos.audit.merkle import Frontier, root_of
from agentos.audit.prover import PAGE, Prover
from agentos.audit.retired import Retired
from agentos.audit.tiles import TilesBroken
from agentos.eventlog.port import EventLog, Stored
from agentos.eventlog.sealed import BLOB, INLINE
from agentos.eventlog.subject import AUDIT_STREAM, CHECKPOINT_STREAM, chain_of, is_session_stream

MAX_FINDINGS: Final = 100
"""Most findings of one run; there may be more behind them."""


@dataclass(slots=True)
class Progress:
    """How far a run is: events read, of how many."""

    read: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class Rechecked:
    """The outcome. `since` is the number of the checkpoint at which the run began, 0 for the beginning of the log."""

    tenant: str
    since: int
    checkpoints: int
    events: int
    streams: tuple[tuple[str, Tree], ...]
    """Each stream as it was read: size, and root over all of it; of size 0 where it could not be read to the end."""
    unsigned: int
    """Events behind the last checkpoint: read, and in their chains, but not signed yet."""
    findings: tuple[Alarm, ...]
    trees_broken: bool
    """Whether the trees beside the log are not those of the log, which holds: they are to be built anew."""

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def to_dict(self) -> dict[str, Json]:
        """The JSON shape of `agentos audit verify -o json` (`schemas/v1/audit-verification.json`)."""
        return {
            "ok": self.ok,
            "tenant": self.tenant,
            "since": self.since,
            "checkpoints": self.checkpoints,
            "events": self.events,
            "unsigned": self.unsigned,
            "streams": [{"stream": name, "events": tree.size, "root": tree.root.hex()} for name, tree in self.streams],
            "findings": [{"check": one.check, "where": one.where, "message": one.message} for one in self.findings],
        }


@dataclass(slots=True)
class _Walk:
    """One stream while it is read."""

    stream: str
    frontier: Frontier
    due: list[tuple[int, bytes, int]]
    """(size, signed root, number of the checkpoint), the smallest size last."""
    leaves: list[bytes] = field(default_factory=list)
    """Hashes since the last root that was right."""
    good: int = 0
    """How many events that root covers."""
    broken: bool = False


class Recheck:
    """One run over the log of `prover`, whose payloads are opened by `records`, if given. `pause` is awaited after each page."""

    def __init__(
        self,
        prover: Prover,
        progress: Progress | None = None,
        pause: Callable[[], Awaitable[None]] | None = None,
        *,
        records: EventLog | None = None,
    ) -> None:
        self.progress = progress or Progress()
        self._prover = prover
        self._pause = pause
        self._log = records or prover.log
        self._findings: list[Alarm] = []
        self._heads: dict[str, tuple[int, str]] = {}
        self._resumed: set[str] = set()
        self._trees_broken = False

    async def run(self, since: int = 0, witness: Checkpoint | None = None) -> Rechecked:
        """Check everything behind checkpoint `since` (0: everything). `witness` is a checkpoint that was kept outside the log.

        Raises NotFound for a checkpoint that there is not, LogUnavailable.
        """
        checkpoints = await self._checkpoints(since)
        if since and (not checkpoints or checkpoints[0].number != since):
            raise NotFound(f"there is no checkpoint {since}", mend="agentos audit checkpoint shows the last one and its number")
        if witness is not None:
            self._compare(checkpoints, witness)
        base = checkpoints[0] if since else None
        ends = await self._ends(checkpoints)
        self.progress.total = sum(max(0, end - (base.tree(name).size if base else 0)) for name, end in ends.items())
        walks = [await self._walk(stream, base, checkpoints) for stream in ends]
        retired = [await asyncio.to_thread(self._retired, one, checkpoints) for one in self._prover.retired.values()]
        last = checkpoints[-1] if checkpoints else None
        read = {walk.stream: walk.frontier.size for walk in walks}
        return Rechecked(
            tenant=self._prover.name,
            since=since,
            checkpoints=len(checkpoints),
            events=self.progress.read,
            streams=(*retired, *((walk.stream, Tree(walk.frontier.size, walk.frontier.root())) for walk in walks)),
            unsigned=sum(max(0, size - (last.tree(name).size if last else 0)) for name, size in read.items()),
            findings=tuple(self._findings),
            trees_broken=self._trees_broken and not self._findings,
        )

    def _find(self, check: str, where: str, message: str) -> None:
        if len(self._findings) < MAX_FINDINGS:
            self._findings.append(Alarm(check, where, message))

    async def _checkpoints(self, since: int) -> list[Checkpoint]:
        """The stored checkpoints from number `since` on (0, 1: all), up to the first that does not follow."""
        # The last one that is known now: one that is signed while these are read may not be among them.
        prover, first, known = self._prover, max(1, since), self._prover.last
        position = await asyncio.to_thread(prover.tiles.checkpoint_position, first) if first > 1 else 1
        if position is None:
            return []
        trunk = Frontier()
        if first > 1:
            trunk = await asyncio.to_thread(Frontier.of, prover.tiles.nodes(CHECKPOINT_STREAM), first - 1)
        found: list[Checkpoint] = []
        async with aclosing(prover.log.read(prover.subject, after=position - 1)) as notes:
            async for stored in notes:
                number = first + len(found)
                try:
                    checkpoint = open_checkpoint(stored.data, prover.ring.trusted)
                    trunk.append(checkpoint.leaf())
                    before = found[-1] if found else None
                    if before is None and first > 1:
                        # Nothing before it is read: it stands on its own signature and on the root of those before it.
                        before = Checkpoint(checkpoint.origin, first - 1, b"", 0, {})
                    follows(before, checkpoint, trunk.root(), prover.origin)
                except EvidenceError as error:
                    self._find("checkpoints", f"checkpoint {number}", error.message)
                    return found
                found.append(checkpoint)
        if known is not None and first + len(found) <= known.checkpoint.number:
            said = f"the checkpoints end at {first + len(found) - 1}, {known.checkpoint.number} were made: they were cut"
            self._find("checkpoints", f"checkpoint {first + len(found)}", said)
        return found

    async def _ends(self, checkpoints: Sequence[Checkpoint]) -> dict[str, int]:
        """Every stream that is there, or was when a checkpoint named it and was not retired, and its end."""
        prover = self._prover
        try:
            ends = await prover.ends()
        except ChainBroken:
            # What is missing is found, and told, where the streams are read.
            ends = {stream: await prover.log.end(stream) for stream in prover.streams if stream not in prover.retired}
        named = {stream for point in checkpoints for stream, tree in point.streams.items() if tree.size}
        return dict.fromkeys(sorted(named - ends.keys() - prover.retired.keys()), 0) | ends

    def _retired(self, retired: Retired, checkpoints: Sequence[Checkpoint]) -> tuple[str, Tree]:
        """Whether the checkpoints name a stream that was retired as what it was: never more, in the end all of it."""
        stream, last = retired.stream, retired.tree
        for point in checkpoints:
            tree = point.tree(stream)
            if tree.size > last.size or (tree.size == last.size and tree.root != last.root):
                said = f"checkpoint {point.number} says {tree.size} events, it was retired with {last.size}, or with others"
                self._find("roots", stream, said)
                break
        return stream, last

    def _compare(self, checkpoints: Sequence[Checkpoint], witness: Checkpoint) -> None:
        """A checkpoint from outside must be one of ours, to the letter."""
        ours = next((one for one in checkpoints if one.number == witness.number), None)
        where = f"checkpoint {witness.number}"
        if ours is None:
            self._find("checkpoints", where, "was signed and is not in the log: the log was taken back to before it")
        elif ours.text() != witness.text():
            self._find("checkpoints", where, "is not the one that was signed: this log is another history")

    async def _walk(self, stream: str, base: Checkpoint | None, checkpoints: Sequence[Checkpoint]) -> _Walk:
        start = base.tree(stream) if base else Tree(0, b"")
        walk = _Walk(stream, Frontier(), [])
        if start.size:
            try:
                walk.frontier = await asyncio.to_thread(Frontier.of, self._prover.tiles.nodes(stream), start.size)
            except TilesBroken:
                walk.frontier = Frontier()
            if walk.frontier.size != start.size or walk.frontier.root() != start.root:
                # Then the beginning of the stream has to be read as well.
                walk.frontier, start = Frontier(), Tree(0, b"")
                self._trees_broken = True
        walk.good = start.size
        if start.size:
            self._resumed.add(stream)
        for point in checkpoints:
            tree = point.tree(stream)
            if tree.size > start.size and (not walk.due or walk.due[-1][:2] != (tree.size, tree.root)):
                walk.due.append((tree.size, tree.root, point.number))
        largest = walk.due[-1][0] if walk.due else 0
        walk.due.reverse()
        page: list[Stored] = []
        async with aclosing(self._log.scan(stream, after=start.size)) as events:
            async for stored in events:
                page.append(stored)
                if len(page) == PAGE:
                    await self._page(walk, page)
                    page = []
        await self._page(walk, page)
        await asyncio.to_thread(self._tail, walk)
        if not walk.broken and walk.frontier.size < largest:
            said = f"the stream ends at {walk.frontier.size}, {largest} events are signed: it was cut"
            self._find("streams", f"{stream} position {walk.frontier.size + 1}", said)
        return walk

    async def _page(self, walk: _Walk, page: Sequence[Stored]) -> None:
        if not page:
            return
        await asyncio.to_thread(self._read, walk, page)
        if self._pause is not None:
            await self._pause()

    def _read(self, walk: _Walk, page: Sequence[Stored]) -> None:
        for stored in page:
            self.progress.read += 1
            if not walk.broken:
                self._hash(walk, stored)
            if is_session_stream(walk.stream) or walk.stream == AUDIT_STREAM:
                self._chain(walk, stored)

    def _hash(self, walk: _Walk, stored: Stored) -> None:
        expected = walk.frontier.size + 1
        if stored.position != expected:
            walk.broken = True
            alarm = gap(walk.stream, expected, stored.position)
            self._find(alarm.check, alarm.where, alarm.message)
            return
        leaf = leaf_of(walk.stream, stored.data)
        walk.frontier.append(leaf)
        walk.leaves.append(leaf)
        if not walk.due or walk.due[-1][0] != walk.frontier.size:
            return
        size, root, number = walk.due.pop()
        if walk.frontier.root() != root:
            walk.broken = True
            self._first_wrong(walk, size, root, number)
        elif not self._trees_broken and self._remembered(walk) != walk.leaves:
            self._trees_broken = True
        walk.leaves, walk.good = [], size

    def _first_wrong(self, walk: _Walk, size: int, root: bytes, number: int) -> None:
        """Say which event is the first that is not what checkpoint `number` signed."""
        tiles, stream = self._prover.tiles, walk.stream
        try:
            known = tiles.leaves(stream, walk.good, size - walk.good) if root_of(tiles.nodes(stream), size) == root else []
        except TilesBroken:
            known = []
        wrong = next((at for at, (one, two) in enumerate(zip(walk.leaves, known, strict=False)) if one != two), None)
        if wrong is None:
            said = f"is not what checkpoint {number} signed: one of these events was edited, dropped, added or moved"
            self._find("roots", f"{stream} positions {walk.good + 1} to {size}", said)
            return
        position = walk.good + wrong + 1
        said = f"is not the event that checkpoint {number} signed: it was edited or replaced"
        self._find("roots", f"{stream} position {position}", said)

    def _tail(self, walk: _Walk) -> None:
        """Compare what no signature covers with what was seen here first."""
        if walk.broken or self._trees_broken:
            return
        pairs = zip(walk.leaves, self._remembered(walk), strict=False)
        wrong = next((at for at, (one, two) in enumerate(pairs) if one != two), None)
        if wrong is not None:
            said = "is not the event that was seen here first: it was edited or replaced before it was signed"
            self._find("streams", f"{walk.stream} position {walk.good + wrong + 1}", said)

    def _remembered(self, walk: _Walk) -> list[bytes]:
        """The hashes that the trees beside the log hold for the events read since the last root that was right."""
        try:
            return self._prover.tiles.leaves(walk.stream, walk.good, len(walk.leaves))
        except TilesBroken:
            return []

    def _chain(self, walk: _Walk, stored: Stored) -> None:
        """Whether the event goes on where its session's chain ended."""
        session = chain_of(stored.subject)
        seq, head = self._heads.get(session, (0, GENESIS))
        known = session in self._heads or walk.stream not in self._resumed
        where = f"{session}#{seq + 1}" if known else session
        try:
            event: Event | None = _decode(stored.data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._find(
                "chains", where, f"{walk.stream} position {stored.position} holds no event: {type(error).__name__}: {error}"
            )
            event = None
        if event is None:
            self._heads[session] = (seq + 1, digest(hashed(walk.stream, stored.data)))
            return
        if event.subject != session or event.tenant != self._prover.name:
            self._find("chains", where, f"the event says tenant {event.tenant!r}, subject {event.subject!r}")
        elif known and event.seq != seq + 1:
            self._find("chains", where, f"found event {event.seq}: one was dropped, added or moved")
        elif known and event.prev != head:
            self._find("chains", where, "`prev` is not the hash of the event before: one of them was edited")
        self._heads[session] = (event.seq, digest(hashed(walk.stream, stored.data)))


def _decode(data: bytes) -> Event:
    """The event of stored bytes, or of a record. A payload that is open must be the header's; a sealed one is not looked at.

    Raises ValueError (NotCanonical among them), KeyError or TypeError for bytes that are no event.
    """
    header, payload = split(data)
    body = read_exact(header)
    sealed = payload is not None and payload[:1] in {INLINE, BLOB} and isinstance(body, dict) and "p" in body
    return Event.from_dict(opened(body, None if sealed else payload))
