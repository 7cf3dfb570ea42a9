"""Charges: never more than there is, whoever asks at once, whatever crashed, and the log alone remembers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agentos.abi import event as ev
from agentos.abi.attributes import attributes_of
from agentos.abi.errors import LogUnavailable
from agentos.abi.event import Event
from agentos.abi.obligation import Obligation
from agentos.kernel import charges as module
from agentos.kernel.charges import Charges, Payer, Receipt, Refusal


def rate(limit: int, seconds: int = 60, per: str = "tenant", name: str = "sends") -> Obligation:
    return Obligation("rate", "r.rate", {"name": name, "limit": limit, "seconds": seconds, "per": per})


def uses(*grants: tuple[str, int]) -> Obligation:
    given = [{"name": name, "digest": f"sha256:{name}", "maximum": maximum} for name, maximum in grants]
    return Obligation("uses", "grants.counted", {"grants": given})


@dataclass
class Past:
    """The log as charges see it: what was recorded of those that were let through."""

    events: list[Event] = field(default_factory=list)
    reads: int = 0
    fails: int = 0

    async def __call__(self, tenant: str) -> AsyncIterator[Event]:
        self.reads += 1
        await asyncio.sleep(0)
        for event in list(self.events):
            if self.fails:
                self.fails -= 1
                raise LogUnavailable("the event log does not answer")
            if event.tenant == tenant:
                yield event
            await asyncio.sleep(0)

    def record(self, payer: Payer, charged: Any, now: int) -> None:
        told = {"agent": payer.agent} | attributes_of(ev.SYSCALL_DECIDED, {"call": payer.call, "charged": list(charged)})
        # The header alone, as of a session that was erased.
        self.events.append(Event("e", ev.SYSCALL_DECIDED, payer.tenant, payer.session, 1, "", now, "agent/a", 1, None, {}, told))


def payer(call: str, session: str = "s", agent: str = "a", tenant: str = "t") -> Payer:
    return Payer(tenant, session, agent, call)


async def paid(charges: Charges, who: Payer, obligation: Obligation, now: int = 0) -> bool:
    return isinstance(await charges.charge(who, [obligation], now), Receipt)


async def test_fifty_at_once_get_ten() -> None:
    """Sessions that ask in the same moment, the first of all moments included, overdraw nothing."""
    past = Past()
    past.record(payer("old", "before"), [{"kind": "rate", "name": "sends", "per": "tenant", "limit": 10, "seconds": 60}], 990)
    charges = Charges(past)
    answers = await asyncio.gather(*(paid(charges, payer("c", f"s{n}"), rate(10), 1000) for n in range(50)))
    assert (sum(answers), past.reads) == (9, 1)


@pytest.mark.parametrize(("per", "alone"), [("session", 4), ("agent", 2), ("tenant", 1)])
async def test_a_counter_belongs_to_what_it_is_per(per: str, alone: int) -> None:
    """Sessions, agents and tenants each have one of their own, and so has each name."""
    charges = Charges(Past())
    callers = [payer("c", session, agent) for session, agent in (("s1", "a"), ("s2", "a"), ("s3", "b"), ("s4", "b"))]
    assert [await paid(charges, who, rate(1, per=per)) for who in callers].count(True) == alone
    assert await paid(charges, callers[0], rate(1, per=per, name="others"))
    assert await paid(charges, payer("c", tenant="u"), rate(1, per=per))


async def test_a_refusal_says_when_it_ends() -> None:
    """Which limit, how many there were, and when the next may come; then it may."""
    charges = Charges(Past())
    for number in range(3):
        assert await paid(charges, payer(f"c{number}"), rate(3, 60), 1000 + number)
    refusal = await charges.charge(payer("c9"), [rate(3, 60)], 2000)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == (
        "rule r.rate lets 3 calls through per tenant in 60 s (sends), and 3 were made: "
        "the next may be made at 1970-01-01T00:01:01.000Z"
    )
    assert not await paid(charges, payer("c9"), rate(3, 60), 60_999)
    assert await paid(charges, payer("c9"), rate(3, 60), 61_000)
    await paid(charges, payer("c"), rate(1, 2**53, name="once"))
    refusal = await charges.charge(payer("d"), [rate(1, 2**53, name="once")], 0)
    assert isinstance(refusal, Refusal)
    assert refusal.reason.endswith("in no time that can be written")
    refusal = await charges.charge(payer("c"), [rate(0)], 0)
    assert isinstance(refusal, Refusal)
    assert refusal.reason.endswith(": none")


async def test_each_of_several_payers_pays_or_none_does() -> None:
    """Child and delegator each pay a use; without one of them nobody pays; a grant that is both's pays once for a call."""
    charges, mine, theirs = Charges(Past()), uses(("mine", 3)), uses(("theirs", 1))
    receipt = await charges.charge(payer("c1"), [mine, theirs], 0)
    assert isinstance(receipt, Receipt)
    assert [entry["grant"] for entry in receipt.charged] == ["mine", "theirs"]
    refusal = await charges.charge(payer("c2"), [mine, theirs], 0)
    assert isinstance(refusal, Refusal)
    assert refusal.spent == ("sha256:theirs",)
    for call in ("c3", "c4"):
        assert await paid(charges, payer(call), mine)
    assert not await paid(charges, payer("c5"), mine)
    shared = uses(("shared", 2))
    first = await charges.charge(payer("c1"), [shared, shared], 0)
    assert isinstance(first, Receipt)
    charges.refund(first)
    for call in ("c2", "c3"):
        assert isinstance(await charges.charge(payer(call), [shared, shared], 0), Receipt)
    assert not await paid(charges, payer("c4"), shared)


