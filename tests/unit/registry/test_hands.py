"""What a change of a Sandbox, a Secret, or of what a Tool is given permits."""

from __future__ import annotations

from typing import Any

import pytest

from agentos.abi.resource import Key, Resource
from agentos.registry.hands import driver_text
from agentos.registry.related import related
from agentos.registry.state import Entry, State
from agentos.registry.widening import widens


def resource(kind: str, spec: dict[str, Any] | None, name: str = "r") -> Resource | None:
    return None if spec is None else Resource(Key(kind, "default", name), {}, {}, spec)


BOX = {"isolation": "container", "image": "a", "runtime": "runsc"}
GITHUB = {"host": "api.github.com", "methods": ["GET"], "paths": ["/repos/**"]}
NET = {"network": {"allow": [GITHUB, {"host": "pypi.org", "ports": [443, 8443]}], "inspect": True, "private": ["10.1.0.0/16"]}}
MOUNT = {"path": "/opt/models", "at": "/models"}
SECRET = {"env": "GITHUB_TOKEN", "hosts": ["api.github.com"], "leaseSeconds": 60}
TOOL = {
    "description": "d",
    "effect": "write",
    "driver": {"exec": {"command": ["sort"]}},
    "sandbox": "offline",
    "credentials": [{"secret": "github", "env": "TOKEN"}],
}
AGENT = {"model": "m", "instructions": "i", "governance": {"owner": "o", "purpose": "p", "risk": "high"}}


def to(*allow: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"network": {**NET["network"], "allow": list(allow), **more}}


@pytest.mark.parametrize(
    ("kind", "before", "after", "said"),
    [
        ("Agent", None, {**AGENT, "gateway": {"principals": ["bo"]}}, "may be driven from outside by principal bo"),
        ("Agent", AGENT, {**AGENT, "gateway": {"principals": ["bo"]}}, "may be driven from outside by principal bo"),
        ("Agent", {**AGENT, "gateway": {"principals": ["bo"]}}, AGENT, None),
        ("Agent", AGENT, {**AGENT, "gateway": {"idleSeconds": 9}}, None),
        ("Sandbox", None, {}, None),
        ("Sandbox", None, {"isolation": "unsafe-none"}, "sets its processes apart from nothing"),
        ("Sandbox", {}, None, None),
        ("Sandbox", {}, {"isolation": "bubblewrap", "workspace": "write", "mounts": [], "idleSeconds": 300}, None),
        ("Sandbox", {}, {"isolation": "unsafe-none"}, "apart by unsafe-none (was bubblewrap)"),
        ("Sandbox", {}, BOX, "apart by container (was bubblewrap)"),
        ("Sandbox", BOX, {}, "apart by bubblewrap (was container)"),
        ("Sandbox", {"isolation": "unsafe-none"}, {}, None),
        ("Sandbox", BOX, {**BOX, "image": "b"}, "runs b under runsc (was a under runsc)"),
        ("Sandbox", BOX, {"isolation": "container", "image": "a"}, "runs a (was a under runsc)"),
        ("Sandbox", {"workspace": "none"}, {"workspace": "read"}, "read the workspace (was none)"),
        ("Sandbox", {"workspace": "read"}, {}, "write the workspace (was read)"),
        ("Sandbox", {}, {"workspace": "none"}, None),
        ("Sandbox", {}, {"mounts": [MOUNT]}, "shows /opt/models of the host at /models"),
        ("Sandbox", {"mounts": [MOUNT]}, {"mounts": [{**MOUNT, "write": True}]}, "change /opt/models of the host"),
        ("Sandbox", {"mounts": [MOUNT]}, {"mounts": [{**MOUNT, "path": "/opt"}]}, "shows /opt of the host at /models"),
        ("Sandbox", {"mounts": [{**MOUNT, "write": True}]}, {"mounts": [MOUNT]}, None),
        ("Sandbox", {"mounts": [MOUNT]}, {}, None),
        ("Sandbox", {"env": {"A": "1", "B": "1"}}, {"env": {"A": "1", "B": "2"}}, "other variables: B"),
        ("Sandbox", {"env": {"A": "1"}}, {}, "other variables: A"),
        ("Sandbox", {}, {"network": {"allow": [{"host": "pypi.org"}]}}, "reach pypi.org on port 443"),
        ("Sandbox", NET, {}, None),
        ("Sandbox", NET, to(GITHUB), None),
        ("Sandbox", NET, to({**GITHUB, "methods": ["GET", "POST"]}), "methods GET, POST paths /repos/**"),
        ("Sandbox", NET, to({"host": "api.github.com", "methods": ["GET"]}), "api.github.com on port 443 methods GET"),
        ("Sandbox", NET, to({**GITHUB, "ports": [80]}), "api.github.com on port 80"),
        ("Sandbox", NET, to({"host": "pypi.org"}), None),
        ("Sandbox", NET, to({"host": "*.pypi.org"}), "reach *.pypi.org"),
        ("Sandbox", NET, to(GITHUB, private=["10.1.0.0/16", "10.2.0.0/16"]), "reach 10.2.0.0/16"),
        ("Sandbox", NET, to(GITHUB, private=[]), None),
        ("Sandbox", NET, to(GITHUB, inspect=False), "no longer looks into"),
        ("Sandbox", to(GITHUB, inspect=False), to(GITHUB), "can put credentials in"),
        ("Sandbox", {}, {"limits": {"memoryMiB": 1025}}, "1025 MiB of memory (was 1024)"),
        ("Sandbox", {"limits": {"processes": 4}}, {}, "256 processes (was 4)"),
        ("Sandbox", {"limits": {"cpuSeconds": 4}}, {}, "any number of s of CPU time (was 4)"),
        ("Sandbox", {}, {"limits": {"cpuSeconds": 4, "openFiles": 16, "fileMiB": 1, "tmpMiB": 1}}, None),
        ("Sandbox", {}, {"idleSeconds": 301}, "for 301 s (was 300)"),
        ("Secret", None, SECRET, None),
        ("Secret", SECRET, None, None),
        ("Secret", SECRET, {**SECRET, "hosts": ["api.github.com", "*.evil.example"]}, "sent to *.evil.example too"),
        ("Secret", {"env": "GITHUB_TOKEN", "leaseSeconds": 60}, SECRET, "sent to api.github.com too"),
        ("Secret", SECRET, {"env": "GITHUB_TOKEN", "leaseSeconds": 60}, None),
        ("Secret", SECRET, {**SECRET, "env": "OTHER"}, "kept in env OTHER (was env GITHUB_TOKEN)"),
        ("Secret", SECRET, {**SECRET, "leaseSeconds": 61}, "61 s once it was fetched (was 60)"),
        ("Secret", SECRET, {**SECRET, "leaseSeconds": 59, "description": "x"}, None),
        ("Tool", TOOL, {**TOOL, "sandbox": "online"}, "works in sandbox online (was offline)"),
        ("Tool", TOOL, {key: TOOL[key] for key in TOOL if key != "sandbox"}, "works in sandbox that of the agent (was offline)"),
        ("Tool", TOOL, {**TOOL, "credentials": []}, None),
        ("Tool", TOOL, {**TOOL, "credentials": [{"secret": "other", "env": "TOKEN"}]}, "is given secret other as env TOKEN"),
        ("Tool", TOOL, {**TOOL, "credentials": [{"secret": "github", "file": "t"}]}, "is given secret github as file t"),
        ("Tool", TOOL, {**TOOL, "reversible": True}, "declared as reversible"),
        ("Tool", {**TOOL, "reversible": True}, {**TOOL, "reversible": False}, None),
        (
            "Tool",
            TOOL,
            {**TOOL, "driver": {"exec": {"command": ["sort", "-r"]}}},
            "its driver is exec `sort -r` (was exec `sort`)",
        ),
        ("Agent", AGENT, {**AGENT, "sandbox": "online"}, "its tools work in sandbox online (was default)"),
        ("Agent", AGENT, {**AGENT, "sandbox": "default"}, None),
    ],
)
def test_what_widens(kind: str, before: Any, after: Any, said: str | None) -> None:
    """Each way of widening is said in a sentence; what gives less, or the same, is not."""
    sentences = widens(resource(kind, before), resource(kind, after))
    assert [str(said) in sentence for sentence in sentences] == ([] if said is None else [True]), sentences


