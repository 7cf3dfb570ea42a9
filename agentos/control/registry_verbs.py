"""The verbs of desired state: what a client may say, checked word by word, handed to the applier.

A principal that is bound to a tenant changes that tenant only, and no resource of the fleet; it sees that tenant and the priority
classes, which its agents name. What it may not see is not there. Every answer is JSON; resources are in manifest form, keys such
as `agent/default/triage`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from agentos.abi.canonical import Json
from agentos.abi.errors import NotFound, UsageError
from agentos.abi.event import rfc3339
from agentos.abi.ids import DEFAULT_TENANT, FLEET, is_name
from agentos.abi.resource import KINDS, Key, is_fleet_kind
from agentos.control.principal import Caller, Handler
from agentos.registry.apply import Allow, Applied, Applier
from agentos.registry.plan import Plan
from agentos.registry.related import related
from agentos.registry.selector import Selector
from agentos.registry.state import Entry

_WORDS = frozenset({"allow_destroy", "allow_widen", "dry_run", "reason", "expect"})


def handlers(applier: Applier) -> dict[str, Handler]:
    """The verbs `registry.…` over `applier`."""
    verbs = _Verbs(applier)
    return {
        "registry.plan": verbs.plan,
        "registry.apply": verbs.apply,
        "registry.get": verbs.get,
        "registry.list": verbs.list,
        "registry.delete": verbs.delete,
        "registry.history": verbs.history,
        "registry.rollback": verbs.rollback,
    }


@dataclass(frozen=True, slots=True)
class _Verbs:
    applier: Applier

    async def plan(self, caller: Caller, params: dict[str, Json]) -> Json:
        """`{manifests: […], prune?: "k=v"}`, `{plan}`, `{delete: [key…]}` or `{to: revision}` → a proposal. Stores nothing."""
        given = _Params(params, {"manifests", "prune", "plan", "delete", "to"})
        if "plan" in params:
            given.only({"plan"})
            return (await self.applier.propose_saved(caller, Plan.from_dict(params["plan"]))).to_dict()
        if "to" in params:
            given.only({"to"})
            return (await self.applier.propose_rollback(caller, given.number("to"))).to_dict()
        proposal = await self.applier.propose(
            caller, given.manifests(), prune=given.selector("prune"), delete=given.keys("delete", caller)
        )
        return proposal.to_dict()

    async def apply(self, caller: Caller, params: dict[str, Json]) -> Json:
        """`{plan}` or `{manifests, prune?}`, and `allow_destroy? allow_widen? dry_run? reason? expect?` → what came of it."""
        given = _Params(params, {"manifests", "prune", "plan"} | _WORDS)
        if "plan" in params:
            given.only({"plan"} | _WORDS)
            proposal = await self.applier.propose_saved(caller, Plan.from_dict(params["plan"]))
        else:
            proposal = await self.applier.propose(caller, given.manifests(), prune=given.selector("prune"))
        applied = await self.applier.apply(
            caller,
            proposal,
            reason=given.text("reason") or "",
            allow=given.allow(),
            dry_run=given.flag("dry_run"),
            expect=given.text("expect"),
        )
        return told(caller, applied)

    async def delete(self, caller: Caller, params: dict[str, Json]) -> Json:
        """`{keys: [key…]}` and the words of `apply` → what came of it. Raises NotFound for a key that is not there."""
        given = _Params(params, {"keys"} | _WORDS)
        keys = given.keys("keys", caller)
        state = await self.applier.registry.state()
        for key in keys:
            if key not in state.entries or not _visible(caller, key):
                raise _missing(key)
        applied = await self.applier.apply(
            caller,
            await self.applier.propose(caller, [], delete=keys),
            reason=given.text("reason") or "",
            allow=given.allow(),
            dry_run=given.flag("dry_run"),
            expect=given.text("expect"),
        )
        return told(caller, applied)

    async def rollback(self, caller: Caller, params: dict[str, Json]) -> Json:
        """`{to: revision}` and the words of `apply` → what came of it: a new revision that equals the old one."""
        given = _Params(params, {"to"} | _WORDS)
        to = given.number("to")
        applied = await self.applier.apply(
            caller,
            await self.applier.propose_rollback(caller, to),
            reason=given.text("reason") or f"rollback to revision {to}",
            allow=given.allow(),
            dry_run=given.flag("dry_run"),
            expect=given.text("expect"),
        )
        return told(caller, applied)

    async def get(self, caller: Caller, params: dict[str, Json]) -> Json:
        """`{kind, name, tenant?}` → `{key, resource, digest, by, revision, time, related}`. Raises NotFound."""
        given = _Params(params, {"kind", "name", "tenant"})
        kind, name = given.kind("kind"), given.text("name")
        if kind is None or name is None:
            raise UsageError("registry.get needs `kind` and `name`")
        key = Key(kind, FLEET if is_fleet_kind(kind) else given.text("tenant") or _own_tenant(caller), name)
        state = await self.applier.registry.state()
        if key not in state.entries or not _visible(caller, key):
            raise _missing(key)
        entry = state.entries[key]
        changed = (await self.applier.registry.history())[entry.revision - 1]
        return {
            **_row(key, entry),
            "time": rfc3339(changed.time_ms),
            "related": [row for row in related(state, key) if _visible(caller, Key.parse(row["key"]))],
        }

    async def list(self, caller: Caller, params: dict[str, Json]) -> Json:
        """`{kind?, selector?, tenant?}` → `{revision, tenants, lent, items: [{key, resource, digest, by, revision}]}`.

        Items stand by kind, tenant and name; `tenants` are the names of those that the caller may act on, `lent` the models of
        the default tenant that each of them may use.
        """
        given = _Params(params, {"kind", "selector", "tenant"})
        kind, tenant, selector = given.kind("kind"), given.text("tenant"), given.selector("selector")
        state = await self.applier.registry.state()
        items = [
            _row(key, entry)
            for key, entry in sorted(state.entries.items(), key=lambda row: (KINDS.index(row[0].kind), row[0]))
            if _visible(caller, key)
            and (kind is None or key.kind == kind)
            and (tenant is None or key.tenant in {tenant, FLEET})
            and (selector is None or selector.matches(entry.resource.labels))
        ]
        declared = {resource.key.name: resource.spec.get("models", []) for resource in state.resources(kind="Tenant")}
        tenants = sorted({DEFAULT_TENANT, *declared}) if caller.fleet else [caller.tenant]
        lent = {name: models for name in tenants if (models := declared.get(name))}
        return {"revision": state.revision, "tenants": tenants, "lent": lent, "items": items}

    async def history(self, caller: Caller, params: dict[str, Json]) -> Json:
        """`{limit?}` → `{revisions: […]}`, newest first; a tenant's principal sees those that touched its tenant."""
        given = _Params(params, {"limit"})
        limit = given.number("limit") if "limit" in params else None
        revisions = reversed(await self.applier.registry.history())
        rows = [_seen(caller, revision.to_dict()) for revision in revisions if caller.fleet or caller.tenant in revision.tenants]
        return {"revisions": rows[:limit]}