async def test_the_first_grant_with_a_use_left_pays() -> None:
    """In order; then it says which are used up; a changed grant (another digest) counts anew."""
    charges = Charges(Past())
    both, paying = uses(("g", 1), ("h", 2)), []
    for number in range(3):
        receipt = await charges.charge(payer(f"c{number}"), [both], 0)
        assert isinstance(receipt, Receipt)
        paying += [entry["grant"] for entry in receipt.charged]
    assert paying == ["g", "h", "h"]
    refusal = await charges.charge(payer("c9"), [both], 0)
    assert isinstance(refusal, Refusal)
    assert (refusal.kind, "g (1), h (2)" in refusal.reason) == ("uses", True)
    changed = Obligation("uses", "r", {"grants": [{"name": "g", "digest": "sha256:other", "maximum": 1}]})
    assert await paid(charges, payer("c9"), changed)


async def test_all_or_nothing() -> None:
    """A call that one counter refuses costs no other one anything."""
    charges = Charges(Past())
    assert isinstance(await charges.charge(payer("c1"), [rate(5), rate(0, name="none")], 0), Refusal)
    assert isinstance(await charges.charge(payer("c1"), [rate(5), uses(("g", 1))], 0), Receipt)
    assert isinstance(await charges.charge(payer("c2"), [rate(5), uses(("g", 1))], 0), Refusal)
    assert [await paid(charges, payer(f"d{n}"), rate(5)) for n in range(5)] == [True] * 4 + [False]


async def test_a_call_is_one_charge_before_and_after_a_crash() -> None:
    """The same call again is the same charge, in memory and read from the log; its refund gives back that one."""
    past = Past()
    charges = Charges(past)
    both = [rate(1), uses(("g", 1), ("h", 1))]
    for charger in (charges, Charges(past)):
        receipt = await charger.charge(payer("c"), both, 5)
        assert isinstance(receipt, Receipt)
        assert [entry.get("grant") for entry in receipt.charged] == [None, "g"]
        past.record(payer("c"), receipt.charged, 5)
        assert not await paid(charger, payer("d"), rate(1), 5)
    again = await charges.charge(payer("c"), both, 70_000)
    assert isinstance(again, Receipt)
    charges.refund(again)
    assert not await paid(charges, payer("d"), rate(1), 60_004)
    assert await paid(charges, payer("d"), rate(1), 60_005)


