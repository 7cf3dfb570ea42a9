"""The MCP gateway: an agent's tools for clients that speak the Model Context Protocol, every call through the gate.

A client of MCP is a brain like any other. It is the agent that the operator has declared, no more: the gateway has the identity
of a principal and asks the runtime by its verbs; what is allowed is decided there, recorded there, and nothing is decided here.

>>> gateway = Gateway(Upstream(client), "desk")                               # doctest: +SKIP
>>> await stdio.over_stdio(server.server_of(gateway))                         # doctest: +SKIP
"""

from __future__ import annotations

from agentos.gateway.desk import Gateway
from agentos.gateway.upstream import Upstream

__all__ = ["Gateway", "Upstream"]
