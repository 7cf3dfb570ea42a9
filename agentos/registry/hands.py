"""What a change permits the hands of tools that they could not do before: sentences for `registry.widening`.

A Sandbox that shows more, is set apart less, may use or reach more; a Secret that may be sent to more hosts or is kept
elsewhere; a Tool that works in another sandbox, or is given more. A new Sandbox or Secret is used by nobody until a Tool or Agent
names it, and that is told there; only `default` is used without being named.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.ids import DEFAULT_TENANT
from agentos.abi.resource import Key, Resource
from agentos.credentials.reference import SOURCES
from agentos.registry.diff import same
from agentos.sandbox.profile import DEFAULT, Isolation, Profile, profile_of

Spec = Mapping[str, Json]

_ACCESS: Final = ("none", "read", "write")
_LIMITS: Final = (
    ("memory_mib", "MiB of memory"),
    ("processes", "processes"),
    ("cpu_s", "s of CPU time"),
    ("file_mib", "MiB in one file"),
    ("tmp_mib", "MiB of temporary files"),
    ("open_files", "open files"),
)


def of_sandbox(name: str, before: Spec | None, after: Spec | None) -> Iterator[str]:
    """What a Sandbox lets processes do that it did not; the one called `default` is there where none is declared."""
    if name == DEFAULT:
        before, after = before or {}, after or {}
    if after is None:
        return
    if before is None:
        if after.get("isolation") == Isolation.UNSAFE_NONE:
            yield "sets its processes apart from nothing (isolation unsafe-none)"
        return
    old, new = (profile_of(Resource(Key("Sandbox", DEFAULT_TENANT, name), {}, {}, dict(spec))) for spec in (before, after))
    yield from _isolation(old, new)
    if _ACCESS.index(new.workspace) > _ACCESS.index(old.workspace):
        yield f"lets its processes {new.workspace} the workspace (was {old.workspace})"
    yield from _mounts(old, new)
    if dict(old.env) != dict(new.env):
        changed = sorted(key for key in {*old.env, *new.env} if old.env.get(key) != new.env.get(key))
        yield f"gives its processes other variables: {', '.join(changed)}"
    yield from _network(before.get("network"), after.get("network"))
    for field, what in _LIMITS:
        was, now = getattr(old.limits, field), getattr(new.limits, field)
        if was is not None and (now is None or now > was):
            yield f"lets its processes use {'any number of' if now is None else now} {what} (was {was})"
    if new.idle_s > old.idle_s:
        yield f"keeps what serves several calls for {new.idle_s} s (was {old.idle_s})"


def _isolation(old: Profile, new: Profile) -> Iterator[str]:
    if old.isolation is Isolation.UNSAFE_NONE:
        return
    if new.isolation is not old.isolation:
        yield f"sets its processes apart by {new.isolation} (was {old.isolation})"
    elif (old.image, old.engine, old.runtime) != (new.image, new.engine, new.runtime):
        yield f"runs {_container(new)} (was {_container(old)})"


def _container(profile: Profile) -> str:
    parts = [profile.image, profile.engine and f"with {profile.engine}", profile.runtime and f"under {profile.runtime}"]
    return " ".join(part for part in parts if part)


def _mounts(old: Profile, new: Profile) -> Iterator[str]:
    there = {mount.at: mount for mount in old.mounts}
    for mount in new.mounts:
        known = there.get(mount.at)
        if known is None or known.path != mount.path:
            yield f"shows {mount.path} of the host at {mount.at}{', to be changed' if mount.write else ''}"
        elif mount.write and not known.write:
            yield f"lets its processes change {mount.path} of the host"


def _network(before: Spec | None, after: Spec | None) -> Iterator[str]:
    if after is None:
        return
    known = before.get("allow", ()) if before is not None else ()
    for place in after["allow"]:
        if not any(_covers(other, place) for other in known):
            yield f"lets its processes reach {_place(place)}"
    private = [one for one in after.get("private", ()) if before is None or one not in before.get("private", ())]
    if private:
        yield f"lets them reach {', '.join(private)}, which is not of the public internet"
    was, now = (side is not None and side.get("inspect", False) for side in (before, after))
    if before is not None and was and not now:
        yield "no longer looks into what its processes send"
    elif now and not was:
        yield "ends TLS of its processes, sees what they send, and can put credentials in"


def _covers(one: Spec, other: Spec) -> bool:
    """Whether all of `other`'s requests are `one`'s; names below a name are not told apart."""
    if one["host"] != other["host"] or not set(other.get("ports", [443])) <= set(one.get("ports", [443])):
        return False
    return all(name not in one or (name in other and set(other[name]) <= set(one[name])) for name in ("methods", "paths"))


def _place(one: Spec) -> str:
    ports = ", ".join(str(port) for port in one.get("ports", [443]))
    limits = [f"{name} {', '.join(one[name])}" for name in ("methods", "paths") if name in one]
    return " ".join([f"{one['host']} on port {ports}", *limits])


def of_secret(before: Spec | None, after: Spec | None) -> Iterator[str]:
    """A Secret that may be sent further, or whose value comes from elsewhere."""
    if before is None or after is None:
        return
    old, new = _kept(before), _kept(after)
    if old != new:
        yield f"is another one: kept in {new} (was {old})"
    hosts = [host for host in after.get("hosts", ()) if host not in before.get("hosts", ())]
    if hosts:
        yield f"may be sent to {', '.join(hosts)} too"
    was, now = before.get("leaseSeconds", 3600), after.get("leaseSeconds", 3600)
    if now > was:
        yield f"may be used for {now} s once it was fetched (was {was})"


def _kept(secret: Spec) -> str:
    source = next(name for name in SOURCES if name in secret)
    where = secret[source]
    return f"{source} {where if isinstance(where, str) else json.dumps(where, ensure_ascii=False, sort_keys=True)}"


def of_tool(before: Spec, after: Spec) -> Iterator[str]:
    """Where the process of a Tool works, and what it is given."""
    yield from in_sandbox("works", "that of the agent", before, after)
    known = before.get("credentials", [])
    for one in after.get("credentials", []):
        if not any(same(one, other) for other in known):
            place = next(place for place in ("env", "file", "header") if place in one)
            yield f"is given secret {one['secret']} as {place} {one[place]}"
    if after.get("reversible") is True and before.get("reversible") is not True:
        yield "is declared as reversible"


def in_sandbox(what: str, unnamed: str, before: Spec, after: Spec) -> Iterator[str]:
    """Another sandbox. Which of the two gives more is not known here: any other one counts."""
    old, new = before.get("sandbox", unnamed), after.get("sandbox", unnamed)
    if old != new:
        yield f"{what} in sandbox {new} (was {old})"


def of_harness(before: Spec, after: Spec) -> Iterator[str]:
    """Another program that drives the sessions of an Agent, or the same with other things of the host around it."""
    old, new = before.get("harness", {}), after.get("harness", {})
    if new and not same(old.get("command"), new.get("command")):
        yield f"is driven by the program {json.dumps(new['command'], ensure_ascii=False)}"
    if new:
        yield from in_sandbox("its harness works", "that of harnesses", old, new)


def of_gateway(before: Spec, after: Spec) -> Iterator[str]:
    """Who else may drive the sessions of an Agent from outside."""
    old, new = (side.get("gateway", {}).get("principals", ()) for side in (before, after))
    for name in sorted(set(new) - set(old)):
        yield f"may be driven from outside by principal {name}"


def driver_text(driver: Spec) -> str:
    """A driver in few words."""
    if "delegate" in driver:
        return f"delegate to {', '.join(driver['delegate'].get('agents', []))}"
    if "builtin" in driver:
        return f"builtin {driver['builtin'].get('primitive')}"
    if "exec" in driver:
        return f"exec `{' '.join(_word(word) for word in driver['exec']['command'])}`{_given(driver['exec'])}"
    if "http" in driver:
        http = driver["http"]
        asked = http.get("openapi", {}).get("operation") or f"{http.get('method', 'GET')} {http.get('path', '')}".rstrip()
        return f"http {asked} of {http['url']}{_given(http)}"
    mcp = driver.get("mcp", {})
    server = mcp.get("server", {})
    at = server["url"] if "url" in server else f"`{' '.join(server.get('command', []))}`"
    return f"mcp {mcp.get('tool')} of {at}{_given({**mcp, **server})}"


def _word(word: Json) -> str:
    if isinstance(word, str):
        return word
    flag = word.get("flag", "")
    return f"{flag}{'' if not flag or flag.endswith('=') else ' '}{{{word['arg']}}}"


def _given(part: Spec) -> str:
    told = ""
    if part.get("env"):
        told += f" with {', '.join(sorted(part['env']))} in its environment"
    if part.get("private"):
        told += f" also in {', '.join(part['private'])}"
    if part.get("workspaceArgs"):
        told += f" confined in {', '.join(part['workspaceArgs'])}"
    return told