def test_the_sandbox_that_is_used_without_being_named() -> None:
    """Declaring `default`, and deleting it, is judged against what holds where nobody declares it."""
    narrow, wide = ({"workspace": access} for access in ("none", "write"))
    assert widens(None, resource("Sandbox", narrow, "default")) == ()
    assert "write the workspace (was none)" in widens(resource("Sandbox", narrow, "default"), None)[0]
    assert "shows /opt" in widens(None, resource("Sandbox", {**wide, "mounts": [MOUNT]}, "default"))[0]
    assert widens(resource("Sandbox", {"mounts": [MOUNT]}, "default"), None) == ()


@pytest.mark.parametrize(
    ("driver", "text"),
    [
        ({"builtin": {"primitive": "read"}}, "builtin read"),
        ({"delegate": {"agents": ["a", "b"]}}, "delegate to a, b"),
        (
            {
                "exec": {
                    "command": ["grep", "--", {"arg": "p"}, {"arg": "n", "flag": "-n"}, {"arg": "s", "flag": "--since="}],
                    "env": {"LC_ALL": "C"},
                    "workspaceArgs": ["p"],
                }
            },
            "exec `grep -- {p} -n {n} --since={s}` with LC_ALL in its environment confined in p",
        ),
        (
            {"http": {"url": "https://x", "path": "/{a}", "private": ["10.0.0.0/8"]}},
            "http GET /{a} of https://x also in 10.0.0.0/8",
        ),
        ({"http": {"url": "https://x", "openapi": {"document": {}, "operation": "ping"}}}, "http ping of https://x"),
        ({"mcp": {"server": {"url": "https://x/mcp"}, "tool": "go"}}, "mcp go of https://x/mcp"),
        (
            {"mcp": {"server": {"command": ["srv", "-x"], "env": {"TZ": "UTC"}}, "tool": "go", "workspaceArgs": ["p"]}},
            "mcp go of `srv -x` with TZ in its environment confined in p",
        ),
    ],
)
def test_a_driver_in_few_words(driver: dict[str, Any], text: str) -> None:
    """What is run, with what, and where to."""
    assert driver_text(driver) == text


def test_who_uses_a_sandbox_and_a_secret() -> None:
    """Tools and agents that name one are told with it, and the built-in sandbox is nothing that is declared."""
    found = [resource("Sandbox", {}, "offline"), resource("Secret", SECRET, "github"), resource("Tool", TOOL, "sort")]
    found.append(resource("Agent", {**AGENT, "sandbox": "default"}, "triage"))
    entries = {one.key: Entry(one, one.digest(), "principal/al", 1) for one in found if one is not None}
    state = State.of(1, entries)

    def told(key: str) -> set[tuple[str, str]]:
        return {(row["relation"], row["key"]) for row in related(state, Key.parse(key))}

    assert told("sandbox/default/offline") == {("used by", "tool/default/sort")}
    assert told("secret/default/github") == {("used by", "tool/default/sort")}
    assert told("tool/default/sort") == {("names", "sandbox/default/offline"), ("names", "secret/default/github")}
    assert ("names", "sandbox/default/default") not in told("agent/default/triage")
