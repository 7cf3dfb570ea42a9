"""The broker: lends values to calls, one lease each, and knows what was lent in a session for as long as the session lasts.

    async with broker.lease(tenant, session, call, decision, {"github": ref}) as held:
        held.value("github")                    # handed over now
                                                # leaving the block ends the leases: value() raises
    broker.masker(tenant, session).text(...)    # without what was lent in this session, whenever that was

A value is fetched for each call anew, so what was rotated or taken away at its source is so for the next call. It is refused
where it is too weak to be told from other text. Whoever asks for a value that cannot be had is told the same words after the same
time, whatever the reason: it is not declared, its file is gone, Vault is down. Operators find the reason in the runtime's log.

Python cannot wipe a text from memory. What ends with a lease is every reference that the runtime has to the value, but for the
session's masks, which have to know it until the session is over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from agentos.abi.ids import Clock, Random
from agentos.credentials.forms import weak
from agentos.credentials.lease import CredentialUnavailable, Kept, Lease
from agentos.credentials.mask import Masker
from agentos.credentials.reference import SecretRef
from agentos.credentials.source import SourceFault, Sources

log = logging.getLogger(__name__)

PATIENCE_S: Final = 3.0
"""Seconds within which all values of a call have to be there; who does not get them is told so after this time, never earlier."""


@dataclass(frozen=True, slots=True)
class Live:
    """A lease that holds, for people to see."""

    tenant: str
    session: str
    call: str
    lease: Lease
    kept: bool
    """Whether a process that outlives the call has it."""


class Broker:
    """See the module. All methods belong to one event loop; maskers may be used from any thread."""

    def __init__(self, sources: Sources, clock: Clock, random: Random, *, patience_s: float = PATIENCE_S) -> None:
        self._sources = sources
        self._clock = clock
        self._random = random
        self._patience_s = patience_s
        self._maskers: dict[tuple[str, str], Masker] = {}
        self._known: dict[tuple[str, str], set[str]] = {}
        """By session: the Secrets whose values its masker knows, as far as they could be had."""
        self._held: set[_Held] = set()

    @asynccontextmanager
    async def lease(
        self, tenant: str, session: str, call: str, decision: str, refs: Mapping[str, SecretRef | None]
    ) -> AsyncIterator[_Held]:
        """Lend the values of `refs`, by name, to one call until the block is left; None: that Secret is not declared.

        `decision` is the hash of the event that decided the call. Raises CredentialUnavailable.
        """
        values = await self._fetched(tenant, refs)
        masker = self._maskers.setdefault((tenant, session), Masker())
        self._known.setdefault((tenant, session), set()).update(values)
        now = self._clock.now_ms()
        leases, lent = [], {}
        for name, (ref, value) in values.items():
            # Before anybody has the value: whatever comes back is masked.
            masker.add(value)
            leases.append(Lease(f"lease-{self._random.token(12).hex()}", name, decision, now + ref.lease_s * 1000))
            lent[name] = (ref, value)
        held = _Held(self, (tenant, session, call), tuple(leases), lent)
        values.clear()
        self._held.add(held)
        try:
            yield held
        finally:
            held.end()

    async def recall(self, tenant: str, session: str, refs: Mapping[str, SecretRef]) -> None:
        """Have the session's masks know what an earlier runtime has lent in it: the values of `refs`, by name.

        Nothing is lent. Each is fetched once; one that cannot be had, or is another by now, is not masked, and the log says so.
        """
        known = self._known.setdefault((tenant, session), set())
        missing = [ref for name, ref in refs.items() if name not in known]
        if not missing:
            return
        outcomes = await asyncio.gather(*(self._outcome(ref) for ref in missing))
        masker = self._maskers.setdefault((tenant, session), Masker())
        for ref, outcome in zip(missing, outcomes, strict=True):
            known.add(ref.name)
            if isinstance(outcome, str):
                masker.add(outcome)
            else:
                log.warning("secret %s of tenant %s was lent before and cannot be masked: %s", ref.name, tenant, outcome.message)

    def masker(self, tenant: str, session: str) -> Masker:
        """What masks the values that were lent in a session. An empty one where none were."""
        return self._maskers.get((tenant, session)) or _EMPTY

    def live(self, tenant: str | None = None) -> Sequence[Live]:
        """The leases that hold, of one tenant or of all, oldest expiry first."""
        now = self._clock.now_ms()
        rows = [
            Live(*held.of, lease, held.kept)
            for held in self._held
            for lease in held.leases
            if tenant in (None, held.of[0]) and lease.expires_ms > now
        ]
        return sorted(rows, key=lambda row: (row.lease.expires_ms, row.lease.id))

    def revoke(self, tenant: str, secret: str) -> None:
        """End all leases of a secret at once."""
        self._over(lambda held: held.of[0] == tenant and held.has(secret))

    def declared(self, tenant: str, refs: Mapping[str, SecretRef]) -> None:
        """Take note of the Secrets of a tenant as they are declared now: leases of one that is gone or has changed end."""
        self._over(lambda held: held.of[0] == tenant and not held.agrees(refs))

    def ended(self, tenant: str, session: str) -> None:
        """A session is over: its leases end, and what was lent in it is forgotten. Harmless when repeated."""
        self._over(lambda held: held.of[:2] == (tenant, session))
        self._maskers.pop((tenant, session), None)
        self._known.pop((tenant, session), None)

    async def check(self, tenant: str, ref: SecretRef) -> str | None:
        """Why a value could not be lent now, in words for operators; None if it could. The value is fetched and dropped."""
        outcome = await self._outcome(ref)
        if isinstance(outcome, SourceFault):
            log.info("secret %s of tenant %s was checked: %s", ref.name, tenant, outcome.message)
            return outcome.message
        return None

    async def close(self) -> None:
        """End everything."""
        self._over(lambda _: True)
        self._maskers.clear()
        self._known.clear()
        for source in self._sources.values():
            await source.close()

    async def _fetched(self, tenant: str, refs: Mapping[str, SecretRef | None]) -> dict[str, tuple[SecretRef, str]]:
        loop = asyncio.get_running_loop()
        told_at = loop.time() + self._patience_s
        outcomes = await asyncio.gather(*(self._outcome(ref) for ref in refs.values()))
        values: dict[str, tuple[SecretRef, str]] = {}
        for (name, ref), outcome in zip(refs.items(), outcomes, strict=True):
            if ref is None or isinstance(outcome, SourceFault):
                why = outcome.message if isinstance(outcome, SourceFault) else ""
                log.warning("secret %s of tenant %s cannot be lent: %s", name, tenant, why)
            else:
                values[name] = (ref, outcome)
        if len(values) == len(refs):
            return values
        values.clear()
        # As late as the slowest reason: how long it took must not tell which one it was.
        await asyncio.sleep(max(0.0, told_at - loop.time()))
        raise CredentialUnavailable

    async def _outcome(self, ref: SecretRef | None) -> str | SourceFault:
        """The value, or why there is none. Of what a source raises that is no SourceFault only the type is told."""
        if ref is None:
            return SourceFault("it is not declared")
        source = self._sources.get(ref.source)
        if source is None:
            return SourceFault(f"this runtime cannot read from {ref.source}")
        try:
            async with asyncio.timeout(self._patience_s):
                value = await source.fetch(ref)
        except SourceFault as fault:
            return fault
        except TimeoutError:
            return SourceFault(f"{ref.source} did not answer within {self._patience_s:g} s")
        except Exception as error:  # noqa: BLE001 - keyrings are other people's programs
            return SourceFault(f"{ref.source} failed with {type(error).__name__}")
        reason = weak(value)
        return value if reason is None else SourceFault(f"the value cannot be used: {reason}")

    def _over(self, concerns: Callable[[_Held], bool]) -> None:
        for held in [one for one in self._held if concerns(one)]:
            held.revoke()

    def now_ms(self) -> int:
        """The time that leases go by."""
        return self._clock.now_ms()

    def took(self, held: _Held) -> None:
        """Know of leases that hold."""
        self._held.add(held)

    def dropped(self, held: _Held) -> None:
        """Forget leases that are over."""
        self._held.discard(held)


_EMPTY: Final = Masker()


class _Held:
    """Leases of one call, or of a process that began with it. `of` is (tenant, session, call)."""

    def __init__(
        self,
        broker: Broker,
        of: tuple[str, str, str],
        leases: Sequence[Lease],
        values: dict[str, tuple[SecretRef, str]],
        over: Callable[[], None] | None = None,
        *,
        kept: bool = False,
    ) -> None:
        self.of = of
        self.leases = leases
        self.kept = kept
        self._broker = broker
        self._values = values
        self._over = over
        self._timer: asyncio.TimerHandle | None = None

    @property
    def live(self) -> bool:
        now = self._broker.now_ms()
        return len(self._values) == len(self.leases) and all(now < lease.expires_ms for lease in self.leases)

    def value(self, secret: str) -> str:
        found = self._values.get(secret)
        now = self._broker.now_ms()
        if found is None or any(lease.secret == secret and now >= lease.expires_ms for lease in self.leases):
            raise CredentialUnavailable
        return found[1]

    def keep(self, over: Callable[[], None] | None = None) -> Kept:
        if not self.live:
            raise CredentialUnavailable
        kept = _Held(self._broker, self.of, self.leases, dict(self._values), over, kept=True)
        self._broker.took(kept)
        if self.leases:
            kept.expire_at(min(lease.expires_ms for lease in self.leases))
        return kept

    def has(self, secret: str) -> bool:
        """Whether one of them is of `secret`."""
        return secret in self._values

    def agrees(self, refs: Mapping[str, SecretRef]) -> bool:
        """Whether all of them are of secrets that are declared as they were."""
        return all(refs.get(name) == ref for name, (ref, _) in self._values.items())

    def expire_at(self, expires_ms: int) -> None:
        """Have them revoked when their time is over."""
        left_s = (expires_ms - self._broker.now_ms()) / 1000
        if left_s <= 0:
            self.revoke()
        else:
            self._timer = asyncio.get_running_loop().call_later(left_s, self.expire_at, expires_ms)

    def end(self) -> None:
        """The call, or the process, is over."""
        self._values.clear()
        self._broker.dropped(self)
        if self._timer is not None:
            self._timer.cancel()

    def revoke(self) -> None:
        """They are over while whoever has them is still there: it is told."""
        self.end()
        over, self._over = self._over, None
        if over is not None:
            over()
