"""Rewriting a JSON value as obligations say: `redact`, `mask` and `cap`, each at a JSON Pointer in which `*` is every element.

    rewrite({"to": ["a@b.c"]}, obligations).value == {"to": ["[redacted]"]}

A path that is not there is nothing to do. Doing it twice is doing it once, and what goes in is never changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.obligation import REDACTED, Obligation

MOST_LISTED: Final = 100
"""Changes that are told by their own path; what lies beyond is told by the path of the obligation, `*` and all."""

MOST_PATH: Final = 1024
"""Characters of such a path."""

_ORDER: Final = ("redact", "mask", "cap")
"""What is redacted is neither masked nor capped any more."""


@dataclass(frozen=True, slots=True)
class Change:
    """One place that was rewritten: by which kind of obligation, where (a JSON Pointer), for which rule."""

    kind: str
    path: str
    rule: str

    def to_dict(self) -> dict[str, Json]:
        return {"kind": self.kind, "path": self.path, "rule": self.rule}


@dataclass(frozen=True, slots=True)
class Rewritten:
    """The value after it, every change, and the obligations that could not be met: `(obligation, why)`.

    What should have been masked and is no text is redacted; what should have been capped and is no number stays.
    """

    value: Json
    changes: tuple[Change, ...] = ()
    unmet: tuple[tuple[Obligation, str], ...] = ()


def rewrite(value: Json, obligations: Iterable[Obligation]) -> Rewritten:
    """Meet the `redact`, `mask` and `cap` among `obligations` in `value`; those for the other side (`in`) are left out before."""
    # As keys of a dictionary: each once, in order.
    changes: dict[Change, None] = {}
    unmet: list[tuple[Obligation, str]] = []

    def edited(obligation: Obligation, old: Json, at: tuple[str, ...]) -> Json:
        new, problem = _EDITS[obligation.kind](obligation, old)
        if problem is not None and not any(one is obligation for one, _ in unmet):
            unmet.append((obligation, f"{obligation.kind} {obligation.fields['path']}: {problem}"))
        if new is not old:
            path = _pointer(at) if len(changes) < MOST_LISTED else ""
            shown = path if 0 < len(path) <= MOST_PATH else obligation.fields["path"]
            changes[Change(obligation.kind, shown, obligation.rule)] = None
        return new

    for kind in _ORDER:
        for one in obligations:
            if one.kind == kind:
                value = _at(value, _steps(one.fields["path"]), (), partial(edited, one))
    return Rewritten(value, tuple(changes), tuple(unmet))


def _at(value: Json, steps: tuple[str, ...], at: tuple[str, ...], edit: Callable[[Json, tuple[str, ...]], Json]) -> Json:
    """`value` with `edit` made wherever `steps` lead; the same object where that changes nothing."""
    if not steps:
        return edit(value, at)
    step, rest = steps[0], steps[1:]
    if isinstance(value, dict):
        names = [name for name in ([*value] if step == "*" else [step]) if name in value]
        members = {name: _at(value[name], rest, (*at, name), edit) for name in names}
        same = all(members[name] is value[name] for name in names)
        return value if same else {**value, **members}
    if isinstance(value, (list, tuple)):
        places = range(len(value)) if step == "*" else _place(step, len(value))
        elements = {place: _at(value[place], rest, (*at, str(place)), edit) for place in places}
        same = all(elements[place] is value[place] for place in places)
        return value if same else [elements.get(place, element) for place, element in enumerate(value)]
    return value


def _redact(_: Obligation, value: Json) -> tuple[Json, str | None]:
    return (value if value == REDACTED else REDACTED), None


def _mask(obligation: Obligation, value: Json) -> tuple[Json, str | None]:
    if not isinstance(value, str):
        return REDACTED, "only a text can be masked, and there is another value"
    hidden = len(value) - obligation.fields["keep"]
    if hidden <= 0 or value == REDACTED:
        return value, None
    masked = "*" * hidden + value[hidden:]
    return (value if masked == value else masked), None


def _cap(obligation: Obligation, value: Json) -> tuple[Json, str | None]:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value, "only a number can be capped, and there is another value"
    return min(value, obligation.fields["maximum"]), None


_EDITS: Final[dict[str, Callable[[Obligation, Json], tuple[Json, str | None]]]] = {
    "redact": _redact,
    "mask": _mask,
    "cap": _cap,
}


def _steps(pointer: str) -> tuple[str, ...]:
    """https://www.rfc-editor.org/rfc/rfc6901#section-4"""
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:])


def _pointer(steps: tuple[str, ...]) -> str:
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)


def _place(step: str, length: int) -> range:
    """The index that `step` names, if the list has it: no sign, no leading zero."""
    named = step.isascii() and step.isdecimal() and (step == "0" or step[0] != "0") and len(step) < 10
    return range(int(step), int(step) + 1) if named and int(step) < length else range(0)
