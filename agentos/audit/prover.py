"""The prover of one log: keeps its Merkle trees, signs checkpoints over them, and proves single events.

Events come in with `take`, in stream order. `sign` states the roots, signs, and appends the note to the log's own checkpoints,
behind the last one: of two runtimes that sign at one time, one is refused and looks again. The order is: event durable in its
stream → leaf in the trees → checkpoint durable in its stream; whatever a crash leaves undone is made up at the next `open`.

`open` compares what the trees remember with what the log holds now. A log that lost or changed something that was seen before,
or a checkpoint that does not follow from those before it, sets `alarm`: from then on nothing is signed. The trees themselves are
never believed: where they do not lead to a signed root they are thrown away and built anew from the streams, once.
Streams come into being (a month begins) and go (a month is retired): see `audit.stream_list`.
"""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import orjson

from agentos.abi.canonical import Json
from agentos.abi.errors import ChainBroken, Conflict, EvidenceError, NotFound, SequenceConflict, Unavailable
from agentos.abi.ids import Clock, is_name
from agentos.abi.record import header_of
from agentos.audit.alarm import Alarm, Found, cut, gap, rewritten
from agentos.audit.checkpoint import Checkpoint, Tree, follows, open_checkpoint, origin_of, statement
from agentos.audit.covered import StreamProof
from agentos.audit.keyring import KeyRing
from agentos.audit.leaf import hashed, leaf_of
from agentos.audit.merkle import batch_proof, batch_root, check_inclusion, inclusion_proof, leaf_hash, root_of
from agentos.audit.note import sign_note
from agentos.audit.proof import make_proof
from agentos.audit.retired import Retired
from agentos.audit.stream_list import StreamList
from agentos.audit.tiles import Place, TilesBroken, TileStore
from agentos.eventlog.port import EventLog, Message, Stored
from agentos.eventlog.subject import CHECKPOINT_STREAM, checkpoint_subject, session_subject, stream_of

PAGE: Final = 1000
"""Events that are hashed and stored at one time."""

MEND: Final = "keep the log and this home as they are, and find out what was changed: agentos audit verify"


@dataclass(frozen=True, slots=True)
class Signed:
    """A checkpoint as it is stored: `note` byte for byte, at `position` of the checkpoints' stream."""

    checkpoint: Checkpoint
    note: str
    position: int


