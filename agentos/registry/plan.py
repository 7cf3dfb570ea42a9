"""The plan: what has to change so that the current state becomes the desired one. Pure: no clock, no log, no file.

A plan carries everything that is needed to apply it later, and names the state that it was made from; its digest binds the whole.
Whoever applies it compares base and digest first, so a plan that was shown and confirmed is the plan that happens.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from agentos.abi.canonical import Json, NotCanonical, digest_of
from agentos.abi.errors import NotFound, UsageError
from agentos.abi.resource import API_VERSION, KINDS, Key, Resource
from agentos.registry.diff import ABSENT, FieldChange, diff
from agentos.registry.selector import Selector
from agentos.registry.state import State
from agentos.registry.widening import widens


class Action(StrEnum):
    """What happens to one resource."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Change:
    """One resource that changes.

    `fields` are the changed fields of an update, empty otherwise. `widens` says in sentences what becomes permitted. `resource`
    is what is stored (None for a deletion), `before` the digest of what is replaced or deleted (None for a creation).
    """

    action: Action
    key: Key
    fields: tuple[FieldChange, ...]
    widens: tuple[str, ...]
    resource: Resource | None
    before: str | None

    def to_dict(self) -> dict[str, Json]:
        """The JSON shape of one of `changes` in `schemas/v1/plan.json`."""
        body: dict[str, Json] = {
            "action": str(self.action),
            "key": str(self.key),
            "fields": [change.to_dict() for change in self.fields],
            "widens": list(self.widens),
        }
        if self.before is not None:
            body["before"] = self.before
        if self.resource is not None:
            body["resource"] = self.resource.to_dict()
        return body


@dataclass(frozen=True, slots=True)
class Plan:
    """Changes against the state `base_revision` whose tree is `base_digest`; deletions last, else in the order of need.

    In a plan of who is bound to a tenant it is that tenant's part of the tree: from the whole one he could tell whether a guess
    about another tenant is right.
    `digest` is that of the canonical JSON form without the digest itself.
    """

    base_revision: int
    base_digest: str
    changes: tuple[Change, ...]
    digest: str

    @property
    def destroys(self) -> tuple[Key, ...]:
        """What is deleted."""
        return tuple(change.key for change in self.changes if change.action is Action.DELETE)

    @property
    def widens(self) -> tuple[str, ...]:
        """What becomes permitted, all sentences."""
        return tuple(sentence for change in self.changes for sentence in change.widens)

    @property
    def tenants(self) -> tuple[str, ...]:
        """The tenants that the plan touches, sorted; `*` stands for resources of the fleet."""
        return tuple(sorted({change.key.tenant for change in self.changes}))

    def counts(self) -> dict[str, int]:
        """How many resources are created, updated and deleted, and how many of the changes widen permission."""
        numbers = {str(action): sum(1 for change in self.changes if change.action is action) for action in Action}
        return {**numbers, "widen": sum(1 for change in self.changes if change.widens)}

    def to_dict(self) -> dict[str, Json]:
        """The JSON form (`schemas/v1/plan.json`): all that is needed to show and to apply the plan."""
        return {**_body(self.base_revision, self.base_digest, self.changes), "digest": self.digest}

    @classmethod
    def from_dict(cls, body: Json) -> Plan:
        """Read a saved plan. Raises UsageError for whatever is not one, or was altered after it was made."""
        return _read(body)


def plan(
    current: State,
    desired: Sequence[Resource],
    *,
    prune: Selector | None = None,
    delete: Collection[Key] = (),
    tenants: Collection[str] = (),
    base: str | None = None,
) -> Plan:
    """What turns `current` into a state that holds `desired`. `base` names that state, its tree where it is left out.

    Nothing is deleted but the keys in `delete` and, with `prune`, whatever matches the selector, belongs to a tenant of `desired`
    (or of `tenants`) and is not in `desired`. Raises UsageError for a key that stands twice in `desired`, or is both desired and
    deleted, NotFound for one that is to be deleted and not there.
    """
    wanted = _by_key(desired)
    gone = set(delete)
    for key in sorted(gone):
        if key in wanted:
            raise UsageError("is both declared and to be deleted", where=str(key))
        if key not in current.entries:
            raise NotFound("there is no such resource to delete", where=str(key))
    if prune is not None:
        concerned = {key.tenant for key in wanted} | set(tenants)
        gone |= {
            key
            for key, entry in current.entries.items()
            if key.tenant in concerned and key not in wanted and prune.matches(entry.resource.labels)
        }
    changes = [change for key in sorted(wanted, key=_order) if (change := _set(current, wanted[key])) is not None]
    changes += [_remove(current, key) for key in sorted(gone, key=_order, reverse=True)]
    return _bind(current.revision, base or current.tree, tuple(changes))


def restore(current: State, goal: State, *, tenants: Collection[str] | None = None, base: str | None = None) -> Plan:
    """What makes `current` equal to `goal` in the given tenants (None: in all), deletions included."""
    desired = [entry.resource for key, entry in goal.entries.items() if tenants is None or key.tenant in tenants]
    gone = [key for key in current.entries if key not in goal.entries and (tenants is None or key.tenant in tenants)]
    return plan(current, desired, delete=gone, base=base)


def fits(state: State, saved: Plan) -> bool:
    """Whether `state` is the one that `saved` was made from, as far as its maker could see it."""
    if saved.base_revision != state.revision:
        return False
    bases = {state.tree} | ({state.part(saved.tenants[0])} if len(saved.tenants) == 1 else set())
    return not saved.changes or saved.base_digest in bases


