"""Budgets: nothing is ever exceeded, whoever calls at once, whatever crashes; and the log alone remembers."""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentos.abi import event as ev
from agentos.abi.attributes import attributes_of
from agentos.abi.canonical import Json
from agentos.abi.errors import ChainBroken, LogUnavailable
from agentos.abi.event import Event
from agentos.kernel.booked import DAY_MS, HEARD, Payer, Told, day_of, told_of
from agentos.kernel.budgets import RULE, RULE_HELD, Budgets, Held, Refused, Row, Want, no_history
from agentos.kernel.journal import Journal
from agentos.kernel.lineage import Paying
from agentos.scheduler.declared import Arbitration, Budget, Price

NOW = 1_795_000_000_000
TODAY = day_of(NOW)


@dataclass
class Past:
    """The log as the books see it: headers alone, as of sessions that were erased."""

    events: list[Event] = field(default_factory=list)
    reads: list[str | None] = field(default_factory=list)
    pause: bool = True

    async def __call__(self, tenant: str, session: str | None = None) -> AsyncIterator[Told]:
        self.reads.append(session)
        for event in list(self.events):
            if event.tenant == tenant and event.type in HEARD and session in {None, event.subject}:
                yield told_of(event)
            if self.pause:
                await asyncio.sleep(0)

    def add(self, kind: str, session: str, data: dict[str, Any], *, agent: str = "a", now: int = NOW) -> Event:
        told = {"agent": agent} | attributes_of(kind, data)
        seq = 1 + sum(event.subject == session for event in self.events)
        self.events.append(Event("e", kind, "t", session, seq, "", now, "agent/a", 1, None, {}, told))
        return self.events[-1]

    def decided(self, held: Held, *, effect: str = "allow", now: int = NOW) -> Event:
        data: dict[str, Json] = {"call": held.key[1], "tool": "write", "decision": {"effect": effect}, "reserved": held.told()}
        return self.add(ev.SYSCALL_DECIDED, held.key[0], data, agent=held.payer.agent, now=now)

    def finished(self, held: Held, spent: dict[str, int], *, now: int = NOW) -> Event:
        data: dict[str, Json] = {"call": held.key[1], "tool": "write", "spent": spent, "duration_us": 5}
        return self.add(ev.SYSCALL_FINISHED, held.key[0], data, agent=held.payer.agent, now=now)


def payer(session: str = "s", agent: str = "a", program: str = "p", now: int = NOW, lineage: tuple[str, ...] = ()) -> Payer:
    return Payer(session, agent, program, day_of(now), lineage)


def per_day(**limits: int) -> Arbitration:
    return Arbitration(per_day={("tenant", ""): Budget(**limits)})


async def ask(budgets: Budgets, call: str, who: Payer, want: Want, declared: Arbitration, now: int = NOW) -> Held | Refused:
    answer = await budgets.reserve("t", call, who, want, declared, now)
    assert answer is not None
    return answer


async def sums(budgets: Budgets, declared: Arbitration) -> list[Row]:
    return await budgets.rows("t", declared, NOW, days=2, sessions={f"s{number}": "a" for number in range(5)})


async def test_without_a_budget_nothing_is_read_reserved_or_kept() -> None:
    """A tenant that declares none costs a look at three empty mappings."""
    budgets = Budgets(no_history)
    assert await budgets.reserve("t", "c", payer(), Want(calls=1), Arbitration(), NOW) is None
    with pytest.raises(LogUnavailable):
        await budgets.reserve("t", "c", payer(), Want(calls=1), per_day(calls=1), NOW)


