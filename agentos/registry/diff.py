"""What differs between two JSON values, field by field, and no field that is the same.

Objects are compared key by key, lists of scalars as one value. A list of objects is matched by what names its items (`path`,
`id` or `name`) where that is unique and the order is unchanged, else by place. The diff of two values is empty if and only if
they are equal.

>>> [str(change.path) for change in diff({"budget": {"calls": 1}}, {"budget": {"calls": 2}})]
['budget.calls']
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Literal, TypeAlias

from agentos.abi.canonical import Json


class _Absent(Enum):
    ABSENT = "absent"

    def __repr__(self) -> str:
        return "ABSENT"


Absent: TypeAlias = Literal[_Absent.ABSENT]
ABSENT: Final = _Absent.ABSENT
"""The field is not there at all (`null` is a value)."""

_PLAIN_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*", re.ASCII)
_IDENTITIES: Final = ("path", "id", "name")


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field: `path` such as `spec.budget.calls`, its value `before` and `after`; ABSENT on the side that lacks it."""

    path: str
    before: Json | Absent = field(hash=False)
    after: Json | Absent = field(hash=False)

    def to_dict(self) -> dict[str, Json]:
        """The JSON shape; the key of a side that lacks the field is left out."""
        body: dict[str, Json] = {"path": self.path}
        if self.before is not ABSENT:
            body["before"] = self.before
        if self.after is not ABSENT:
            body["after"] = self.after
        return body


def diff(before: Json | Absent, after: Json | Absent, path: str = "") -> tuple[FieldChange, ...]:
    """The changed fields, sorted as the keys stand in canonical JSON; empty if and only if the values are equal."""
    return tuple(_walk(before, after, path))


def leaves(value: Json, path: str = "") -> tuple[FieldChange, ...]:
    """Every scalar, list or empty object of `value` as an added field: how a resource that is created is shown."""
    if isinstance(value, dict) and value:
        return tuple(leaf for key in sorted(value) for leaf in leaves(value[key], _join(path, key)))
    if isinstance(value, list) and _objects(value):
        name = _identity([], value)
        return tuple(
            leaf for place, item in enumerate(value) for leaf in leaves(item, f"{path}[{item[name] if name else place}]")
        )
    return (FieldChange(path, ABSENT, value),)


def same(left: Json | Absent, right: Json | Absent) -> bool:
    """Equality of JSON values: `True` is not `1`, and `1.0` is `1` (both are written `1`)."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(same(one, other) for one, other in zip(left, right, strict=True))
    return bool(left == right)


def _walk(before: Json | Absent, after: Json | Absent, path: str) -> Iterator[FieldChange]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            yield from _walk(before.get(key, ABSENT), after.get(key, ABSENT), _join(path, key))
    elif isinstance(before, list) and isinstance(after, list) and _objects(before) and _objects(after):
        yield from _walk_objects(before, after, path)
    elif not same(before, after):
        yield FieldChange(path, before, after)


def _walk_objects(before: list[Json], after: list[Json], path: str) -> Iterator[FieldChange]:
    name = _identity(before, after)
    if name is None:
        for place in range(max(len(before), len(after))):
            old = before[place] if place < len(before) else ABSENT
            new = after[place] if place < len(after) else ABSENT
            yield from _walk(old, new, f"{path}[{place}]")
        return
    olds, news = {item[name]: item for item in before}, {item[name]: item for item in after}
    for key in sorted(olds.keys() | news.keys()):
        yield from _walk(olds.get(key, ABSENT), news.get(key, ABSENT), f"{path}[{key}]")


def _identity(before: list[Json], after: list[Json]) -> str | None:
    """The key by which the items of both lists can be told apart, if what both hold stands in one order, new ones last."""
    for name in _IDENTITIES:
        olds, news = [item.get(name) for item in before], [item.get(name) for item in after]
        if all(isinstance(key, str) for key in (*olds, *news)) and len(set(olds)) == len(olds) and len(set(news)) == len(news):
            kept = [key for key in olds if key in set(news)]
            return name if news[: len(kept)] == kept else None
    return None


def _objects(value: list[Json]) -> bool:
    return bool(value) and all(isinstance(item, dict) for item in value)


def _join(path: str, key: str) -> str:
    step = key if _PLAIN_KEY.fullmatch(key) else f'["{key}"]'
    return f"{path}.{step}" if path and not step.startswith("[") else f"{path}{step}"