async def test_a_refund_gives_back_what_was_taken() -> None:
    """And nothing twice."""
    charges = Charges(Past())
    receipt = await charges.charge(payer("c"), [rate(1), uses(("g", 1))], 0)
    assert isinstance(receipt, Receipt)
    charges.refund(receipt)
    charges.refund(receipt)
    assert await paid(charges, payer("d"), rate(1))
    assert await paid(charges, payer("d"), uses(("g", 1)))


async def test_nothing_is_charged_while_the_log_cannot_be_read() -> None:
    """It is an error, and the next one reads it again."""
    past = Past(fails=1)
    past.record(payer("old"), [{"kind": "uses", "grant": "g", "digest": "sha256:g"}], 0)
    charges = Charges(past)
    with pytest.raises(LogUnavailable):
        await charges.charge(payer("c"), [uses(("g", 2))], 0)
    assert await paid(charges, payer("c"), uses(("g", 2)))
    assert not await paid(charges, payer("d"), uses(("g", 2)))


async def test_memory_is_bounded_and_a_longer_window_reads_the_log_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What no window reaches is dropped; a policy that reaches further back finds it in the log."""
    monkeypatch.setattr(module, "SWEEP", 10)
    past = Past()
    charges = Charges(past)
    for number in range(100):
        who, now = payer(f"c{number}", f"s{number}"), number * 1000
        receipt = await charges.charge(who, [rate(5, 2, per="session")], now)
        assert isinstance(receipt, Receipt)
        past.record(who, receipt.charged, now)
    assert past.reads == 1
    assert len(charges._books["t"].rates) < 20
    assert not await paid(charges, payer("new", "s3"), rate(1, 3600, per="session"), 100_000)
    assert past.reads == 2
    assert await paid(charges, payer("new", "s3"), rate(2, 3600, per="session"), 100_000)
    assert past.reads == 2


@given(st.integers(0, 5), st.lists(st.tuples(st.integers(0, 3000), st.booleans()), max_size=40), st.randoms())
def test_random_schedules_never_pass_the_limit(limit: int, steps: list[tuple[int, bool]], random: Any) -> None:
    """Calls at once, pauses, crashes (all counters forgotten) and refunds: at every moment at most `limit` in the window."""

    async def schedule() -> list[int]:
        past, now, made = Past(), 10_000, []
        charges = Charges(past)
        for number, (pause, crash) in enumerate(steps):
            now += pause
            if crash:
                charges = Charges(past)
            group = [payer(f"c{number}-{k}", f"s{k}") for k in range(random.randint(1, 4))]
            answers = await asyncio.gather(*(charges.charge(who, [rate(limit, 2)], now) for who in group))
            for who, answer in zip(group, answers, strict=True):
                if isinstance(answer, Receipt):
                    if random.random() < 0.2:
                        charges.refund(answer)
                        continue
                    past.record(who, answer.charged, now)
                    made.append(now)
        return made

    made = asyncio.run(schedule())
    assert all(sum(1 for other in made if now - 2000 < other <= now) <= limit for now in made)


class Uses(RuleBasedStateMachine):
    """Two grants over many calls, repeats and crashes: as many calls are let through as the log has, at most their uses."""

    def __init__(self) -> None:
        super().__init__()
        self.past = Past()
        self.charges = Charges(self.past)
        self.paid: dict[str, str] = {}

    @rule(call=st.integers(0, 12))
    def call(self, call: int) -> None:
        who = payer(f"c{call}")
        answer = asyncio.run(self.charges.charge(who, [uses(("g", 3), ("h", 2))], 0))
        if isinstance(answer, Receipt):
            grant = answer.charged[0]["grant"]
            assert self.paid.setdefault(who.call, grant) == grant
            self.past.record(who, answer.charged, 0)
        else:
            assert who.call not in self.paid
            assert len(self.paid) == 5

    @rule()
    def crash(self) -> None:
        self.charges = Charges(self.past)

    @invariant()
    def never_overdrawn(self) -> None:
        grants = list(self.paid.values())
        assert grants.count("g") <= 3
        assert grants.count("h") <= 2


TestUses = Uses.TestCase
