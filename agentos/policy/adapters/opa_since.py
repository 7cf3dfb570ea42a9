"""What a server of an older OPA cannot do, told by file and line before it is given anything.

OPA would refuse such a bundle on its own machine, where nobody looks, and keep the one before. The table is small, because
Rego v1 began with OPA 1.0; a test holds it to the capabilities that the pinned `opa` knows of every version.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.errors import PolicyError
from agentos.policy import syntax
from agentos.policy.adapters import opa
from agentos.policy.port import Module
from agentos.policy.source import Source

OLDEST: Final = (1, 6, 0)
"""The oldest OPA that reads all of the syntax of Rego but what `BUILTINS` and template strings need."""

TEMPLATE_STRINGS: Final = (1, 12, 0)
"""The first OPA that reads `$"…{x}…"`."""

BUILTINS: Final = {
    "array.flatten": (1, 13, 0),
    "io.jwt.verify_eddsa": (1, 8, 0),
    "strings.split_n": (1, 19, 0),
    "uri.is_valid": (1, 16, 0),
    "uri.parse": (1, 16, 0),
}
"""The first OPA that has a builtin, for those that came after `OLDEST`."""

_VERSION: Final = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")


def refuse_newer(modules: Sequence[Module], version: str) -> None:
    """Raise PolicyError, with file and line, for what an OPA of `version` (`1.6.0`) does not have.

    A version that is no version (a build of one's own) is let pass: its answers still count only from the right revision.
    """
    found = _VERSION.match(version)
    if found is None:
        return
    there = int(found[1]), int(found[2]), int(found[3])
    if there < OLDEST:
        raise PolicyError(
            f"the policy server is OPA {version}, which does not read these policies",
            where=f"{modules[0].path}:1" if modules else None,
            mend=f"run OPA {_written(OLDEST)} or newer there",
        )
    for module in modules:
        for line, what, since in _needs(module):
            if since > there:
                raise PolicyError(
                    f"the policy server is OPA {version}, and {what} came with {_written(since)}",
                    where=f"{module.path}:{line}",
                    mend="write it without, or run a newer OPA there",
                )


def _needs(module: Module) -> Iterator[tuple[int, str, tuple[int, int, int]]]:
    tree = opa.parse(module)
    source = Source(module.source, tree)
    for name in sorted({ref.dotted() for ref in syntax.refs(syntax.without_package(tree))} & BUILTINS.keys()):
        head, *steps = name.split(".")
        yield source.path(head, tuple(steps))[0].line, name, BUILTINS[name]
    if _has_template(tree):
        yield source.first(r"\$[\"`]").line, "a template string", TEMPLATE_STRINGS


def _has_template(tree: Json) -> bool:
    return any(node.get("type") == "templatestring" for node in syntax.nodes(tree))


def _written(version: tuple[int, int, int]) -> str:
    return ".".join(map(str, version))
