"""Principals: unique for ever, chained, never without an operator."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from agentos.abi.errors import ChainBroken, Conflict, NotFound, UsageError
from agentos.abi.event import PRINCIPAL_CREATED, Event
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.eventlog.subject import PRINCIPALS
from agentos.registry.principal import Principals


def key(letter: str) -> str:
    return "U" + letter * 55


@pytest.fixture
def principals(log: MemoryLog, ticks: SimpleNamespace) -> Principals:
    return Principals(log, ticks, ticks)


async def add(
    principals: Principals, name: str, *, tenant: str = "*", roles: tuple[str, ...] = ("operator",), letter: str = ""
) -> None:
    public_key = key(letter or name[0].upper())
    await principals.create(name, tenant=tenant, roles=roles, public_key=public_key, actor="system/runtime")


async def test_create_and_revoke(principals: Principals, log: MemoryLog, ticks: SimpleNamespace) -> None:
    """What one process creates and revokes, another reads, with who did it and why."""
    await add(principals, "alice")
    await add(principals, "bob", tenant="acme", roles=("auditor", "operator"))
    gone = await principals.revoke("bob", reason="left", actor="principal/alice")
    assert not gone.valid
    other = Principals(log, ticks, ticks)
    assert [one.to_dict() for one in await other.list()] == [one.to_dict() for one in await principals.list()]
    bob = await other.get("bob")
    assert (bob.roles, bob.fleet, bob.revoked_by, bob.revoked_reason) == (
        ("operator", "auditor"),
        False,
        "principal/alice",
        "left",
    )
    assert (await other.by_key(key("A"))) == await other.get("alice")
    assert await other.by_key(key("B")) is None


async def test_names_and_keys_are_never_given_out_again(principals: Principals) -> None:
    """A name or key that was ever in use is refused, revoked or not."""
    await add(principals, "alice")
    await add(principals, "bob")
    await principals.revoke("bob", reason="", actor="principal/alice")
    with pytest.raises(Conflict, match="exists"):
        await add(principals, "alice", letter="Z")
    with pytest.raises(Conflict, match="never given out again"):
        await add(principals, "bob", letter="Z")
    with pytest.raises(Conflict, match="another principal"):
        await add(principals, "carol", letter="B")


async def test_a_key_is_replaced_and_never_comes_back(principals: Principals, log: MemoryLog, ticks: SimpleNamespace) -> None:
    """The new one opens, the old one is nobody's for ever; name, roles and history stay; what is revoked gets no other key."""
    await add(principals, "alice")
    await add(principals, "bob", roles=("auditor",))
    made = await principals.rotate("bob", public_key=key("C"), reason="lost", actor="principal/alice")
    assert (made.public_key, [past for past, _ in made.past_keys], made.roles) == (key("C"), [key("B")], ("auditor",))
    other = Principals(log, ticks, ticks)
    assert await other.get("bob") == made
    assert await other.by_key(key("B")) is None
    assert await other.by_key(key("C")) == made
    for used in ("A", "B", "C"):
        with pytest.raises(Conflict, match="belongs to another principal, or did"):
            await principals.rotate("bob", public_key=key(used), reason="", actor="principal/alice")
    with pytest.raises(Conflict, match="belongs to another principal, or did"):
        await add(principals, "carol", letter="B")
    with pytest.raises(UsageError, match="no NKey"):
        await principals.rotate("bob", public_key="U", reason="", actor="principal/alice")
    with pytest.raises(NotFound):
        await principals.rotate("nobody", public_key=key("D"), reason="", actor="principal/alice")
    await principals.revoke("bob", reason="", actor="principal/alice")
    with pytest.raises(Conflict, match="was revoked by principal/alice"):
        await principals.rotate("bob", public_key=key("D"), reason="", actor="principal/alice")


async def test_the_last_operator_stays(principals: Principals) -> None:
    """The fleet's last operator cannot be revoked; a tenant's operator does not count."""
    await add(principals, "alice")
    await add(principals, "bob", tenant="acme")
    await add(principals, "carol", roles=("auditor",))
    with pytest.raises(Conflict, match="last operator"):
        await principals.revoke("alice", reason="", actor="principal/alice")
    await principals.revoke("bob", reason="", actor="principal/alice")
    await add(principals, "dora")
    await principals.revoke("alice", reason="", actor="principal/dora")
    with pytest.raises(Conflict, match="already revoked by principal/dora"):
        await principals.revoke("alice", reason="", actor="principal/dora")
    with pytest.raises(NotFound):
        await principals.revoke("nobody", reason="", actor="principal/dora")


@pytest.mark.parametrize(
    ("name", "tenant", "roles", "public_key"),
    [
        ("Alice", "*", ["operator"], key("A")),
        ("alice", "", ["operator"], key("A")),
        ("alice", "*", [], key("A")),
        ("alice", "*", ["king"], key("A")),
        ("alice", "*", ["operator"], "S" + "A" * 55),
        ("alice", "*", ["operator"], key("A") + "\n"),
    ],
)
async def test_odd_words(principals: Principals, name: str, tenant: str, roles: list[str], public_key: str) -> None:
    """Odd names, tenants, roles and keys are refused."""
    with pytest.raises(UsageError):
        await principals.create(name, tenant=tenant, roles=roles, public_key=public_key, actor="system/runtime")


async def test_at_once(log: MemoryLog, ticks: SimpleNamespace) -> None:
    """Of several who take one name at once exactly one gets it, and everybody else's principal is kept."""
    makers = [Principals(log, ticks, ticks) for _ in range(4)]
    names = ["same", "same", "third", "fourth"]
    tasks = [add(one, name, letter="ABCD"[place]) for place, (one, name) in enumerate(zip(makers, names, strict=True))]
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 1
    assert [one.name for one in await makers[0].list()] == ["fourth", "same", "third"]


async def test_events_that_cannot_follow(principals: Principals, log: MemoryLog) -> None:
    """A second creation of one name, or another kind of event, is no history."""
    await add(principals, "alice")
    stored = await log.last(PRINCIPALS)
    assert stored is not None
    event = Event.from_bytes(stored.data)
    assert event.type == PRINCIPAL_CREATED
    with pytest.raises(ChainBroken, match="cannot follow"):
        Principals.fold(Principals.fold({}, event), event)
