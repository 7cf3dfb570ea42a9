"""Obligations: what a decision binds the runtime to do beside letting a call through, holding it or stopping it.

A rule gives them with its result, the decision carries them with the rule's id, the gate meets them, and the log says so. A kind
that is not listed here, or fields that its kind does not have, make the whole decision a denial: nothing is overlooked.

    redact     in, path          the value at the JSON Pointer (RFC 6901; `*` stands for every element) becomes `[redacted]`
    mask       in, path, keep    every character of the text there but the last `keep` becomes `*`
    cap        path, maximum     a larger number in the arguments becomes `maximum`
    sandbox    profile           the call is acted on inside this sandbox profile and nowhere else
    label      labels            the session carries these labels from now on
    rate       name, limit, seconds, per   at most `limit` allowed calls in any `seconds`, counted per session, agent or tenant
    uses       grants [{name, digest, maximum}]   the first of these grants with a use left pays for the call
    approvers  count             so many different people approve the call
    notify     to, text          an event for these recipients

`in` is `args` (the call is decided again with the arguments so rewritten) or `result`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from agentos.abi.canonical import MAX_INTEGER, Json

REDACTED: Final = "[redacted]"

MOST: Final = 100
"""Obligations that one decision may carry."""


@dataclass(frozen=True, slots=True)
class Obligation:
    """One obligation: its kind, the id of the rule that gave it, and the fields of its kind."""

    kind: str
    rule: str
    fields: Mapping[str, Json] = field(hash=False)

    def to_dict(self) -> dict[str, Json]:
        """The JSON shape of `schemas/v1/policy-decision.json`."""
        return {"kind": self.kind, "rule": self.rule, **self.fields}


def _text(value: Json) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 1024


def _texts(value: Json) -> bool:
    return isinstance(value, list) and 0 < len(value) <= MOST and all(map(_text, value))


def _whole(value: Json) -> bool:
    return _number(value) and value >= 0


def _positive(value: Json) -> bool:
    return _number(value) and value > 0


def _number(value: Json) -> bool:
    """What the log can hold as it is."""
    return type(value) is int and abs(value) <= MAX_INTEGER


def _pointer(value: Json) -> bool:
    """https://www.rfc-editor.org/rfc/rfc6901#section-3, at least one step."""
    return _text(value) and value.startswith("/") and "~" not in value.replace("~0", "").replace("~1", "")


def _side(value: Json) -> bool:
    return value in ("args", "result")


def _counted(value: Json) -> bool:
    return value in ("session", "agent", "tenant")


def _grants(value: Json) -> bool:
    return isinstance(value, list) and 0 < len(value) <= MOST and all(map(_limited, value))


def _limited(value: Json) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"name", "digest", "maximum"}
        and _text(value["name"])
        and _text(value["digest"])
        and _positive(value["maximum"])
    )


Check = Callable[[Json], bool]

KINDS: Final[Mapping[str, Mapping[str, Check]]] = {
    "redact": {"in": _side, "path": _pointer},
    "mask": {"in": _side, "path": _pointer, "keep": _whole},
    "cap": {"path": _pointer, "maximum": _number},
    "sandbox": {"profile": _text},
    "label": {"labels": _texts},
    "rate": {"name": _text, "limit": _whole, "seconds": _positive, "per": _counted},
    "uses": {"grants": _grants},
    "approvers": {"count": _positive},
    "notify": {"to": _texts, "text": _text},
}
"""The fields of each kind, all of them required, and what each may be."""

REWRITES: Final = frozenset({"redact", "mask", "cap"})
"""Kinds that change the arguments or the result of a call."""


def parse_obligation(value: Json) -> Obligation | None:
    """Read one obligation of a decision; None for what is none that this runtime knows."""
    if not isinstance(value, dict) or not _text(value.get("rule")):
        return None
    kind = value.get("kind")
    wanted = KINDS.get(kind) if isinstance(kind, str) else None
    if wanted is None or set(value) != {"kind", "rule", *wanted}:
        return None
    if not all(check(value[name]) for name, check in wanted.items()):
        return None
    return Obligation(str(kind), value["rule"], {name: value[name] for name in wanted})
