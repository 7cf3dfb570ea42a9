"""What the hostile agent is given to work with: tools of every driver, sandboxes, secrets, and grants for all of them.

It is a generous operator who declares this. An agent that may do so much can still not do what no tool was declared for.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rt_servers import SITE

HERE = Path(__file__).resolve().parent
MCP_SERVER = HERE / "rt_mcp_server.py"
PRIVATE = [f"{SITE}/32"]
PYTHON = sys.executable
TEXT = {"type": "string"}
NOTHING: dict[str, Any] = {"type": "object", "properties": {}}


def declaration(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "agentos/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def tool(name: str, driver: dict[str, Any], *, effect: str = "write", **more: Any) -> dict[str, Any]:
    return declaration("Tool", name, {"description": f"It does {name}.", "effect": effect, "driver": driver, **more})


def schema(*names: str, **others: Any) -> dict[str, Any]:
    properties = {**dict.fromkeys(names, TEXT), **others}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def builtin() -> list[dict[str, Any]]:
    effects = {"read": "read", "list": "read", "search": "read", "write": "write"}
    own = [tool(name, {"builtin": {"primitive": name}}, effect=effect) for name, effect in effects.items()]
    shared = [
        tool(f"space-{name}", {"builtin": {"primitive": name, "space": "shared"}}, effect=effects[name])
        for name in ("read", "write")
    ]
    return own + shared


def exec_tools() -> list[dict[str, Any]]:
    """Programs that it may send code to, and some that take words of it."""
    show = "import json, sys; print(json.dumps(sys.argv[1:]))"
    several = {"type": "array", "items": TEXT}
    return [
        tool(
            "python", {"exec": {"command": [PYTHON, "-I", "-"], "stdin": "code"}}, inputSchema=schema("code"), timeoutSeconds=20
        ),
        tool("hasty", {"exec": {"command": [PYTHON, "-I", "-"], "stdin": "code"}}, inputSchema=schema("code"), timeoutSeconds=2),
        tool(
            "reader",
            {"exec": {"command": [PYTHON, "-I", "-"], "stdin": "code"}},
            inputSchema=schema("code"),
            sandbox="read-only",
            timeoutSeconds=20,
        ),
        tool(
            "blind",
            {"exec": {"command": [PYTHON, "-I", "-"], "stdin": "code"}},
            inputSchema=schema("code"),
            sandbox="no-workspace",
        ),
        tool(
            "net",
            {"exec": {"command": [PYTHON, "-I", "-"], "stdin": "code"}},
            effect="external",
            inputSchema=schema("code"),
            sandbox="net",
            timeoutSeconds=20,
        ),
        tool(
            "inspected",
            {"exec": {"command": [PYTHON, "-I", "-"], "stdin": "code"}},
            effect="external",
            inputSchema=schema("code"),
            sandbox="inspected",
            timeoutSeconds=20,
        ),
        tool("shell", {"exec": {"command": ["sh"], "stdin": "script"}}, inputSchema=schema("script"), timeoutSeconds=20),
        tool("words", {"exec": {"command": [PYTHON, "-I", "-c", show, {"arg": "word"}]}}, inputSchema=schema("word")),
        tool(
            "flagged",
            {"exec": {"command": [PYTHON, "-I", "-c", show, {"arg": "word", "flag": "--since"}]}},
            inputSchema=schema("word"),
        ),
        tool("ended", {"exec": {"command": [PYTHON, "-I", "-c", show, "--", {"arg": "word"}]}}, inputSchema=schema("word")),
        tool("many", {"exec": {"command": [PYTHON, "-I", "-c", show, {"arg": "all"}]}}, inputSchema=schema(all=several)),
        tool(
            "anything",
            {"exec": {"command": [PYTHON, "-I", "-c", show, {"arg": "word"}]}},
            inputSchema={"type": "object", "properties": {"word": {}}},
        ),
        tool(
            "count",
            {"exec": {"command": ["wc", "-l", "--", {"arg": "file"}], "workspaceArgs": ["file"]}},
            inputSchema=schema("file"),
        ),
        tool(
            "look",
            {"exec": {"command": ["cat", {"arg": "file"}], "workspaceArgs": ["file"]}},
            inputSchema=schema("file"),
        ),
        tool("find", {"exec": {"command": ["grep", "-r", {"arg": "pattern"}, "."]}}, inputSchema=schema("pattern")),
        tool(
            "unpack",
            {"exec": {"command": ["tar", "-xf", {"arg": "archive"}], "workspaceArgs": ["archive"]}},
            inputSchema=schema("archive"),
        ),
    ]


def http_tools(port: int) -> list[dict[str, Any]]:
    """The site, with redirects followed."""
    url = f"http://good.test:{port}"
    return [
        tool(
            "item",
            {"http": {"url": f"{url}/v1", "private": PRIVATE, "path": "/items/{id}", "query": {"q": "q"}}},
            effect="read",
            inputSchema=schema("id", "q"),
        ),
        tool(
            "follow",
            {"http": {"url": f"{url}/to", "private": PRIVATE, "query": {"at": "at"}, "redirects": 3}},
            effect="read",
            inputSchema=schema("at"),
        ),
        *(
            tool(
                f"site-{name}",
                {"http": {"url": f"{url}/{name}", "private": PRIVATE}},
                effect="read",
                inputSchema=NOTHING,
                timeoutSeconds=2,
            )
            for name in ("slow", "flood", "bomb", "garbage", "headers")
        ),
    ]


def mcp_stdio(how: str, **more: Any) -> dict[str, Any]:
    server = {"command": [PYTHON, "/srv/rt_mcp_server.py", how], **more.pop("server", {})}
    body = {"server": server, "tool": "go", **more.pop("mcp", {})}
    spec = {"effect": "external", "inputSchema": NOTHING, "sandbox": "served", "timeoutSeconds": 4, **more}
    return tool(f"mcp-{how}".replace("_", "-"), {"mcp": body}, **spec)


def mcp_url(how: str, port: int, **more: Any) -> dict[str, Any]:
    server = {"url": f"http://good.test:{port}/mcp/{how}", "private": PRIVATE}
    body = {"server": server, "tool": "go", **more.pop("mcp", {})}
    return tool(f"remote-{how}", {"mcp": body}, effect="external", inputSchema=NOTHING, timeoutSeconds=4, **more)


def sandboxes(port: int) -> list[dict[str, Any]]:
    mounts = [{"path": str(MCP_SERVER), "at": "/srv/rt_mcp_server.py"}]
    small = {"memoryMiB": 256, "processes": 48, "fileMiB": 32, "tmpMiB": 16, "openFiles": 256}
    names = ("good.test", "rebound.test", "metadata.test", "home.test", "mixed.test", "mapped.test")
    allow = [{"host": name, "ports": [port, 80]} for name in names]
    allow += [{"host": address, "ports": [80, port]} for address in ("169.254.169.254", "10.0.0.1", "127.0.0.1", "::1")]
    reach = {"allow": allow, "private": PRIVATE}
    # What is looked into may be limited to methods and paths; a tunnel there is ended here.
    limited = [{"host": "good.test", "ports": [port, 443], "methods": ["GET"], "paths": ["/v1/**", "/echo/**"]}]
    return [
        declaration("Sandbox", "default", {"limits": small}),
        declaration("Sandbox", "read-only", {"workspace": "read", "limits": small}),
        declaration("Sandbox", "no-workspace", {"workspace": "none", "limits": small}),
        declaration("Sandbox", "served", {"limits": small, "mounts": mounts, "idleSeconds": 30}),
        declaration("Sandbox", "net", {"limits": small, "network": reach}),
        declaration(
            "Sandbox", "inspected", {"limits": small, "network": {"allow": limited, "private": PRIVATE, "inspect": True}}
        ),
    ]


def agents(tools: list[str]) -> list[dict[str, Any]]:
    """The hostile agent with all tools, the healthy one beside it, and what they think with."""
    play = {"name": "nothing", "rules": [{"id": "end", "when": "true", "say": "nothing"}]}
    governance = {"owner": "tests", "purpose": "to be held", "risk": "limited"}
    budget = {"calls": 100_000, "tokens": 1_000_000_000}
    common = {"model": "brain", "budget": budget, "governance": governance}
    return [
        declaration("Model", "brain", {"provider": "scripted", "scripted": {"play": play}}),
        declaration("Agent", "attacker", {**common, "instructions": "Get out.", "tools": tools, "delegates": {"maxDepth": 2}}),
        declaration("Agent", "healthy", {**common, "instructions": "Write.", "tools": ["write"]}),
        declaration("ToolGrant", "attacker-may", {"agents": ["attacker"], "tools": tools, "reason": "generous"}),
        declaration("ToolGrant", "healthy-may", {"agents": ["healthy"], "tools": ["write"], "reason": "work"}),
    ]


def everything(port: int, more: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All declarations of the world; `more` are tools, secrets and the like that corpora bring."""
    tools = [*builtin(), *exec_tools(), *http_tools(port), *(one for one in more if one["kind"] == "Tool")]
    others = [one for one in more if one["kind"] != "Tool"]
    ungranted = tool("never-granted", {"builtin": {"primitive": "read"}}, effect="read")
    space = declaration("Tenant", "default", {"spaces": [{"name": "shared"}]})
    offered = [one["metadata"]["name"] for one in tools]
    made = agents(offered)
    made[1]["spec"]["tools"] = [*offered, "never-granted"]
    return [space, *sandboxes(port), *others, *tools, ungranted, *made]