def replan(current: State, saved: Plan) -> Plan:
    """The plan that `current` yields for what `saved` wants to store and delete; equal to `saved` unless somebody altered it."""
    gone = [key for key in saved.destroys if key in current.entries]
    desired = [change.resource for change in saved.changes if change.resource is not None]
    return plan(current, desired, delete=gone, base=saved.base_digest)


def result(current: State, changes: Iterable[Change]) -> dict[Key, Resource]:
    """The resources of `current` once `changes` are made."""
    after = {key: entry.resource for key, entry in current.entries.items()}
    for change in changes:
        if change.resource is None:
            after.pop(change.key, None)
        else:
            after[change.key] = change.resource
    return after


def _by_key(desired: Iterable[Resource]) -> dict[Key, Resource]:
    wanted: dict[Key, Resource] = {}
    for resource in desired:
        if resource.key in wanted:
            raise UsageError("is declared twice", where=str(resource.key), mend="keep one of the two documents")
        wanted[resource.key] = resource
    return wanted


def _order(key: Key) -> tuple[int, Key]:
    return KINDS.index(key.kind), key


def _set(current: State, resource: Resource) -> Change | None:
    entry = current.entries.get(resource.key)
    if entry is None:
        return Change(Action.CREATE, resource.key, (), widens(None, resource), resource, None)
    before, after = entry.resource.to_dict(), resource.to_dict()
    fields = diff(before, after)
    if not fields:
        return None
    return Change(Action.UPDATE, resource.key, fields, widens(entry.resource, resource), resource, entry.digest)


def _remove(current: State, key: Key) -> Change:
    entry = current.entries[key]
    return Change(Action.DELETE, key, (), widens(entry.resource, None), None, entry.digest)


def _bind(revision: int, base: str, changes: tuple[Change, ...]) -> Plan:
    return Plan(revision, base, changes, digest_of(_body(revision, base, changes)))


def _body(revision: int, base: str, changes: Sequence[Change]) -> dict[str, Json]:
    return {
        "apiVersion": API_VERSION,
        "kind": "Plan",
        "base": {"revision": revision, "digest": base},
        "changes": [change.to_dict() for change in changes],
    }


_MEND = "make the plan again: agentos plan PATH -o FILE"


def _read(body: Json) -> Plan:
    try:
        _exact(body, {"apiVersion", "kind", "base", "changes", "digest"}, set(), "$")
        if body["apiVersion"] != API_VERSION or body["kind"] != "Plan":
            raise UsageError(f"expected a Plan of {API_VERSION}, got {body['kind']!r} of {body['apiVersion']!r}", mend=_MEND)
        _exact(body["base"], {"revision", "digest"}, set(), "$.base")
        revision, base = body["base"]["revision"], body["base"]["digest"]
        if type(revision) is not int or revision < 0 or not isinstance(base, str) or not isinstance(body["changes"], list):
            raise UsageError("is not a plan: its base or its changes have the wrong type", mend=_MEND)
        changes = tuple(_read_change(change, f"$.changes[{place}]") for place, change in enumerate(body["changes"]))
        bound = _bind(revision, base, changes)
        read_back = digest_of({key: value for key, value in body.items() if key != "digest"})
    except NotCanonical as error:
        raise UsageError(f"is not a plan: {error}", mend=_MEND) from error
    if bound.digest != body["digest"] or read_back != body["digest"]:
        raise UsageError("the plan was altered after it was made: its digest does not match", mend=_MEND)
    return bound


def _read_change(body: Json, where: str) -> Change:
    _exact(body, {"action", "key", "fields", "widens"}, {"resource", "before"}, where)
    try:
        action, key = Action(body["action"]), Key.parse(body["key"])
        resource = Resource.from_dict(body["resource"]) if "resource" in body else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"is not a plan: {where} names no known action, key or resource", mend=_MEND) from error
    right = (resource is None) == (action is Action.DELETE) and ("before" in body) == (action is not Action.CREATE)
    if not right or (resource is not None and resource.key != key):
        raise UsageError(f"is not a plan: {where} does not fit its action {action}", mend=_MEND)
    lists = isinstance(body["fields"], list) and isinstance(body["widens"], list)
    if not lists or not all(isinstance(sentence, str) for sentence in body["widens"]):
        raise UsageError(f"is not a plan: {where}.fields and {where}.widens must be lists", mend=_MEND)
    fields = tuple(_read_field(change, f"{where}.fields[{place}]") for place, change in enumerate(body["fields"]))
    return Change(action, key, fields, tuple(body["widens"]), resource, body.get("before"))


def _read_field(body: Json, where: str) -> FieldChange:
    _exact(body, {"path"}, {"before", "after"}, where)
    if not isinstance(body["path"], str):
        raise UsageError(f"is not a plan: {where}.path is no text", mend=_MEND)
    return FieldChange(body["path"], body.get("before", ABSENT), body.get("after", ABSENT))


def _exact(body: Json, required: set[str], optional: set[str], where: str) -> None:
    if not isinstance(body, Mapping):
        raise UsageError(f"is not a plan: {where} is no object", mend=_MEND)
    odd = sorted((required - body.keys()) | (body.keys() - required - optional))
    if odd:
        raise UsageError(f"is not a plan: {where} lacks or has too much of {', '.join(odd)}", mend=_MEND)
