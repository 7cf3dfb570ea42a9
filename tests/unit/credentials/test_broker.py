"""The broker: values are lent for one call, and what is refused is refused alike."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Mapping
from typing import Any

import pytest

from agentos.credentials.adapters.env import EnvSource
from agentos.credentials.broker import Broker
from agentos.credentials.lease import UNAVAILABLE, CredentialUnavailable
from agentos.credentials.reference import SecretRef
from agentos.credentials.source import SourceFault

VALUE = "hunter2-hunter2-hunter2"
REF = SecretRef("github", "env", "GITHUB", lease_s=60)


class Clock:
    """A clock that only the test moves."""

    ms = 1_700_000_000_000

    def now_ms(self) -> int:
        return self.ms


class Counting:
    """Bytes that are told apart."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def token(self, size: int) -> bytes:
        return next(self._numbers).to_bytes(size, "big")


class Behaving:
    """A source that does what its settings say."""

    def __init__(self) -> None:
        self.closed = False

    async def fetch(self, ref: SecretRef) -> str:
        match ref.settings:
            case "hang":
                await asyncio.Event().wait()
            case "fault":
                raise SourceFault("the place is on fire")
            case "break":
                raise RuntimeError(f"cannot parse {VALUE}")
        return str(ref.settings)

    async def close(self) -> None:
        self.closed = True


def make(environ: Mapping[str, str] | None = None, **more: Any) -> tuple[Broker, Clock]:
    clock = Clock()
    sources = {"env": EnvSource({"GITHUB": VALUE} if environ is None else environ), "file": Behaving()}
    return Broker(sources, clock, Counting(), patience_s=0.05, **more), clock


async def test_a_lease_ends_with_its_block() -> None:
    """Inside the block there is the value, after it there is none; each lease has an id of its own and the decision's hash."""
    broker, clock = make()
    async with broker.lease("acme", "s-1", "c-1", "sha256:d", {"github": REF}) as held:
        assert held.value("github") == VALUE
        (lease,) = held.leases
        assert (lease.secret, lease.decision, lease.expires_ms) == ("github", "sha256:d", clock.ms + 60_000)
        assert VALUE not in f"{lease}{lease.to_dict()}{held!r}"
        assert [row.lease for row in broker.live("acme")] == [lease]
        assert broker.live("other") == []
    with pytest.raises(CredentialUnavailable):
        held.value("github")
    assert broker.live() == []
    async with broker.lease("acme", "s-1", "c-2", "sha256:d", {"github": REF}) as again:
        assert again.leases[0].id != lease.id


async def test_a_lease_ends_with_its_time() -> None:
    """A call that takes longer than the lease does not get the value any more, nor can it be kept."""
    broker, clock = make()
    async with broker.lease("acme", "s-1", "c-1", "", {"github": REF}) as held:
        clock.ms += 60_000
        with pytest.raises(CredentialUnavailable):
            held.value("github")
        with pytest.raises(CredentialUnavailable):
            held.keep()
        assert broker.live() == []


REFUSED = {
    "undeclared": None,
    "unset": SecretRef("x", "env", "NOTHING"),
    "weak": SecretRef("x", "file", "short"),
    "fault": SecretRef("x", "file", "fault"),
    "break": SecretRef("x", "file", "break"),
    "hang": SecretRef("x", "file", "hang"),
    "no source": SecretRef("x", "vault", {}),
}