async def test_fifty_at_once_get_what_fits() -> None:
    """Sessions that ask in the same moment, the first of all included, get exactly what the tenant has for the day."""
    past = Past()
    budgets, declared = Budgets(past), per_day(calls=10)
    answers = await asyncio.gather(*(ask(budgets, "c", payer(f"s{n}"), Want(calls=1), declared) for n in range(50)))
    held = [one for one in answers if isinstance(one, Held)]
    refused = [one for one in answers if isinstance(one, Refused)]
    assert (len(held), len(past.reads)) == (10, 1)
    assert {one.rule for one in refused} == {RULE_HELD}
    for one in held:
        budgets.hear(past.decided(one))
        budgets.hear(past.finished(one, {"calls": 1}))
    last = await ask(budgets, "d", payer(), Want(calls=1), declared)
    assert last == Refused(
        RULE,
        f"the budget of tenant t for {TODAY} (UTC) is 10 calls: 10 are used, 0 are left, 1 are wanted; "
        "an operator can raise spec.budget.perDay.calls of Tenant t",
    )
    assert isinstance(await ask(budgets, "d", payer(now=NOW + DAY_MS), Want(calls=1), declared, NOW + DAY_MS), Held)


@pytest.mark.parametrize(
    ("declared", "whose"),
    [
        (Arbitration(per_session={"a": Budget(microdollars=1_500_000)}), "session s is 1.5 dollars"),
        (Arbitration(per_day={("agent", "a"): Budget(microdollars=20)}), f"agent a for {TODAY} (UTC) is 0.00002 dollars"),
        (Arbitration(in_all={("program", "p"): Budget(milliseconds=1500)}), "program p is 1.5 seconds"),
        (Arbitration(in_all={("tenant", ""): Budget(bytes=7)}), "tenant t is 7 bytes"),
        (Arbitration(in_all={("tenant", ""): Budget(tokens=5)}), "tenant t is 5 tokens"),
    ],
)
async def test_every_account_and_unit_is_refused_by_name(declared: Arbitration, whose: str) -> None:
    """Whose budget it is, how large, and what to raise."""
    want = Want(input=2_000_000, output=1, price=Price(1_000_000, 1), milliseconds=9000, bytes=8)
    budgets = Budgets(Past())
    held = await ask(budgets, "c0", payer(), Want(milliseconds=1000), declared)
    refused = await ask(budgets, "c", payer(), want, declared)
    assert isinstance(held, Held)
    assert isinstance(refused, Refused)
    assert refused.reason.startswith(f"the budget of {whose}: ")
    assert "an operator can raise spec." in refused.reason


async def test_an_answer_and_a_time_out_are_cut_to_what_is_left() -> None:
    """By tokens, by money and by time; without room for the request alone, the call is refused."""
    budgets = Budgets(Past())
    want = Want(input=100, output=1000, price=Price(3_000_000, 15_000_000), milliseconds=60_000)
    by_tokens = await ask(budgets, "c", payer("s1"), want, Arbitration(per_session={"a": Budget(tokens=150, milliseconds=2500)}))
    assert isinstance(by_tokens, Held)
    assert (by_tokens.output, by_tokens.milliseconds, by_tokens.cut, by_tokens.amounts["tokens"]) == (50, 2500, True, 150)
    # 100 tokens in cost 300, so 75 are left for answers of 15 each.
    by_money = await ask(budgets, "c", payer("s2"), want, Arbitration(per_session={"a": Budget(microdollars=375)}))
    assert isinstance(by_money, Held)
    assert (by_money.output, by_money.amounts["microdollars"]) == (5, 375)
    for declared in (Budget(tokens=100), Budget(microdollars=300), Budget(milliseconds=999)):
        assert isinstance(await ask(budgets, "c", payer("s3"), want, Arbitration(per_session={"a": declared})), Refused)


async def test_a_child_pays_from_its_ancestors() -> None:
    """What several children of one session hold at the same time does not pass its budget."""
    declared, above = Arbitration(per_session={"boss": Budget(tokens=100)}), Paying(("top",), {"top": "boss"})
    past = Past()
    budgets = Budgets(past)

    async def child(number: int) -> Held | Refused | None:
        who = payer(f"s{number}", "a", lineage=("top",))
        return await budgets.reserve("t", "c", who, Want(input=30), declared, NOW, paying=above)

    answers = await asyncio.gather(*map(child, range(5)))
    held = [one for one in answers if isinstance(one, Held)]
    assert len(held) == 3
    for one in held:
        past.decided(one)
    again = Budgets(past)
    assert isinstance(
        await again.reserve("t", "d", payer("s9", lineage=("top",)), Want(input=11), declared, NOW, paying=above),
        Refused,
    )


