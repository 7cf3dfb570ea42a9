"""What a rule is, for people: its METADATA, its page, where it stands, what governs it, its source.

A rule is named by its id (`grants.none`) or by the last part of its package (`trifecta`), which then stands for all of its ids.
Rules come from the modules in force, or from what ships with AgentOS: the axioms and the library.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

import yaml

from agentos.abi.assets import asset
from agentos.abi.canonical import Json
from agentos.abi.errors import NotFound
from agentos.policy import syntax
from agentos.policy.adapters import opa
from agentos.policy.bundle import axioms, is_test
from agentos.policy.explain import RuleAt, rules_of
from agentos.policy.port import Module
from agentos.policy.source import Source

_TARGETS: Final = ("syscall", "admission", "approval", "control")


@dataclass(frozen=True, slots=True)
class RulePage:
    """One rule. `origin`: `axiom`, `policy <name>` of the tenant, or `library`. Lines count from 1, `end` is the first behind it.

    `governs` is `{mode, name, scope?, parameters?}` of the tenant's Policy; None for a rule that nobody configured.
    """

    rule: str
    target: str
    package: str
    origin: str
    title: str
    description: str
    about: str
    page: str
    path: str
    line: int
    source: str
    governs: Mapping[str, Json] | None = field(default=None, hash=False)

    def to_dict(self) -> dict[str, Json]:
        """JSON form."""
        return {
            "rule": self.rule,
            "target": self.target,
            "package": self.package,
            "origin": self.origin,
            "title": self.title,
            "description": self.description,
            "about": self.about,
            "page": self.page,
            "path": self.path,
            "line": self.line,
            "source": self.source,
            "governs": dict(self.governs) if self.governs is not None else None,
        }


def rule_pages(name: str, modules: Sequence[Module], data: Mapping[str, Json]) -> list[RulePage]:
    """The rules that `name` stands for, by id: among `modules` (in force, with their `data`), else in the shipped library.

    Raises NotFound with the nearest names; PolicyError for a module that does not parse.
    """
    policies = data.get("agentos", {}).get("policies", {})
    shipped = {module.path: module for module in axioms()}
    origins: list[tuple[Module, str]] = [
        (module, "axiom" if shipped.get(module.path) == module else _policy(module, policies)) for module in modules
    ]
    # What decides about commands, and what is not in force now, is explained too.
    origins += [(module, "axiom") for module in shipped.values() if module not in modules]
    in_force = {module.path for module, _ in origins}
    origins += [(module, "library") for module in library() if module.path not in in_force]
    found = [(rule, target, origin) for module, origin in origins for target in _TARGETS for rule in rules_of([module], target)]
    for pool in (
        [item for item in found if item[2] != "library"],
        [item for item in found if item[2] == "library"],
    ):
        chosen = [item for item in pool if name in (item[0].rule, item[0].tail)]
        if chosen:
            return [_page(*item, policies) for item in sorted(chosen, key=lambda item: (item[1], item[0].rule))]
    raise _unknown(name, {word for rule, _, _ in found for word in (rule.rule, rule.tail)})


@cache
def library() -> tuple[Module, ...]:
    """The rules of `policies/library`, which are in force nowhere until they are applied."""
    root = asset("policies")
    paths = sorted((root / "library").rglob("*.rego"))
    modules = (Module(f"policies/{path.relative_to(root).as_posix()}", path.read_text("utf-8")) for path in paths)
    return tuple(module for module in modules if not is_test(module))


def _policy(module: Module, policies: Mapping[str, Json]) -> str:
    tail = syntax.package(opa.parse(module))[-1]
    return f"policy {policies[tail]['name']}" if tail in policies else "policy"


def _page(rule: RuleAt, target: str, origin: str, policies: Mapping[str, Json]) -> RulePage:
    tree = opa.parse(rule.module)
    source = Source(rule.module.source, tree)
    own, above = _metadata(source, rule.line), _metadata(source, source.first(r"^[ \t]*package\b").line)
    lines = rule.module.source.split("\n")
    start = rule.line - 1 - len(source.block_above(rule.line))
    return RulePage(
        rule=rule.rule,
        target=target,
        package=".".join(syntax.package(tree)),
        origin=origin,
        title=own.get("title", ""),
        description=own.get("description", ""),
        about=above.get("description", ""),
        page=_readme(rule.module, above),
        path=rule.module.path,
        line=rule.line,
        source="\n".join(lines[start : _end(source, rule)]).rstrip(),
        governs=policies.get(rule.tail) if origin.startswith("policy") else None,
    )


def _end(source: Source, rule: RuleAt) -> int:
    """The line behind the rule: comments that stand above the next one are that one's."""
    end = rule.end - 1
    while end > rule.line and not source.lines[end - 1].strip():
        end -= 1
    return end


def _metadata(source: Source, line: int) -> dict[str, str]:
    texts = [comment.text.removeprefix(" ") for comment in source.block_above(line)]
    if "METADATA" not in texts:
        return {}
    try:
        found = yaml.safe_load("\n".join(texts[texts.index("METADATA") + 1 :]))
    except yaml.YAMLError:
        return {}
    if not isinstance(found, dict):
        return {}
    pages = found.get("related_resources")
    ref = pages[0].get("ref", "") if isinstance(pages, list) and pages and isinstance(pages[0], dict) else ""
    return {**{key: str(found[key]) for key in ("title", "description") if key in found}, "ref": str(ref)}


def _readme(module: Module, metadata: Mapping[str, str]) -> str:
    """The page of a shipped rule: the README beside it, or the one that its METADATA names, if that ships too."""
    root = asset("policies").resolve()
    places = [str(Path(module.path).parent / "README.md"), metadata.get("ref", "")]
    for place in places:
        path = (root.parent / place).resolve()
        if place.startswith("policies/") and path.is_relative_to(root) and path.suffix == ".md" and path.is_file():
            return path.read_text("utf-8")
    return ""


def _unknown(name: str, words: Iterable[str]) -> NotFound:
    near = difflib.get_close_matches(name, sorted(words), 3, cutoff=0.5)
    mend = f"did you mean {' or '.join(near)}?" if near else "agentos policy status lists what is in force"
    return NotFound(f"there is no rule {name!r}", mend=mend)
