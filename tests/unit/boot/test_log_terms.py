"""What a Tenant declares about its log, and servers that can or cannot hold it."""

from __future__ import annotations

import pytest

from agentos.abi.errors import UsageError
from agentos.abi.resource import Resource
from agentos.boot.log_terms import UNDECLARED, LogTerms, log_terms, require_terms
from agentos.manifests import validate_resource


class Server:
    """A server that keeps so many replicas and syncs as it says; counts how often it is asked."""

    def __init__(self, *, replicas: int = 1, sync: bool = True) -> None:
        self.replicas, self.sync, self.asked = replicas, sync, 0

    async def facts(self) -> dict[str, str | bool]:
        self.asked += 1
        return {"sync": "always" if self.sync else "unknown: nobody can tell", "sync_always": self.sync}

    async def most_replicas(self) -> int:
        self.asked += 1
        return self.replicas


def tenant(name: str, log: dict[str, object] | None = None) -> Resource:
    spec = {} if log is None else {"log": log}
    found, faults = validate_resource({"apiVersion": "agentos/v1", "kind": "Tenant", "metadata": {"name": name}, "spec": spec})
    assert found is not None, faults
    return found


def test_what_is_declared_is_read() -> None:
    """Each field by itself, the rest as the schema's defaults have it; a tenant that is not declared has the defaults."""
    declared = [tenant("acme", {"replicas": 3}), tenant("globex", {"requireSync": True}), tenant("plain")]
    assert log_terms(declared, "acme") == LogTerms(3)
    assert log_terms(declared, "globex") == LogTerms(1, require_sync=True)
    assert log_terms(declared, "plain") == log_terms(declared, "default") == UNDECLARED == LogTerms(1, require_sync=False)


@pytest.mark.parametrize("replicas", [0, 2, 4, 7, "3", True])
def test_replicas_are_one_three_or_five(replicas: object) -> None:
    """An even number survives no more than the odd one below it; JetStream keeps five at most."""
    manifest = {"apiVersion": "agentos/v1", "kind": "Tenant", "metadata": {"name": "a"}, "spec": {"log": {"replicas": replicas}}}
    found, faults = validate_resource(manifest)
    assert found is None
    assert any("replicas" in str(fault) for fault in faults)


async def test_a_server_that_can_is_let_be() -> None:
    """What it can hold passes; where nothing is declared it is not even asked."""
    await require_terms(Server(replicas=5), [tenant("acme", {"replicas": 5, "requireSync": True})])
    idle = Server(sync=False)
    await require_terms(idle, [tenant("acme"), tenant("globex", {"replicas": 1})])
    assert idle.asked == 0


async def test_replicas_beyond_the_server_are_refused() -> None:
    """With the tenant, the field and what to do; nothing is passed over because another tenant is in order."""
    with pytest.raises(UsageError, match="tenant globex declares 3") as caught:
        await require_terms(Server(), [tenant("acme"), tenant("globex", {"replicas": 3})])
    assert caught.value.where == "Tenant/globex spec.log.replicas"
    assert "replicas: 1" in caught.value.mend


async def test_a_server_that_does_not_prove_its_sync_is_refused() -> None:
    """Unknown is no."""
    with pytest.raises(UsageError, match="proves nothing: unknown") as caught:
        await require_terms(Server(sync=False), [tenant("acme", {"requireSync": True})])
    assert caught.value.where == "Tenant/acme spec.log.requireSync"