@dataclass(frozen=True, slots=True)
class _Params:
    """The words of one command; every reader raises UsageError for a value of the wrong shape."""

    given: dict[str, Json]
    known: Collection[str]

    def __post_init__(self) -> None:
        self.only(self.known)

    def only(self, known: Collection[str]) -> None:
        odd = sorted(set(self.given) - set(known))
        if odd:
            raise UsageError(f"unexpected parameter {', '.join(odd)}", mend=f"known here are {', '.join(sorted(known))}")

    def text(self, name: str) -> str | None:
        value = self.given.get(name)
        if value is not None and not isinstance(value, str):
            raise UsageError(f"{name} must be text")
        return value

    def flag(self, name: str) -> bool:
        value = self.given.get(name, False)
        if not isinstance(value, bool):
            raise UsageError(f"{name} must be true or false")
        return value

    def number(self, name: str) -> int:
        value = self.given.get(name)
        if type(value) is not int or value < 0:
            raise UsageError(f"{name} must be a whole number, 0 or more")
        return value

    def kind(self, name: str) -> str | None:
        value = self.text(name)
        if value is not None and value not in KINDS:
            raise UsageError(f"unknown kind {value!r}", mend=f"kinds are {', '.join(KINDS)}")
        return value

    def selector(self, name: str) -> Selector | None:
        value = self.text(name)
        return Selector.parse(value) if value is not None else None

    def manifests(self) -> list[Json]:
        value = self.given.get("manifests", [])
        if not isinstance(value, list):
            raise UsageError("manifests must be a list of declarations")
        return value

    def keys(self, name: str, caller: Caller) -> list[Key]:
        """Keys; one without a tenant (`agent/triage`) is of the tenant that the caller acts on."""
        value = self.given.get(name, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise UsageError(f"{name} must be a list of keys such as agent/default/triage")
        try:
            return [_key(item, caller) for item in dict.fromkeys(value)]
        except ValueError as error:
            raise UsageError(f"{name}: {error}", mend="a key is kind/tenant/name, such as agent/default/triage") from error

    def allow(self) -> Allow:
        return Allow(destroy=self.flag("allow_destroy"), widen=self.flag("allow_widen"))


def _key(text: str, caller: Caller) -> Key:
    kind, slash, name = text.partition("/")
    if slash and "/" not in name:
        known = Key.parse(f"{kind}/{_own_tenant(caller)}/{name}")
        return Key(known.kind, FLEET, name) if is_fleet_kind(known.kind) else known
    return Key.parse(text)


def _own_tenant(caller: Caller) -> str:
    return caller.tenant if is_name(caller.tenant) else DEFAULT_TENANT


def _visible(caller: Caller, key: Key) -> bool:
    return caller.fleet or key.tenant == caller.tenant or key.kind == "PriorityClass"


def _missing(key: Key) -> NotFound:
    return NotFound("there is no such resource", where=str(key), mend=f"agentos get {key.kind.lower()} lists what there is")


def _row(key: Key, entry: Entry) -> dict[str, Json]:
    return {
        "key": str(key),
        "resource": entry.resource.to_dict(),
        "digest": entry.digest,
        "by": entry.by,
        "revision": entry.revision,
    }


def told(caller: Caller, applied: Applied) -> dict[str, Json]:
    """What came of a change, for who made it."""
    body = applied.to_dict()
    return body if body["revision"] is None else body | {"revision": _seen(caller, body["revision"])}


def _seen(caller: Caller, row: dict[str, Json]) -> dict[str, Json]:
    """A revision as a tenant's principal sees it: without the names of other tenants, and the digests of what all have."""
    if caller.fleet:
        return row
    row = {key: value for key, value in row.items() if key not in {"tree", "parent"}}
    row["tenants"] = [caller.tenant]
    if "admission" in row:
        row["admission"] = {tenant: said for tenant, said in row["admission"].items() if tenant == caller.tenant}
    return row
