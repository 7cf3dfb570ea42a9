"""The registry: desired state in the event log, one atomic revision after the other.

A commit stores the blobs first, then one event behind the revision that its plan was made from: either the whole set is applied
or nothing, and of two commits on one revision exactly one wins; the other is told who was first. The current state is kept in
memory and brought up to date from the log before every answer, so several processes may share one registry.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Final

from agentos.abi.canonical import Json, NotCanonical, parse_strict
from agentos.abi.errors import ChainBroken, Conflict, NotFound, SequenceConflict, UsageError
from agentos.abi.event import REVISION_APPLIED, Event
from agentos.abi.ids import Clock, Random
from agentos.abi.resource import Key, Resource
from agentos.eventlog.port import EventLog
from agentos.eventlog.subject import REGISTRY_STREAM, REVISIONS, blob_subject
from agentos.registry.blob import get_blob, get_blobs, put_blobs
from agentos.registry.diff import diff
from agentos.registry.journal import Journal, Tip
from agentos.registry.plan import Plan, fits
from agentos.registry.revision import CHAIN, Revision
from agentos.registry.state import Entry, State, changed_keys, tree_bytes

_KEPT: Final = 8
"""States of earlier revisions that stay in memory: running sessions keep theirs until their next turn."""


class Registry:
    """Desired state of a fleet. Reads and commits may come from many tasks; commits of one process queue up."""

    def __init__(self, log: EventLog, clock: Clock, random: Random) -> None:
        self._log = log
        self._clock = clock
        self._random = random
        self._journal = Journal(log, REVISIONS, CHAIN)
        self._tip = Tip.start()
        self._revisions: list[Revision] = []
        self._states: dict[int, State] = {0: State.empty()}
        self._lock = asyncio.Lock()

    @property
    def current(self) -> State:
        """The newest state that this process has seen; no I/O. Empty before the first `head`, `state` or `follow`."""
        return self._states[len(self._revisions)]

    async def head(self) -> Revision | None:
        """The newest revision, None before the first."""
        revisions = await self.history()
        return revisions[-1] if revisions else None

    async def history(self) -> tuple[Revision, ...]:
        """All revisions, oldest first, their chain checked. Raises ChainBroken."""
        async with self._lock:
            await self._refresh()
            return tuple(self._revisions)

    async def state(self, revision: int | None = None) -> State:
        """The state at `revision` (None: the newest), every blob checked. Raises NotFound, ChainBroken."""
        async with self._lock:
            await self._refresh()
            return await self._state(len(self._revisions) if revision is None else revision)

    async def follow(self) -> AsyncIterator[Revision]:
        """Every revision behind the newest one seen, as it is applied; `current` is up to date by then. Never ends."""
        seen = len(self._revisions)
        async for stored in self._log.follow(REGISTRY_STREAM, after=self._tip.position):
            if stored.subject == REVISIONS:
                revisions = await self.history()
                for revision in revisions[seen:]:
                    yield revision
                seen = max(seen, len(revisions))

    async def commit(
        self,
        plan: Plan,
        *,
        actor: str,
        reason: str,
        restores: State | None = None,
        admission: Mapping[str, Json] | None = None,
    ) -> Revision:
        """Apply `plan` as one revision by `actor` (`principal/alice`), durably, all or nothing.

        With `restores`, resources that equal those of that earlier state get back the attribution they had there.
        Raises Conflict when the plan was made from another state than the newest, or was already applied; UsageError for a plan
        that changes nothing; LogUnavailable. Nothing is changed then.
        """
        if not plan.changes:
            raise UsageError("the plan changes nothing, so it makes no revision")
        async with self._lock:
            await self._refresh()
            current = self.current
            await self._require_base(plan)
            number = current.revision + 1
            after = State.of(number, _entries(current, plan, actor, number, restores))
            draft = Revision(
                number=number,
                time_ms=0,
                actor=actor,
                reason=reason,
                tree=after.tree,
                parent=current.tree if number > 1 else None,
                counts=plan.counts(),
                plan=plan.digest,
                tenants=plan.tenants,
                restores=restores.revision if restores is not None else None,
                admission=dict(admission or {}),
            )
            blobs = [change.resource.to_bytes() for change in plan.changes if change.resource is not None]
            await put_blobs(self._log, [*blobs, tree_bytes(after.entries)])
            try:
                tip, event = await self._journal.append(
                    self._tip,
                    REVISION_APPLIED,
                    draft.data(),
                    actor=actor,
                    revision=number,
                    clock=self._clock,
                    random=self._random,
                )
            except SequenceConflict as error:
                await self._refresh()
                if self.current is current:
                    # Nobody was first: the log refused for a reason of its own, which is told as it is.
                    raise
                raise await self._conflict(plan) from error
            return self._accept(tip, event, after)

    async def require_base(self, plan: Plan) -> None:
        """Raises Conflict when `plan` was made from another state than the newest, or was already applied."""
        async with self._lock:
            await self._refresh()
            await self._require_base(plan)

    async def _require_base(self, plan: Plan) -> None:
        if not fits(self.current, plan):
            raise await self._conflict(plan)

    def _accept(self, tip: Tip, event: Event, after: State) -> Revision:
        revision = Revision.of(event, self._parent(self._revisions))
        self._revisions.append(revision)
        self._tip = tip
        self._keep(after)
        return revision

    async def _refresh(self) -> None:
        """Take in what others have committed. The tip moves last, so that a failure leaves everything as it was."""
        tip, events = await self._journal.news(self._tip)
        if not events:
            return
        revisions = list(self._revisions)
        for event in events:
            revisions.append(Revision.of(event, self._parent(revisions)))
        newest = await self._load(revisions[-1])
        self._revisions, self._tip = revisions, tip
        self._keep(newest)

    @staticmethod
    def _parent(revisions: list[Revision]) -> str | None:
        return revisions[-1].tree if revisions else None

    def _keep(self, state: State) -> None:
        self._states.pop(state.revision, None)
        self._states[state.revision] = state
        for number in list(self._states)[:-_KEPT]:
            if number != len(self._revisions):
                del self._states[number]

    async def _state(self, number: int) -> State:
        if not 0 <= number <= len(self._revisions):
            newest = len(self._revisions)
            raise NotFound(f"there is no revision {number}: the newest is {newest}", mend="agentos history lists them")
        if number not in self._states:
            self._keep(State.empty() if number == 0 else await self._load(self._revisions[number - 1]))
        return self._states[number]

    async def _load(self, revision: Revision) -> State:
        where = blob_subject(revision.tree)
        try:
            tree = parse_strict(await get_blob(self._log, revision.tree))
            rows = {Key.parse(text): (row["digest"], row["by"], row["revision"]) for text, row in tree.items()}
            known = {entry.digest: entry.resource for state in self._states.values() for entry in state.entries.values()}
            blobs = await get_blobs(self._log, [name for name, _, _ in rows.values() if name not in known])
            known |= {name: Resource.from_dict(parse_strict(data)) for name, data in blobs.items()}
        except (NotCanonical, KeyError, ValueError, TypeError, AttributeError) as error:
            raise ChainBroken(f"the state of revision {revision.number} cannot be read: {error}", where=where) from error
        entries = {key: Entry(known[name], name, by, number) for key, (name, by, number) in rows.items()}
        odd = [str(key) for key, entry in entries.items() if entry.resource.key != key]
        if odd:
            raise ChainBroken(f"the state of revision {revision.number} holds another resource under {odd[0]}", where=where)
        return State(revision.number, revision.tree, entries)

    async def _conflict(self, plan: Plan) -> Conflict:
        """Who was first, what they changed, and the way out."""
        for revision in self._revisions:
            if revision.plan == plan.digest:
                return Conflict(
                    f"this plan was already applied as revision {revision.number} {self._by(revision)}",
                    mend="nothing is left to do; to apply the same declarations again, plan again",
                )
        newest, base = len(self._revisions), plan.base_revision
        if base > newest or not fits(await self._state(base), plan):
            return Conflict(
                f"the plan was made from a revision {base} that this registry never had", mend="plan again against this runtime"
            )
        again = f"plan again: yours was made from revision {base}"
        near = [one for one in self._revisions[base:] if set(one.tenants) & set(plan.tenants)]
        if not near:
            # Who that was, and when, is for that tenant.
            return Conflict(f"the newest revision is {newest}, and another tenant was changed", mend=again)
        first, last = near[0].number, near[-1]
        who = f"revision {first} {self._by(last)}"
        if first != last.number:
            who = f"revisions {first} to {last.number}, the last {self._by(last)},"
        what = _differences(await self._state(base), self.current, plan)
        return Conflict(f"{who} changed {what}", mend=again)

    def _by(self, revision: Revision) -> str:
        return f"by {revision.actor} {ago(self._clock.now_ms() - revision.time_ms)}"


def ago(elapsed_ms: int) -> str:
    """`3 s ago`, `5 min ago`, `2 h ago`, `4 days ago`."""
    seconds = max(0, elapsed_ms // 1000)
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def _entries(current: State, plan: Plan, actor: str, number: int, restores: State | None) -> dict[Key, Entry]:
    entries = dict(current.entries)
    for change in plan.changes:
        if change.resource is None:
            del entries[change.key]
            continue
        entries[change.key] = Entry(change.resource, change.resource.digest(), actor, number)
    if restores is not None:
        # What was changed and changed back meanwhile equals the old resource already; its attribution goes back with the rest.
        entries |= {key: old for key, old in restores.entries.items() if key in entries and entries[key].digest == old.digest}
    return entries


def _differences(base: State, now: State, plan: Plan) -> str:
    """What moved in the tenants of the plan, what the plan wants to change first: `agent/default/a (spec.model) and 3 more`."""
    mine = {change.key for change in plan.changes}
    keys = sorted(changed_keys(base, now, among=plan.tenants), key=lambda key: (key not in mine, key))
    if not keys:
        return "what is now as it was before"
    shown = []
    for key in keys[:3]:
        old, new = base.get(key), now.get(key)
        if old is None or new is None:
            shown.append(f"{key} ({'created' if old is None else 'deleted'})")
        else:
            fields = [change.path for change in diff(old.to_dict(), new.to_dict())]
            shown.append(f"{key} ({', '.join(fields[:3])}{' …' if len(fields) > 3 else ''})")
    return ", ".join(shown) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
