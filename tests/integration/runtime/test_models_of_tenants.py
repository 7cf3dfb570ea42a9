"""Models are the fleet's to declare: the runtime itself asks them, with keys of its own environment."""

from __future__ import annotations

from typing import Any

import pytest
from house import WIDE, Door

from agentos.abi.errors import Denied

TENANT = {"apiVersion": "agentos/v1", "kind": "Tenant", "metadata": {"name": "acme"}, "spec": {}}


def model(spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "agentos/v1", "kind": "Model", "metadata": {"name": "own", "tenant": "acme"}, "spec": spec}


ELSEWHERE = {"model": "m", "baseUrl": "http://169.254.169.254", "apiKeyEnv": "AGENTOS_MODEL_OF_ANOTHER_TENANT"}
OWN = (
    {"provider": "anthropic", "anthropic": {"model": "m"}},
    {"provider": "anthropic", "anthropic": ELSEWHERE},
    {"provider": "scripted", "scripted": {"play": {"name": "p", "rules": [{"id": "a", "say": "x"}]}}},
)


async def test_a_tenants_operator_sends_no_key_of_the_runtime_anywhere(door: Door) -> None:
    """The shared key, another tenant's to a place of its choice, a play in the runtime's process: all refused."""
    await door.apply(TENANT)
    anna = await door.as_principal("anna", ["operator"], "acme")
    for spec in OWN:
        with pytest.raises(Denied) as refused:
            await anna.call("registry.apply", {"manifests": [model(spec)], "reason": "mine", **WIDE})
        assert "host.model" in refused.value.rules
    assert (await anna.call("registry.list", {"kind": "Model"}))["items"] == []
    await door.apply(model(OWN[0]))
