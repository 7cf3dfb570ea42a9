"""The verbs about secrets: secret.list, secret.check. They tell where values are kept and whether they can be had; never a value.

What the model may not learn, operators may: why a value cannot be lent. It is said in words of the runtime's own: what a source
answered is in none of them, nor is how long a value is or how it begins.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from agentos.abi.canonical import Json
from agentos.abi.errors import NotFound
from agentos.control.params import Params
from agentos.control.principal import Caller, Handlers
from agentos.credentials.broker import Broker
from agentos.credentials.reference import SecretRef


class SecretVerbs:
    """The verbs; see `handlers`. `refs` gives the Secrets of a tenant as they are declared now, by name."""

    def __init__(self, broker: Broker, refs: Callable[[str], Mapping[str, SecretRef]]) -> None:
        self._broker = broker
        self._refs = refs

    def handlers(self) -> Handlers:
        """The verbs by name."""
        return {"secret.list": self.list, "secret.check": self.check}

    async def list(self, caller: Caller, params: dict[str, Json]) -> Json:
        """{} → {secrets: [{name, source, hosts, lease_seconds, leases}]}: those of the tenant, by name.

        `leases` is how many calls and processes are lent the value at this moment.
        """
        Params(params).end()
        lent = Counter(row.lease.secret for row in self._broker.live(caller.tenant))
        refs = sorted(self._refs(caller.tenant).values(), key=lambda ref: ref.name)
        return {"secrets": [{**_row(ref), "leases": lent[ref.name]} for ref in refs]}

    async def check(self, caller: Caller, params: dict[str, Json]) -> Json:
        """Fetch a value, and drop it: {name} → {name, source, ok, why?}. Raises NotFound."""
        take = Params(params)
        name = take.text("name", longest=63)
        take.end()
        ref = self._refs(caller.tenant).get(name)
        if ref is None:
            raise NotFound(
                f"tenant {caller.tenant} has no secret {name!r}", mend="agentos secret list shows those that there are"
            )
        why = await self._broker.check(caller.tenant, ref)
        body: dict[str, Json] = {"name": name, "source": ref.source, "ok": why is None}
        return body if why is None else {**body, "why": why}


def _row(ref: SecretRef) -> dict[str, Json]:
    return {"name": ref.name, "source": ref.source, "hosts": list(ref.hosts), "lease_seconds": ref.lease_s}
