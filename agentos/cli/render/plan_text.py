"""A plan for people: what is created, changed and deleted, field by field, and loudly what is dangerous.

`+` is created, `~` changed, `-` deleted, `!` needs a loud word. Only changed fields are shown; of long texts only the changed
lines. Whatever comes out of a declaration is escaped, so that it cannot drive the terminal.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from difflib import unified_diff
from itertools import groupby
from typing import Final

import typer

from agentos.abi.canonical import Json
from agentos.cli.render.text import plain
from agentos.registry.diff import ABSENT, Absent, FieldChange, leaves
from agentos.registry.plan import Action, Change, Plan

_SIGNS: Final = {Action.CREATE: "+", Action.UPDATE: "~", Action.DELETE: "-"}
_COLOURS: Final = {"+": "green", "~": "yellow", "-": "red", "!": "bright_red", "@": "cyan"}
_WILL: Final = {
    Action.CREATE: "will be created",
    Action.UPDATE: "will be changed",
    Action.DELETE: "will be DELETED",
}
_WIDEST: Final = 100
_FIELDS: Final = 12
"""A part of a new resource (such as `spec.scripted`) with more fields than this is counted, not listed: it stands in the file
that is named. Of a changed resource every changed field is shown."""

_LINES: Final = 20
"""Lines of a new text that are shown before the rest is counted."""


def render_plan(plan: Plan, *, colour: bool, positions: Mapping[str, str] | None = None, brief: bool = False) -> str:
    """The whole plan as text, its summary last. `positions` maps keys (`agent/default/a`) to `file:line:column`.

    `brief`: no fields, one line for each resource, and below it what is dangerous.
    """
    if not plan.changes:
        return f"No changes: revision {plan.base_revision} is what is declared."
    ink = _Ink(colour)
    lines: list[str] = []
    for change in plan.changes:
        lines += _change(change, (positions or {}).get(str(change.key)), ink, brief=brief)
        if not brief:
            lines.append("")
    return "\n".join([*lines, render_summary(plan, colour=colour)])


def render_summary(plan: Plan, *, colour: bool) -> str:
    """`Plan: 3 to create, 1 to change, 0 to delete; widens permission: 2` against the revision that it was made from."""
    ink, counts = _Ink(colour), plan.counts()
    parts = [
        ink("+", f"{counts['create']} to create") if counts["create"] else "0 to create",
        ink("~", f"{counts['update']} to change") if counts["update"] else "0 to change",
        ink("-", f"{counts['delete']} to delete") if counts["delete"] else "0 to delete",
    ]
    danger = "; " + ink("!", f"widens permission: {counts['widen']}") if counts["widen"] else ""
    return f"Plan: {', '.join(parts)}{danger} (from revision {plan.base_revision})"


def _change(change: Change, position: str | None, ink: _Ink, *, brief: bool) -> Iterator[str]:
    sign = _SIGNS[change.action]
    origin = f"  ({plain(position)})" if position else ""
    yield ink(sign, f"{sign} {change.key} {_WILL[change.action]}") + origin
    if not brief:
        yield from _fields(change, ink)
    for sentence in change.widens:
        yield "    " + ink("!", f"! widens permission: {plain(sentence.removeprefix(f'{change.key}: '))}")


def _fields(change: Change, ink: _Ink) -> Iterator[str]:
    fields = change.fields
    if change.action is Action.CREATE and change.resource is not None:
        body = change.resource.to_dict()
        metadata = {name: value for name, value in body["metadata"].items() if name in {"labels", "annotations"}}
        fields = (*(leaves(metadata, "metadata") if metadata else ()), *(leaves(body["spec"], "spec") if body["spec"] else ()))
    if change.action is not Action.CREATE:
        for field in fields:
            yield from _field(field, ink)
        return
    # What is empty by default says nothing about something new.
    told = [field for field in fields if field.after not in ({}, [])]
    for part, group in groupby(told, key=lambda field: ".".join(field.path.split(".")[:2])):
        members = list(group)
        if len(members) > _FIELDS:
            yield "    " + ink("+", f"+ {plain(part)}: {len(members)} fields") + " (-o json lists them)"
            continue
        for field in members:
            yield from _field(field, ink)


def _field(field: FieldChange, ink: _Ink) -> Iterator[str]:
    path = plain(field.path)
    if _is_long(field.before) or _is_long(field.after):
        yield from _text(path, field, ink)
    elif field.before is ABSENT:
        yield "    " + ink("+", f"+ {path}: {_value(field.after)}")
    elif field.after is ABSENT:
        yield "    " + ink("-", f"- {path}: {_value(field.before)}")
    else:
        yield "    " + ink("~", f"~ {path}: {_value(field.before)} → {_value(field.after)}")


def _text(path: str, field: FieldChange, ink: _Ink) -> Iterator[str]:
    """A text of several lines: the changed lines with two of context; the first lines of one that is new."""
    before, after = _split(field.before), _split(field.after)
    if not before or not after:
        sign, shown = ("+", after) if after else ("-", before)
        yield "    " + ink(sign, f"{sign} {path}:")
        for line in shown[:_LINES]:
            yield "        " + ink(sign, f"{sign} {plain(line)}".rstrip())
        if len(shown) > _LINES:
            yield f"          … {len(shown) - _LINES} more lines"
        return
    yield "    " + ink("~", f"~ {path}:")
    for line in list(unified_diff(before, after, lineterm="", n=2))[2:]:
        sign = line[0] if line[0] in "+-@" else " "
        yield "        " + ink(sign, plain(f"{line[0]} {line[1:]}" if sign != "@" else line).rstrip())


def _split(value: Json | Absent) -> list[str]:
    if value is ABSENT:
        return []
    return value.splitlines() if isinstance(value, str) else [_value(value)]


def _is_long(value: Json | Absent) -> bool:
    return isinstance(value, str) and "\n" in value.rstrip("\n")


def _value(value: Json | Absent) -> str:
    text = plain(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"


class _Ink:
    """Paints a text in the colour of its sign, or leaves it as it is."""

    def __init__(self, on: bool) -> None:
        self._on = on

    def __call__(self, sign: str, text: str) -> str:
        if not self._on or sign not in _COLOURS:
            return text
        return typer.style(text, fg=_COLOURS[sign], bold=True if sign == "!" else None)
