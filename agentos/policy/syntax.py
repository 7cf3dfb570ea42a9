"""Walking a Rego syntax tree: which references it holds, what it calls, which parts of the input it reads.

The tree is what OPA's `rego.parse_module` gives: objects `{"type": …, "value": …}`. A reference is
`{"type": "ref", "value": [head, term, …]}`; its static part is the head and the string terms up to the first
term that is known only when it runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from agentos.abi.canonical import Json

UNSTEADY: Final = frozenset(
    {
        "crypto.x509.parse_and_verify_certificates",
        "crypto.x509.parse_and_verify_certificates_with_options",
        "http.send",
        "io.jwt.decode_verify",
        "io.jwt.encode_sign",
        "io.jwt.encode_sign_raw",
        "json.match_schema",
        "json.verify_schema",
        "net.lookup_ip_addr",
        "opa.runtime",
        "providers.aws.sign_req",
        "rand.intn",
        "time.now_ns",
        "uuid.rfc4122",
    }
)
"""Builtins whose value is not a function of their arguments, or that reach outside of the process.

The two that read JSON Schemas fetch what a `$ref` names, from the network and from files. What is left for policies stands in
`policies/capabilities.json`.
"""

Step = str | int | None
"""One step of a reference: a key, an index, or None for what is known only at run time."""


@dataclass(frozen=True, slots=True)
class Ref:
    """One reference: `head` (`input`, `data`, a builtin or a variable) and its steps in order."""

    head: str
    steps: tuple[Step, ...]

    def static(self) -> tuple[str, ...]:
        """The leading string steps: what is surely read."""
        found: list[str] = []
        for step in self.steps:
            if not isinstance(step, str):
                break
            found.append(step)
        return tuple(found)

    def dotted(self) -> str:
        """`http.send`: how a builtin is called."""
        return ".".join((self.head, *self.static()))


def nodes(tree: Json) -> Iterator[Mapping[str, Json]]:
    """Every object of the tree, outermost first."""
    stack: list[Json] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            yield node
            stack.extend(reversed(list(node.values())))
        elif isinstance(node, list):
            stack.extend(reversed(node))


def refs(tree: Json) -> Iterator[Ref]:
    """Every reference of a tree or of a part of it; a bare variable `input` or `data` counts as one."""
    heads: set[int] = set()
    for node in nodes(tree):
        if node.get("type") == "ref" and isinstance(node.get("value"), list):
            head, *rest = node["value"]
            heads.add(id(head))
            if head.get("type") == "var":
                yield Ref(str(head["value"]), tuple(_step(term) for term in rest))
        elif node.get("type") == "var" and node.get("value") in {"input", "data"} and id(node) not in heads:
            yield Ref(str(node["value"]), ())


def _step(term: Mapping[str, Json]) -> Step:
    if term["type"] == "string":
        return str(term["value"])
    if term["type"] == "number" and isinstance(term["value"], int):
        return term["value"]
    return None


def package(tree: Json) -> tuple[str, ...]:
    """The package as its steps after `data`: `("agentos", "syscall", "rules", "egress")`."""
    return tuple(str(term["value"]) for term in tree["package"]["path"][1:])


def rules(tree: Json) -> list[Json]:
    """The rules of a module, in the order of the file."""
    return list(tree.get("rules", []))


def rule_name(rule: Json) -> str:
    """`results` for `results contains …`, the head's first name."""
    return str(rule["head"]["ref"][0]["value"])


def without_package(tree: Json) -> Json:
    """The parts of a module that can refer to something: its imports and rules."""
    return {"imports": tree.get("imports", []), "rules": tree.get("rules", [])}


Paths = Mapping[str, "Paths | None"]
"""A tree of input keys; None: everything below is read."""


def input_paths(trees: Iterable[Json]) -> frozenset[tuple[str, ...]] | None:
    """The parts of the input that modules read, as static paths. None: the whole input, or it cannot be told.

    None also where a builtin is not a function of its arguments: then no answer can be reused at all.
    """
    found: set[tuple[str, ...]] = set()
    for tree in trees:
        for ref in refs(without_package(tree)):
            if ref.head == "input":
                path = ref.static()
                if not path:
                    return None
                found.add(path)
            elif ref.dotted() in UNSTEADY:
                return None
    return frozenset(found)


def as_tree(paths: Iterable[tuple[str, ...]]) -> Paths:
    """Paths folded into nested keys: `{("a","b"), ("a","c"), ("d",)}` → `{"a": {"b": None, "c": None}, "d": None}`."""
    root: dict[str, Paths | None] = {}
    for path in sorted(paths, key=len, reverse=True):
        node = root
        for key in path[:-1]:
            child = node.setdefault(key, {})
            if not isinstance(child, dict):
                break
            node = child
        # The shorter path comes last and wins: it reads everything that the longer ones read.
        node[path[-1]] = None
    return root


def project(document: Json, paths: Paths | None) -> Json:
    """The part of `document` under `paths`; what is absent stays absent. A value that is no object is kept whole."""
    if paths is None or not isinstance(document, Mapping):
        return document
    return {key: project(document[key], below) for key, below in paths.items() if key in document}