@pytest.mark.parametrize("why", REFUSED)
async def test_refusals_are_alike(why: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the reason: the same words, after the same time; the log says which secret and why, and never a value."""
    broker, _ = make()
    loop = asyncio.get_running_loop()
    begun = loop.time()
    with caplog.at_level(logging.DEBUG), pytest.raises(CredentialUnavailable) as caught:
        async with broker.lease("acme", "s-1", "c-1", "", {"github": REF, "x": REFUSED[why]}):
            pytest.fail("nothing was to be lent")
    assert loop.time() - begun >= 0.05
    error = caught.value
    assert (error.message, error.where, error.mend, error.retryable) == (UNAVAILABLE, None, None, False)
    assert error.__cause__ is None
    assert "secret x of tenant acme cannot be lent: " in caplog.text
    assert VALUE not in caplog.text
    assert "short" not in caplog.text.replace("shorter", "")
    assert broker.live() == []
    assert broker.masker("acme", "s-1").empty


async def test_a_check_says_why_to_operators() -> None:
    """What the model is not told, operators are: the reason, without the value."""
    broker, _ = make()
    assert await broker.check("acme", REF) is None
    assert await broker.check("acme", REFUSED["fault"] or REF) == "the place is on fire"
    assert await broker.check("acme", REFUSED["break"] or REF) == "file failed with RuntimeError"
    assert await broker.check("acme", REFUSED["hang"] or REF) == "file did not answer within 0.05 s"
    assert "at least 8 characters" in str(await broker.check("acme", REFUSED["weak"] or REF))
    assert broker.masker("acme", "s-1").empty


async def test_masks_last_as_long_as_the_session() -> None:
    """What was lent in a session is masked in it after its lease, in no other session, and not after its end."""
    broker, _ = make()
    async with broker.lease("acme", "s-1", "c-1", "", {"github": REF}):
        pass
    assert broker.masker("acme", "s-1").text(f"<{VALUE}>") == "<[masked]>"
    assert broker.masker("acme", "s-2").text(VALUE) == VALUE
    assert broker.masker("other", "s-1").text(VALUE) == VALUE
    broker.ended("acme", "s-1")
    broker.ended("acme", "s-1")
    assert broker.masker("acme", "s-1").text(VALUE) == VALUE


async def test_kept_leases_outlive_the_call() -> None:
    """A process that is kept warm has its leases until it ends them; nobody is told then, as it knows."""
    broker, _ = make()
    told: list[str] = []
    async with broker.lease("acme", "s-1", "c-1", "", {"github": REF}) as held:
        kept = held.keep(lambda: told.append("over"))
    assert kept.value("github") == VALUE
    assert kept.live
    assert [row.kept for row in broker.live()] == [True]
    assert kept.leases == held.leases
    kept.end()
    assert not kept.live
    with pytest.raises(CredentialUnavailable):
        kept.value("github")
    assert (told, broker.live()) == ([], [])


@pytest.mark.parametrize("how", ["revoke", "declared", "gone", "ended", "close"])
async def test_revoking_ends_everything_at_once(how: str) -> None:
    """A secret that is revoked, changed or undeclared, and the end of the session, end leases in mid-call and stop processes."""
    broker, _ = make()
    told: list[str] = []
    async with broker.lease("acme", "s-1", "c-1", "", {"github": REF}) as held:
        kept = held.keep(lambda: told.append("over"))
        async with broker.lease("acme", "s-2", "c-1", "", {"other": SecretRef("other", "file", "abcdefghij")}) as besides:
            match how:
                case "revoke":
                    broker.revoke("other-tenant", "github")
                    assert held.value("github")
                    broker.revoke("acme", "github")
                case "declared":
                    refs = {"other": SecretRef("other", "file", "abcdefghij")}
                    broker.declared("acme", {**refs, "github": REF})
                    assert held.value("github")
                    broker.declared("acme", {**refs, "github": SecretRef("github", "env", "OTHER", lease_s=60)})
                case "gone":
                    broker.declared("acme", {"other": SecretRef("other", "file", "abcdefghij")})
                case "ended":
                    broker.ended("acme", "s-1")
                case "close":
                    await broker.close()
            for one in (held, kept):
                with pytest.raises(CredentialUnavailable):
                    one.value("github")
            assert told == ["over"]
            if how != "close":
                assert besides.value("other") == "abcdefghij"
    assert told == ["over"]


async def test_a_kept_lease_ends_with_its_time() -> None:
    """When the time of a kept lease is over its process is told, without anybody asking."""
    broker, clock = make()
    over = asyncio.Event()
    async with broker.lease("acme", "s-1", "c-1", "", {"github": SecretRef("github", "env", "GITHUB", lease_s=1)}) as held:
        clock.ms += 990
        kept = held.keep(over.set)
    clock.ms += 10
    async with asyncio.timeout(5):
        await over.wait()
    assert not kept.live


async def test_nothing_is_lent_when_one_is_missing() -> None:
    """The values of a call are there together or not at all, and an error in the block does not keep them."""
    broker, _ = make()
    with pytest.raises(CredentialUnavailable):
        async with broker.lease("acme", "s-1", "c-1", "", {"github": REF, "none": None}):
            pass
    with pytest.raises(ZeroDivisionError):
        async with broker.lease("acme", "s-1", "c-1", "", {"github": REF}) as held:
            raise ZeroDivisionError
    with pytest.raises(CredentialUnavailable):
        held.value("github")
    with pytest.raises(CredentialUnavailable):
        held.value("unheard of")