async def test_only_its_own_session_is_read_where_only_sessions_are_limited() -> None:
    """A restart does not read the whole log for it; a new session reads nothing."""
    past = Past()
    declared = Arbitration(per_session={"a": Budget(calls=2)})
    budgets = Budgets(past)
    for call in ("c1", "c2"):
        held = await budgets.reserve("t", call, payer("s1"), Want(calls=1), declared, NOW, first=call == "c1")
        assert isinstance(held, Held)
        budgets.hear(past.decided(held))
    assert past.reads == []
    again = Budgets(past)
    assert isinstance(await ask(again, "c3", payer("s1"), Want(calls=1), declared), Refused)
    assert isinstance(await ask(again, "c1", payer("s2"), Want(calls=1), declared), Held)
    assert past.reads == ["s1", "s2"]
    assert isinstance(await ask(again, "c9", payer("s3"), Want(calls=1), per_day(calls=4)), Held)
    assert past.reads == ["s1", "s2", None]
    assert isinstance(await ask(again, "c9", payer("s4"), Want(calls=1), per_day(calls=4)), Refused)


async def test_records_from_before_there_were_budgets_count_what_they_tell() -> None:
    """Calls and tokens and time, on the day of the record; what is broken is an error, not a gift."""
    past = Past()
    past.add(ev.SYSCALL_DECIDED, "s1", {"call": "m", "tool": "model-call", "decision": {"effect": "allow"}})
    result = {"data": {"input_tokens": 40, "output_tokens": 2}}
    past.add(ev.SYSCALL_FINISHED, "s1", {"call": "m", "tool": "model-call", "result": result, "duration_us": 1500})
    past.add(ev.SYSCALL_DECIDED, "s1", {"call": "c", "tool": "write", "decision": {"effect": "allow"}})
    past.add(ev.SYSCALL_DECIDED, "s1", {"call": "d", "tool": "write", "decision": {"effect": "deny"}})
    rows = await sums(Budgets(past), Arbitration())
    found = {(row.unit, row.used, row.reserved) for row in rows if row.kind == "tenant" and row.day == TODAY}
    assert found == {("tokens", 42, 0), ("calls", 0, 1), ("milliseconds", 2, 0)}
    past.events[0] = Event(
        "e", ev.SYSCALL_DECIDED, "t", "s1", 1, "", NOW, "x", 1, None, {}, {"decision": "allow", "reserved": "["}
    )
    with pytest.raises(ChainBroken, match="reserved"):
        await sums(Budgets(past), Arbitration())


async def test_what_was_used_beyond_is_booked_and_refuses_the_next() -> None:
    """And an outcome that nobody knows counts as all that was reserved."""
    past = Past()
    budgets, declared = Budgets(past), per_day(tokens=100)
    first = await ask(budgets, "c1", payer(), Want(input=50), declared)
    assert isinstance(first, Held)
    budgets.hear(past.decided(first))
    budgets.hear(past.finished(first, {"tokens": 90}))
    assert isinstance(await ask(budgets, "c2", payer(), Want(input=11), declared), Refused)
    second = await ask(budgets, "c2", payer(), Want(input=10), declared)
    assert isinstance(second, Held)
    budgets.hear(past.decided(second))
    budgets.hear(past.add(ev.SYSCALL_UNKNOWN, "s", {"call": "c2", "tool": "write"}))
    assert isinstance(await ask(budgets, "c3", payer(), Want(input=1), declared), Refused)


