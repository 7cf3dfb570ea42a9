"""Proposed Rego in the place of what was in force: which packages it replaces or adds, and the decider of each revision with it.

A package replaces the one of the same name and keeps its mode, scope and parameters; a new one binds. Deciders are loaded when a
decision of their revision comes, shared by revisions that decide alike, and closed when others have taken their place.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agentos.abi.canonical import Json, digest_of
from agentos.abi.errors import PolicyError, UsageError
from agentos.policy import syntax
from agentos.policy.adapters.opa import parse
from agentos.policy.bundle import is_test
from agentos.policy.port import Module

if TYPE_CHECKING:
    from agentos.control.client import Client
    from agentos.policy.decide import Decider

TARGETS: Final = ("syscall", "admission")
"""What history is decided again about."""

OPEN: Final = 3
"""Deciders that are kept: each holds engines with the modules and data of a revision."""

SECONDS: Final = 5.0
"""How long one decision may take here: a machine that is busy with history must not turn lateness into flips."""


@dataclass(frozen=True, slots=True)
class Package:
    """A proposed package and the modules that make it; `tail` is the last part of its name."""

    name: str
    target: str
    tail: str


class Proposal:
    """The proposed modules, tests left out. Raises UsageError without one, PolicyError for what is no rule of a tenant."""

    def __init__(self, modules: Sequence[Module], mode: str | None = None) -> None:
        self.modules = tuple(module for module in modules if not is_test(module))
        self.mode = mode
        found = {_package(module): None for module in self.modules}
        if not found:
            raise UsageError("no policy here, only tests", mend="name files or folders that hold the proposed *.rego")
        self.packages = tuple(found)

    @property
    def targets(self) -> tuple[str, ...]:
        """Which kinds of decision it can change, of those that history holds."""
        return tuple(target for target in TARGETS if any(package.target == target for package in self.packages))

    def said(self, facts: Mapping[str, Json]) -> list[str]:
        """What becomes of each package under `facts` (`policy.facts`), in a line each."""
        known = {syntax.package(parse(module)) for module in _modules(facts)}
        policies = facts["data"]["agentos"]["policies"]
        lines = []
        for package in self.packages:
            there = ("agentos", package.target, "rules", package.tail) in known
            governs = policies.get(package.tail, {}) if there else {}
            mode = self.mode or governs.get("mode", "enforce")
            more = " and".join(f" its {key}" for key in ("scope", "parameters") if governs.get(key))
            kept = f", keeps{more}" if more else ""
            loose = "" if mode == "enforce" else "; it binds nothing, see --mode"
            lines.append(f"{package.name}: {'replaced' if there else 'added'}, {mode}{kept}{loose}")
            if package.target not in TARGETS:
                lines[-1] += f"; decisions of {package.target} are not tried again"
        return lines

    def over(self, facts: Mapping[str, Json]) -> tuple[list[Module], dict[str, Json]]:
        """The modules and the data of a revision with the proposal in its place."""
        replaced = {("agentos", package.target, "rules", package.tail) for package in self.packages}
        taken = {module.path for module in self.modules}
        kept = [
            # Two files of one name are refused by the engine; only what errors say of it changes.
            Module(f"{module.path} (in force)", module.source) if module.path in taken else module
            for module in _modules(facts)
            if syntax.package(parse(module)) not in replaced
        ]
        agentos = dict(facts["data"]["agentos"])
        if self.mode is not None:
            own = {package.tail: {"name": "proposed", **agentos["policies"].get(package.tail, {})} for package in self.packages}
            agentos["policies"] = {**agentos["policies"], **{tail: {**one, "mode": self.mode} for tail, one in own.items()}}
        if "rules" in agentos:
            # Only packages that are listed there are asked.
            lists = {target: set(tails) for target, tails in agentos["rules"].items()}
            for package in self.packages:
                lists.setdefault(package.target, set()).add(package.tail)
            agentos["rules"] = {target: sorted(tails) for target, tails in sorted(lists.items())}
        return [*kept, *self.modules], {**facts["data"], "agentos": agentos}


class Deciders:
    """The proposal's decider for each revision."""

    def __init__(self, client: Client, proposal: Proposal) -> None:
        self._client = client
        self._proposal = proposal
        self._names: dict[int, str] = {}
        self._open: OrderedDict[str, Decider] = OrderedDict()

    async def of(self, revision: int) -> Decider:
        """The decider for a revision. Raises PolicyError for a proposal that does not load beside that revision's policies."""
        from agentos.policy.adapters.embedded import EmbeddedFactory, EmbeddedSettings
        from agentos.policy.decide import Decider

        name = self._names.get(revision)
        if name is None or name not in self._open:
            facts = await self._client.call("policy.facts", {"revision": revision}, within=120)
            modules, data = self._proposal.over(facts)
            name = self._names[revision] = digest_of([sorted([one.path, one.source] for one in modules), data])
            if name not in self._open:
                factory = EmbeddedFactory(EmbeddedSettings(queue_seconds=60))
                self._open[name] = await Decider.load(factory, modules, data, cache_size=65_536, decision_seconds=SECONDS)
        self._open.move_to_end(name)
        while len(self._open) > OPEN:
            self._open.popitem(last=False)[1].close()
        return self._open[name]

    def close(self) -> None:
        """Free all engines."""
        while self._open:
            self._open.popitem()[1].close()


def _modules(facts: Mapping[str, Json]) -> list[Module]:
    return [Module(item["path"], item["source"]) for item in facts["modules"]]


def _package(module: Module) -> Package:
    steps = syntax.package(parse(module))
    if len(steps) != 4 or steps[0] != "agentos" or steps[2] != "rules":
        raise PolicyError(
            f"package {'.'.join(steps)} is not for a tenant's policy",
            where=f"{module.path}:1",
            mend="name it agentos.syscall.rules.<name> or agentos.admission.rules.<name>",
        )
    return Package(".".join(steps), steps[1], steps[3])
