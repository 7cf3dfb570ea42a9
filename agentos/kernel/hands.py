"""Hands: what a call is given to act with, resolved from the declarations that its turn runs under.

The sandbox of a process is the one that policy obliges to, else that of the tool, else that of the agent, else `default`. One
that is named and not declared is none: the call is denied before it is made.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Final

from agentos.abi.canonical import Json
from agentos.credentials.reference import SecretRef
from agentos.drivers.port import ToolSpec, starts_process
from agentos.kernel import obligations
from agentos.kernel.port import Configuration
from agentos.kernel.ruling import Ruling
from agentos.projections.session import Call, SessionState, Step
from agentos.sandbox.profile import DEFAULT, Profile, standard

NO_HANDS: Final[Mapping[str, Json]] = MappingProxyType({})
"""What is told of a call that acts with none."""

_ACTED: Final = frozenset({Step.ALLOWED, Step.FINISHED, Step.FAILED, Step.UNKNOWN})


def sandbox_name(tool: ToolSpec, agent: str, configuration: Configuration, ruling: Ruling) -> str:
    """The name of the sandbox that a process of the call works in."""
    return obligations.sandbox(ruling) or _declared(tool, agent, configuration)


def asked_in(tool: ToolSpec, agent: str, configuration: Configuration, call: Call) -> Profile:
    """The sandbox in which a process is asked what came of a lost call: that of the call."""
    obliged = next((str(one.fields["profile"]) for one in obligations.binding(call, "sandbox")), None)
    return profile(obliged or _declared(tool, agent, configuration), configuration) or standard()


def _declared(tool: ToolSpec, agent: str, configuration: Configuration) -> str:
    spec = configuration.agents.get(agent)
    return tool.sandbox or (spec.sandbox if spec is not None else None) or DEFAULT


def profile(name: str, configuration: Configuration) -> Profile | None:
    """The sandbox of that name; None if it is not declared."""
    found = configuration.sandboxes.get(name)
    return standard() if found is None and name == DEFAULT else found


def able(tool: ToolSpec | None, configuration: Configuration) -> Collection[str]:
    """The names of the sandboxes that calls of a tool can be made in: none, unless it starts a process."""
    return {DEFAULT, *configuration.sandboxes} if tool is not None and starts_process(tool) else ()


def secrets(tool: ToolSpec, configuration: Configuration) -> Mapping[str, SecretRef]:
    """The references that the credentials of the tool name, those that are declared."""
    named = (credential.secret for credential in tool.credentials)
    return {name: configuration.secrets[name] for name in named if name in configuration.secrets}


def lent(state: SessionState, configuration: Configuration, besides: str) -> Mapping[str, SecretRef]:
    """The declared Secrets that calls of the session `besides` this one may have been lent, by name."""
    agent = configuration.agents.get(state.agent)
    tools = (configuration.tools.get(name) for name in (agent.tools if agent is not None else ()))
    # Most agents have none of them, and then nothing is looked for.
    keyed = {tool.name: tool for tool in tools if tool is not None and tool.credentials}
    if not keyed:
        return {}
    used = {call.tool for call in state.calls.values() if call.tool in keyed and call.step in _ACTED and call.call != besides}
    found: dict[str, SecretRef] = {}
    for name in used:
        found |= secrets(keyed[name], configuration)
    return found


def settled(ruling: Ruling, tool: ToolSpec | None, agent: str, configuration: Configuration) -> Ruling:
    """The ruling, denied if the sandbox of its process is not declared."""
    if tool is None or not starts_process(tool):
        return ruling
    name = sandbox_name(tool, agent, configuration, ruling)
    if profile(name, configuration) is not None:
        return ruling
    return ruling.denied("sandbox", f"sandbox {name}, which tool {tool.name} works in, is not declared")


def acted(told: Mapping[str, Json]) -> dict[str, Json]:
    """The field `acted` of an outcome; no field where a driver has nothing to say."""
    return {"acted": dict(told)} if told else {}


def told(ruling: Ruling, tool: ToolSpec | None, agent: str, configuration: Configuration) -> dict[str, Json]:
    """The field `hands` of a decision that lets a call through; no field for a call that acts with none."""
    if tool is None:
        return {}
    body: dict[str, Json] = {}
    if starts_process(tool):
        found = profile(sandbox_name(tool, agent, configuration, ruling), configuration)
        body["sandbox"] = found.told() if found is not None else None
    if tool.credentials:
        body["credentials"] = sorted({credential.secret for credential in tool.credentials})
    return {"hands": body} if body else {}
