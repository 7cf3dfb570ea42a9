"""Where the credentials of a tool may go: what its driver can hand over, each place once, and no header that frames a request."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from agentos.abi.canonical import Json
from agentos.manifests.fault import Path, Problem
from agentos.manifests.places import odd_variable

PLACES: Final = ("env", "file", "header")

_FRAMING: Final = frozenset(
    {
        *("connection", "content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"),
        *("proxy-authenticate", "proxy-authorization", "proxy-connection"),
    }
)
"""Headers that say where a request ends and to whom it goes."""

_STEERING: Final = re.compile(
    r"PATH|HOME|IFS|ENV|BASH_ENV|SHELLOPTS|PYTHON.*|PERL5.*|RUBY(OPT|LIB)|NODE_(OPTIONS|PATH|EXTRA_CA_CERTS)|_?JAVA_.*|JDK_.*"
    r"|SSL_CERT.*|GIT_(ASKPASS|CONFIG.*|EDITOR|EXEC_PATH|PROXY.*|SSH.*|SSL.*)|(?i:.*_proxy)"
)
"""Variables that say what programs run, load, trust or ask."""


def starts_a_process(spec: Mapping[str, Json]) -> bool:
    """Whether the driver of a Tool starts a process, and so has a sandbox."""
    driver = spec["driver"]
    return "exec" in driver or "command" in driver.get("mcp", {}).get("server", {})


def check_credentials(spec: Mapping[str, Json]) -> Iterator[Problem]:
    """Problems of the credentials of a Tool, whose spec this is."""
    driver = next(iter(spec["driver"]))
    taken: dict[tuple[str, str], int] = {}
    for index, credential in enumerate(spec.get("credentials", ())):
        here: Path = ("spec", "credentials", index)
        place = next(place for place in PLACES if place in credential)
        if driver in {"builtin", "delegate"}:
            yield Problem("tool.credential", here, f"a {driver} tool uses no credentials", "remove it", at="key")
            continue
        if place != "header" and not starts_a_process(spec):
            message = f"{place} is for tools that start a process, and this one sends requests"
            yield Problem("tool.credential", (*here, place), message, "write header", at="key")
        name = credential[place].lower() if place == "header" else credential[place]
        if name in _FRAMING and place == "header":
            message = f"the header {credential[place]} is the request's own"
            yield Problem("tool.credential", (*here, place), message, "for example Authorization")
        if place == "env" and (reason := odd_variable(name)) is not None:
            yield Problem("tool.credential", (*here, "env"), reason, "name another variable")
        elif place == "env" and _STEERING.fullmatch(name):
            message = f"the variable {name} steers programs, and is no place for a credential"
            yield Problem("tool.credential", (*here, "env"), message, "name another variable")
        if driver == "http":
            continue  # its headers are checked together (`agreement_http`)
        first = taken.setdefault((place, name), index)
        if first != index or name in _declared(spec, place):
            message = f"the {_WORDS[place]} {credential[place]} has another value too"
            yield Problem("tool.credential", (*here, place), message, "remove one of the two")


_WORDS: Final = {"env": "variable", "file": "file", "header": "header"}


def _declared(spec: Mapping[str, Json], place: str) -> set[str]:
    """Names that the driver itself gives a value to, in `place`."""
    driver = spec["driver"]
    process = driver.get("exec") or driver.get("mcp", {}).get("server") or {}
    return set(process.get("env", {})) if place == "env" else {name.lower() for name in process.get("headers", {})}