async def test_a_call_is_on_the_budget_of_the_day_of_its_decision() -> None:
    """Also where its record, its outcome, or both come after midnight, read again as well; a denial holds nothing."""
    past = Past()
    budgets, declared, midnight = Budgets(past), per_day(calls=1), NOW + DAY_MS
    held = await ask(budgets, "c1", payer(), Want(calls=1), declared)
    assert isinstance(held, Held)
    budgets.hear(past.decided(held, now=midnight))
    budgets.hear(past.finished(held, {"calls": 1}, now=midnight))
    for book in (budgets, Budgets(past)):
        assert isinstance(await ask(book, "c2", payer(), Want(calls=1), declared), Refused)
        other = await ask(book, "c2", payer(now=midnight), Want(calls=1), declared, midnight)
        assert isinstance(other, Held)
        book.hear(past.decided(other, effect="deny", now=midnight))
        assert isinstance(await ask(book, "c3", payer(now=midnight), Want(calls=1), declared, midnight), Held)


async def test_a_call_that_is_made_again_after_a_crash_counts_once() -> None:
    """Its second reservation takes the place of the first; if it is refused or not recorded, the first stands."""
    past = Past()
    budgets, declared = Budgets(past), per_day(calls=1, tokens=10)
    first = await ask(budgets, "c1", payer(), Want(input=8, calls=1), declared)
    assert isinstance(first, Held)
    past.decided(first)
    again = Budgets(past)
    assert isinstance(await ask(again, "c1", payer(), Want(input=11, calls=1), declared), Refused)
    second = await ask(again, "c1", payer(), Want(input=10, calls=1), declared)
    assert isinstance(second, Held)
    again.release(second)
    assert await sums(again, declared) == await sums(Budgets(past), declared)
    second = await ask(again, "c1", payer(), Want(input=10, calls=1), declared)
    assert isinstance(second, Held)
    again.hear(past.decided(second))
    assert await sums(again, declared) == await sums(Budgets(past), declared)
    again.hear(past.finished(second, {"tokens": 3, "calls": 1}))
    found = {
        (row.unit, row.used, row.reserved) for row in await sums(Budgets(past), declared) if row.day and row.kind == "tenant"
    }
    assert found == {("tokens", 3, 0), ("calls", 1, 0)}


@dataclass
class _Journal:
    """As much of a journal as the books look at."""

    session: str
    state: Any
    tenant: str = "t"
    inherited: frozenset[str] = frozenset()


def journal_of(past: Past, session: str) -> Journal:
    """The journal of a session as it is read from the log: which calls are allowed and open."""
    calls: dict[str, Any] = {}
    for event in past.events:
        if event.subject == session and "call" in event.attributes:
            call = event.attributes["call"]
            allowed = event.type == ev.SYSCALL_DECIDED and event.attributes["decision"] == "allow"
            calls[str(call)] = type("Call", (), {"call": call, "step": "allowed" if allowed else "finished"})
    state = type("State", (), {"calls": calls})
    return _Journal(session, state)  # type: ignore[return-value]


