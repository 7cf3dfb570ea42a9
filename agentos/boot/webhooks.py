"""Webhooks: from a delivery at `/hooks/<tenant>/<path>` to the firing of the triggers that are declared there.

The secret of a webhook is in an environment variable of the runtime that its trigger names; it is read for each delivery, and
kept nowhere. Who sends to a path that nobody declared is answered as one whose signature is wrong, after the same work. An answer
of 202 is given when the firing is durable. Before that nothing is promised, and the sender sends again, under the same id.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, Conflict, NotFound, Unavailable, UsageError
from agentos.abi.ids import Random
from agentos.control.adapters.webhook_server import Answer
from agentos.control.rate import Rate
from agentos.control.webhook import OFTEN, Delivery, OddSecret, genuine, secrets_of
from agentos.drivers.spaces import UNTRUSTED
from agentos.kernel.firing import Firing, Outcome, TriggerSpec, Webhook
from agentos.kernel.port import Timer
from agentos.supervisor.triggers import Triggers

log = logging.getLogger(__name__)

REFUSED: Final = Answer(401, {"error": "there is no such webhook, or the delivery is not signed by its secret, or not fresh"})
"""One answer for all: it tells nobody which paths there are."""

LATER_S: Final = 5
"""Seconds after which a sender may try again what could not be taken now."""

TOLD_US: Final = 60_000_000
"""Microseconds between two lines of the log about deliveries that were refused."""


class Webhooks:
    """Receives deliveries for `triggers`. `environment` holds the secrets."""

    def __init__(self, triggers: Triggers, environment: Mapping[str, str], timer: Timer, random: Random) -> None:
        self._triggers = triggers
        self._environment = environment
        self._timer = timer
        self._decoy = random.token(32)
        self._rate = Rate(OFTEN)
        self._refused = 0
        self._odd: set[str] = set()
        self._told_us: int | None = None

    async def receive(self, delivery: Delivery) -> Answer:
        """What comes of a delivery; the answer for its sender."""
        asked = self._asked(delivery)
        now_s = self._timer.now_ms() // 1000
        signed: list[tuple[TriggerSpec, str]] = []
        for spec, scheme, secrets in asked:
            name = genuine(scheme, secrets, delivery, now_s)
            if name is not None and spec is not None:
                signed.append((spec, name))
        if not signed:
            self._count_refused()
            return REFUSED
        wait = self._rate.take(f"{delivery.tenant}/{delivery.path}", self._timer.monotonic_us())
        if wait:
            return _later(429, "too many deliveries come here", math.ceil(wait))
        fired: list[Json] = []
        for spec, name in signed:
            answer = await self._fire(delivery, spec, name)
            if isinstance(answer, Answer):
                return answer
            fired.append(answer)
        return Answer(202, {"fired": fired})

    def _asked(self, delivery: Delivery) -> Sequence[tuple[TriggerSpec | None, str, tuple[bytes, ...]]]:
        """The triggers that are declared there, each with its scheme and secrets; a decoy where there are none."""
        declared = self._triggers.declared(delivery.tenant, "webhook") if delivery.tenant in self._triggers.tenants() else []
        found: list[tuple[TriggerSpec | None, str, tuple[bytes, ...]]] = []
        for spec in declared:
            if isinstance(spec.on, Webhook) and spec.on.path.strip("/") == delivery.path:
                secrets = self._secrets(delivery.tenant, spec.name, spec.on)
                found.append((spec if secrets else None, spec.on.scheme, secrets or (self._decoy,)))
        return found or [(None, "github" if "x-hub-signature-256" in delivery.headers else "standard", (self._decoy,))]

    def _secrets(self, tenant: str, trigger: str, webhook: Webhook) -> tuple[bytes, ...]:
        """The secrets of a webhook; none where its variable is missing or odd, and then nothing is genuine."""
        try:
            return secrets_of(self._environment.get(webhook.secret_env, ""), webhook.scheme)
        except OddSecret as error:
            told = f"{tenant}/{trigger}/{webhook.secret_env}: {error}"
            if told in self._odd:
                return ()
            self._odd.add(told)
            log.warning("trigger %s of tenant %s takes no deliveries: %s: %s", trigger, tenant, webhook.secret_env, error)
            return ()

    async def _fire(self, delivery: Delivery, spec: TriggerSpec, name: str) -> Answer | dict[str, Json]:
        facts: dict[str, Json] = {"path": delivery.path}
        if isinstance(spec.on, Webhook) and spec.on.scheme == "github":
            # Not signed, so told as what the sender says.
            facts["claimed"] = {
                word: delivery.headers.get(header, "")[:200]
                for word, header in (("event", "x-github-event"), ("delivery", "x-github-delivery"))
            }
        firing = Firing(
            trigger=spec.name,
            id=name,
            at_ms=self._timer.now_ms(),
            source="webhook",
            payload=delivery.body,
            content_type=delivery.headers.get("content-type", "application/octet-stream")[:200],
            labels=(UNTRUSTED,),
            facts=facts,
        )
        try:
            fired = await self._triggers.fire(delivery.tenant, firing)
        except NotFound:
            return REFUSED
        except UsageError as error:
            return Answer(413, {"error": error.message})
        except AgentOSError as error:
            # Why is not for the sender: a freeze, say, comes with the words of whoever has thrown it.
            if not isinstance(error, (Conflict, Unavailable)):
                log.warning("trigger %s of tenant %s could not fire: %s", spec.name, delivery.tenant, error)
            return _later(503, "the delivery cannot be taken now", LATER_S)
        return {
            "trigger": spec.name,
            "outcome": str(fired.outcome),
            "session": fired.session,
            "why": "" if fired.outcome is Outcome.FAILED else fired.why,
            "again": fired.again,
        }

    def _count_refused(self) -> None:
        """Say now and then how many deliveries were refused: one line for each would let anybody fill the log."""
        self._refused += 1
        now = self._timer.monotonic_us()
        if self._told_us is None or now - self._told_us >= TOLD_US:
            log.warning("webhooks: %d deliveries refused: no such path, or not genuine", self._refused)
            self._refused, self._told_us = 0, now


def _later(status: int, message: str, seconds: int) -> Answer:
    return Answer(status, {"error": message}, {"retry-after": str(seconds)})