class Prover:
    """The prover of the log `name` (a tenant, or `REG`). `open` it first; one task at a time signs.

    With `streams` it keeps these; without, the event streams that the log has, as they come.
    """

    def __init__(
        self, name: str, log: EventLog, tiles: TileStore, ring: KeyRing, clock: Clock, *, streams: Sequence[str] | None = None
    ) -> None:
        self.name = name
        self.log = log
        self.tiles = tiles
        self.ring = ring
        self.subject = checkpoint_subject(name)
        self.alarm: Alarm | None = None
        self.last: Signed | None = None
        self._clock = clock
        self._list = StreamList(log, streams)
        self._signing = asyncio.Lock()
        self._taking = asyncio.Lock()
        self._unsure = False
        self._compared = 0

    @property
    def streams(self) -> tuple[str, ...]:
        """What every checkpoint from now on names."""
        return self._list.named

    @property
    def retired(self) -> Mapping[str, Retired]:
        """The streams that were dropped on purpose, as they were."""
        return self._list.retired

    async def open(self, *, whole: bool = False) -> None:
        """Take up what is there: the checkpoints, the trees, and whether the one still follows from the other.

        The trees then cover what the last checkpoint covers, or with `whole` all that there is. Sets `alarm` for a log that was
        cut or rewritten. Raises LogUnavailable, sqlite3.Error.
        """
        try:
            try:
                await self._open(whole)
            except (TilesBroken, sqlite3.DatabaseError) as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise
                self.last = None
                await asyncio.to_thread(self.tiles.clear, keep=tuple(self.retired))
                await self._open(whole)
        except Found as found:
            self.raise_alarm(found.alarm)
        except TilesBroken as error:
            self.raise_alarm(Alarm("streams", self.name, f"{error}, though they were just built from the log"))

    async def rebuild(self) -> None:
        """Throw the trees away and build them from the log again. Raises as `open`."""
        async with self._signing, self._taking:
            self.last = None
            await asyncio.to_thread(self.tiles.clear, keep=tuple(self.retired))
            await self.open(whole=True)

    def raise_alarm(self, alarm: Alarm) -> None:
        """Sign nothing from now on. The first alarm stays."""
        self.alarm = self.alarm or alarm

    async def take(self, batch: Sequence[tuple[str, Stored]]) -> int:
        """Add events (stream, stored), each stream's in its order, to the trees; how many were new.

        Sets `alarm`, and adds nothing, when one is missing before them. Raises sqlite3.Error, TilesBroken.
        """
        async with self._taking:
            return await asyncio.to_thread(self._take, batch)

    async def sizes(self) -> dict[str, int]:
        """How many events of each stream that is there are in the trees."""
        return await asyncio.to_thread(lambda: {stream: self.tiles.size(stream) for stream in self._list.live})

    async def ends(self) -> dict[str, int]:
        """The streams that are there now, and the end of each; they are named in every checkpoint from now on.

        One that ends before what was signed, or is gone, without having been retired, sets `alarm` and raises ChainBroken.
        Raises LogUnavailable.
        """
        try:
            return await self._ends()
        except Found as found:
            self.raise_alarm(found.alarm)
            raise ChainBroken(str(found.alarm), where=found.alarm.where, mend=MEND) from found

    async def new_streams(self, known: Collection[str]) -> tuple[str, ...]:
        """Wait until there are streams that are not among `known`; they are named in every checkpoint from now on."""
        return await self._list.new(known)

    async def retire(self, stream: str, packs: Sequence[str]) -> dict[str, Json]:
        """What the event `agentos.audit.retired` is to say, signed: append it to the audit chain, then the stream may be dropped.

        `packs` are the digests of what it was exported to. Raises Unavailable while the last checkpoint does not cover the whole
        stream, Conflict for one that was retired before, EvidenceError for one that holds no sessions, NotFound, ChainBroken.
        """
        ends = await self.ends()
        self.check()
        if stream in self.retired:
            raise Conflict(f"{stream} was retired before", where=stream)
        if stream not in ends:
            raise NotFound(f"there is no stream {stream}", mend="agentos status lists them")
        signed = self.last
        if signed is None or signed.checkpoint.tree(stream).size != ends[stream]:
            raise Unavailable(f"no checkpoint covers all of {stream} yet", where=stream, mend="agentos audit checkpoint --now")
        tree = signed.checkpoint.tree(stream)
        time_ms = max(self._clock.now_ms(), self.ring.since_ms)
        return Retired(self.origin, stream, tree, tuple(packs), time_ms).to_data(self.ring.current)

    async def sign(self) -> Signed:
        """Make a checkpoint of the trees as they are, and store it. It is durable when this returns.

        Raises ChainBroken when there is an alarm, LogUnavailable (it may be stored, or not), Unavailable while another runtime's
        checkpoint covers events that have not been taken in here.
        """
        async with self._signing:
            while True:
                try:
                    self.check()
                    if self._unsure:
                        await self._see_checkpoints()
                    return await self._sign()
                except SequenceConflict:
                    self._unsure = True
                except Found as found:
                    self.raise_alarm(found.alarm)

    def check(self) -> None:
        """Raises ChainBroken when there is an alarm."""
        if self.alarm is not None:
            raise ChainBroken(f"nothing is signed any more: {self.alarm.message}", where=self.alarm.where, mend=MEND)

    async def place_of(self, event: str) -> Place:
        """Where an event is, named by its id or as `SESSION#NUMBER`. Raises NotFound."""
        session, sign, number = event.partition("#")
        if not sign:
            for place in await asyncio.to_thread(self.tiles.places, event):
                found = await self.at(place.stream, place.leaf + 1)
                if found is not None and event_id(found.data) == event:
                    return place
            mend = "name it by its id, or as SESSION#NUMBER: agentos logs SESSION -o json shows both"
            raise NotFound(f"there is no event {event}", mend=mend)
        if not is_name(session) or not number.isdecimal() or not number.isascii() or not 0 < int(number) < 2**53:
            raise NotFound(f"{event!r} names no event", mend="write SESSION#NUMBER, such as s-0k3v9q2m1x8h4t7r5w#12")
        subject, at = session_subject(session), 0
        async with aclosing(self.log.read(subject)) as events:
            async for stored in events:
                at += 1
                if at == int(number):
                    return Place(stream_of(subject), stored.position - 1)
        raise NotFound(f"session {session} has {at} events, no event {number}" if at else f"no session {session}")

    async def prove(self, place: Place) -> dict[str, Json]:
        """The proof of the event at `place`, its payload left out; the last checkpoint must cover it.

        Raises ChainBroken, Unavailable, NotFound.
        """
        signed = self.last
        if signed is None or place.leaf >= signed.checkpoint.tree(place.stream).size:
            raise Unavailable("the event is not under a checkpoint yet", mend="ask again in a moment")
        tree = signed.checkpoint.tree(place.stream)
        where = f"{place.stream} position {place.leaf + 1}"
        stored = await self.at(place.stream, place.leaf + 1)
        if stored is None and place.stream in self.retired:
            raise NotFound(f"{place.stream} was retired", where=where, mend="the event is in the packs that it was exported to")
        if stored is None:
            raise ChainBroken("the event is under a checkpoint and no longer in the log", where=where, mend=MEND)
        path = await self._path(place, tree)
        if not check_inclusion(leaf_of(place.stream, stored.data), place.leaf, tree.size, path, tree.root):
            # The trees may be at fault, which are only a read model.
            await self.rebuild()
            self.check()
            path = await self._path(place, tree)
        if not check_inclusion(leaf_of(place.stream, stored.data), place.leaf, tree.size, path, tree.root):
            raise ChainBroken("the event is not what the checkpoint signed", where=where, mend=MEND)
        return make_proof(
            hashed(place.stream, stored.data),
            stream=place.stream,
            leaf=place.leaf,
            path=path,
            note=signed.note,
            rotations=self.ring.rotations,
        )

    async def cover(self, stream: str, leaves: Mapping[str, Sequence[int]], signed: Signed) -> StreamProof:
        """What shows that `leaves` (chain → numbers) of `stream` are under `signed`. Raises ChainBroken, Unavailable."""
        numbers = sorted(number for chain in leaves.values() for number in chain)
        tree = signed.checkpoint.tree(stream)
        if numbers and numbers[-1] >= tree.size:
            raise Unavailable("an event is not under the checkpoint yet", where=stream, mend="ask again in a moment")
        for once_more in (True, False):
            nodes = await self._nodes_beside(stream, numbers, tree)
            if nodes is not None:
                return StreamProof(stream, leaves, nodes)
            if once_more:
                await self.rebuild()
                self.check()
        raise ChainBroken("the events are not what the checkpoint signed", where=stream, mend=MEND)

    async def _nodes_beside(self, stream: str, numbers: Sequence[int], tree: Tree) -> list[bytes] | None:
        def work() -> list[bytes] | None:
            nodes = self.tiles.nodes(stream)
            try:
                found = batch_proof(nodes, numbers, tree.size)
                known = {number: nodes(0, number) for number in numbers}
            except (TilesBroken, ValueError):
                return None
            return found if batch_root(known, tree.size, found) == tree.root else None

        return await asyncio.to_thread(work)

    async def _path(self, place: Place, tree: Tree) -> list[bytes]:
        try:
            return await asyncio.to_thread(inclusion_proof, self.tiles.nodes(place.stream), place.leaf, tree.size)
        except (TilesBroken, ValueError):
            return []

    async def at(self, stream: str, position: int) -> Stored | None:
        """The event at `position` of `stream`, None where there is none."""
        async with aclosing(self.log.scan(stream, after=position - 1)) as events:
            async for stored in events:
                return stored if stored.position == position else None
        return None

    async def _open(self, whole: bool) -> None:
        # Before anything is thrown away: the trees of what was retired cannot be built again.
        await self._list.see_retired(self.origin, self.ring.trusted)
        await self._see_checkpoints()
        for stream, end in (await self._ends()).items():
            await self._see_stream(stream, end, whole=whole)

    async def _ends(self) -> dict[str, int]:
        signed = {} if self.last is None else self.last.checkpoint.streams
        return await self._list.ends(signed, self.origin, self.ring.trusted)

    async def _see_stream(self, stream: str, end: int, *, whole: bool) -> None:
        """Compare the tree of `stream` with the stream and with the last checkpoint; take in what that covers."""
        size = await asyncio.to_thread(self.tiles.size, stream)
        signed = Tree(0, b"") if self.last is None else self.last.checkpoint.tree(stream)
        if end < max(size, signed.size):
            said = (
                f"{max(size, signed.size)} events were seen here before" if size >= signed.size else f"{signed.size} are signed"
            )
            raise Found(cut(stream, end, said))
        if size:
            stored = await self.at(stream, size)
            (leaf,) = await asyncio.to_thread(self.tiles.leaves, stream, size - 1, 1)
            if stored is None or leaf_of(stream, stored.data) != leaf:
                said = "is missing" if stored is None else "is not the event that was here before"
                raise Found(Alarm("streams", f"{stream} position {size}", f"{said}: the stream was rewritten"))
        until = end if whole else signed.size
        if size < until:
            await self._fill(stream, size, until)
        if signed.size:
            root = await asyncio.to_thread(root_of, self.tiles.nodes(stream), signed.size)
            if root != signed.root and size:
                raise TilesBroken(f"{stream}: the tree does not lead to the signed root")
            if root != signed.root:
                raise Found(rewritten(stream, signed.size))

    async def _fill(self, stream: str, after: int, until: int) -> None:
        batch: list[tuple[str, Stored]] = []
        async with aclosing(self.log.scan(stream, after=after)) as events:
            async for stored in events:
                batch.append((stream, stored))
                if len(batch) == PAGE or stored.position >= until:
                    await asyncio.to_thread(self._take, batch)
                    batch = []
                if stored.position >= until or self.alarm is not None:
                    break
        if self.alarm is not None:
            raise Found(self.alarm)

    async def _see_checkpoints(self) -> None:
        """Take in the checkpoints behind the last one that is known, each checked against those before it."""
        number = await asyncio.to_thread(self.tiles.size, CHECKPOINT_STREAM)
        position = await asyncio.to_thread(self.tiles.checkpoint_position, number) or 0
        if number and (self.last is None or self.last.checkpoint.number != number):
            await self._recall(number, position)
        async with aclosing(self.log.read(self.subject, after=position)) as notes:
            async for stored in notes:
                await self._see_checkpoint(stored)
        self._unsure = False

    async def _recall(self, number: int, position: int) -> None:
        """The last checkpoint that the trees know must still be in the log, as it was."""
        where = f"checkpoint {number}"
        note = await asyncio.to_thread(self.tiles.last_note)
        stored = await self._stored_note(position)
        if stored is None or stored.data.decode("utf-8", "replace") != note:
            said = "is no longer in the log: the checkpoints were cut" if stored is None else "was rewritten"
            raise Found(Alarm("checkpoints", where, said))
        try:
            checkpoint = open_checkpoint(stored.data, self.ring.trusted)
        except EvidenceError as error:
            raise Found(Alarm("checkpoints", where, error.message)) from error
        if checkpoint.number != number or checkpoint.root != self.tiles.frontier(CHECKPOINT_STREAM).root():
            raise TilesBroken("the tree of the checkpoints does not lead to the root that the last one signs")
        self.last = Signed(checkpoint, note, position)

    async def _stored_note(self, position: int) -> Stored | None:
        async with aclosing(self.log.read(self.subject, after=position - 1)) as notes:
            async for stored in notes:
                return stored if stored.position == position else None
        return None

    async def _see_checkpoint(self, stored: Stored) -> None:
        before = self.last
        number = 1 if before is None else before.checkpoint.number + 1
        where = f"checkpoint {number}"
        try:
            checkpoint = open_checkpoint(stored.data, self.ring.trusted)
            frontier = await asyncio.to_thread(self.tiles.frontier, CHECKPOINT_STREAM)
            frontier.append(checkpoint.leaf())
            follows(before.checkpoint if before else None, checkpoint, frontier.root(), self.origin)
        except EvidenceError as error:
            raise Found(Alarm("checkpoints", where, error.message)) from error
        await self._keep(checkpoint, stored.data.decode(), stored.position)

    async def _keep(self, checkpoint: Checkpoint, note: str, position: int) -> Signed:
        values = (CHECKPOINT_STREAM, checkpoint.leaf(), checkpoint.number, position, checkpoint.time_ms, note)
        await asyncio.to_thread(self.tiles.add_checkpoint, *values)
        self.last = Signed(checkpoint, note, position)
        return self.last

    @property
    def origin(self) -> str:
        """Which log this is, in every checkpoint."""
        return origin_of(self.name, self.ring.trusted[0])

    async def _sign(self) -> Signed:
        last = self.last
        self._list.name(() if last is None else tuple(last.checkpoint.streams))
        streams = await asyncio.to_thread(self._trees)
        if last is not None and any(streams[name].size < tree.size for name, tree in last.checkpoint.streams.items()):
            raise Unavailable(f"checkpoint {last.checkpoint.number} covers more than was read here so far", mend="ask again")
        if last is not None and self._compared < last.checkpoint.number:
            for name, tree in last.checkpoint.streams.items():
                if name in self.retired and streams[name] == tree:
                    continue
                if await asyncio.to_thread(root_of, self.tiles.nodes(name), tree.size) != tree.root:
                    raise Found(rewritten(name, tree.size))
        # A clock that was set back repeats the last time rather than making the order of the checkpoints a riddle.
        time_ms = max(self._clock.now_ms(), self.ring.since_ms, last.checkpoint.time_ms if last else 0)
        trunk = await asyncio.to_thread(self.tiles.frontier, CHECKPOINT_STREAM)
        trunk.append(leaf_hash(statement(time_ms, streams)))
        checkpoint = Checkpoint(self.origin, trunk.size, trunk.root(), time_ms, streams)
        note = sign_note(checkpoint.text(), checkpoint.origin, self.ring.current)
        data = note.encode()
        message = Message(f"ckpt-{checkpoint.number}-{hashlib.sha256(data).hexdigest()[:32]}", data)
        self._unsure = True  # until the answer is here
        position = await self.log.append(self.subject, [message], after=last.position if last else 0)
        self._unsure = False
        self._compared = checkpoint.number
        return await self._keep(checkpoint, note, position)

    def _trees(self) -> dict[str, Tree]:
        """The tree of every stream that is to be named."""
        live = {stream: self.tiles.frontier(stream) for stream in self._list.live}
        kept = {stream: retired.tree for stream, retired in self.retired.items()}
        return kept | {stream: Tree(frontier.size, frontier.root()) for stream, frontier in live.items()}

    def _take(self, batch: Sequence[tuple[str, Stored]]) -> int:
        # A batch whose task was cancelled may still be on its way in another thread.
        with self.tiles.held():
            return self._add(batch)

    def _add(self, batch: Sequence[tuple[str, Stored]]) -> int:
        leaves: list[tuple[str, bytes, str | None]] = []
        sizes: dict[str, int] = {}
        for stream, stored in batch:
            size = sizes[stream] if stream in sizes else self.tiles.size(stream)
            if stored.position > size + 1:
                self.raise_alarm(gap(stream, size + 1, stored.position))
                return 0
            if stored.position == size + 1:
                leaves.append((stream, leaf_of(stream, stored.data), event_id(stored.data)))
                size += 1
            sizes[stream] = size
        if leaves:
            self.tiles.extend(leaves)
        return len(leaves)


def event_id(data: bytes) -> str | None:
    """The id that the stored bytes give themselves, None where they give none."""
    try:
        found = orjson.loads(header_of(data))["id"]
    except (orjson.JSONDecodeError, KeyError, TypeError, IndexError):
        return None
    return found if type(found) is str else None