@settings(max_examples=150, deadline=None)
@given(
    limit=st.integers(0, 60),
    whole=st.booleans(),
    steps=st.lists(
        st.tuples(st.sampled_from(("call", "call", "end", "crash", "lost", "day", "deny")), st.integers(0, 3)), max_size=40
    ),
    seed=st.integers(0, 999),
)
def test_no_schedule_exceeds_a_budget_and_the_log_gives_the_same_sums(
    limit: int, whole: bool, steps: list[tuple[str, int]], seed: int
) -> None:
    """Calls at once, outcomes, denials, crashes, and appends of which nobody knows: what the log says was used or is open never
    passes a limit, and books that are read from it are those that were kept."""
    chance = random.Random(seed)
    shared = {("tenant", ""): Budget(tokens=limit), ("agent", "a"): Budget(calls=limit // 3)}
    each = {"a": Budget(tokens=limit // 2, milliseconds=limit * 1000)}
    declared = Arbitration(per_session=each, per_day=shared if whole else {}, in_all=shared if whole else {})

    async def schedule() -> None:
        past, now, number = Past(), NOW, 0
        budgets = Budgets(past)
        under_way: list[Held] = []
        for act, which in steps:
            if act == "day":
                now = NOW + DAY_MS
            elif act == "crash":
                budgets = Budgets(past)
                for held in under_way:
                    past.add(ev.SYSCALL_UNKNOWN, held.key[0], {"call": held.key[1], "tool": "write"}, now=now)
                under_way.clear()
            elif act == "end" and under_way:
                held = under_way.pop(which % len(under_way))
                used = {unit: chance.randint(0, amount) for unit, amount in held.amounts.items()}
                budgets.hear(past.finished(held, used, now=now))
            elif act in {"call", "lost", "deny"}:
                wants = [Want(chance.randint(0, 9), chance.randint(0, 9), calls=1, milliseconds=1000) for _ in range(which + 1)]
                number += 1
                answers = await asyncio.gather(
                    *(
                        ask(budgets, f"c{number}-{k}", payer(f"s{k}", now=now), want, declared, now)
                        for k, want in enumerate(wants)
                    )
                )
                for held in (one for one in answers if isinstance(one, Held)):
                    if act == "call":
                        budgets.hear(past.decided(held, now=now))
                        under_way.append(held)
                    elif act == "deny":
                        budgets.release(held)
                    else:
                        # The log did not say. It may be there; the session is read again, and its open calls are settled.
                        session = held.key[0]
                        if chance.random() < 0.5:
                            past.decided(held, now=now)
                        budgets.agree(journal_of(past, session))
                        for one in [held, *(one for one in under_way if one.key[0] == session)]:
                            budgets.hear(past.add(ev.SYSCALL_UNKNOWN, session, {"call": one.key[1], "tool": "write"}, now=now))
                        under_way = [one for one in under_way if one.key[0] != session]
            _check(past, limit, whole=whole)
        kept, read = await sums(budgets, declared), await sums(Budgets(past), declared)
        assert kept == read

    asyncio.run(schedule())


def _check(past: Past, limit: int, *, whole: bool) -> None:
    """Add up by hand what each account has used, an open call by its reservation."""
    calls: dict[tuple[str, str], tuple[str, dict[str, int]]] = {}
    for event in past.events:
        told = event.attributes
        key = event.subject, str(told["call"])
        if event.type == ev.SYSCALL_DECIDED:
            body = json.loads(str(told["reserved"]))
            calls[key] = body["day"], body
        elif key in calls and "spent" in told:
            calls[key] = calls[key][0], json.loads(str(told["spent"]))
    used: defaultdict[tuple[str, ...], int] = defaultdict(int)
    for (session, _), (day, body) in calls.items():
        for place in (("session", session), ("tenant",), ("tenant", day)):
            used[*place, "tokens"] += body.get("tokens", 0)
        used["agent", "calls"] += body.get("calls", 0)
    assert all(amount <= limit // 2 for key, amount in used.items() if key[0] == "session")
    if whole:
        assert all(amount <= limit for key, amount in used.items() if key[0] == "tenant")
        assert used["agent", "calls"] <= limit // 3


async def test_a_clock_that_was_ahead_gives_no_day_anew() -> None:
    """Set on by two months, days are forgotten; set back, what was used on them is read again before anything is reserved."""
    past = Past()
    budgets, declared, ahead = Budgets(past), per_day(calls=1), NOW + 60 * DAY_MS
    held = await ask(budgets, "c1", payer(), Want(calls=1), declared)
    assert isinstance(held, Held)
    budgets.hear(past.decided(held))
    budgets.hear(past.finished(held, {"calls": 1}))
    other = await ask(budgets, "c2", payer(now=ahead), Want(calls=1), declared, ahead)
    assert isinstance(other, Held)
    budgets.hear(past.decided(other, now=ahead))
    assert isinstance(await ask(budgets, "c3", payer(), Want(calls=1), declared), Refused)
    assert await sums(budgets, declared) == await sums(Budgets(past), declared)
