"""Which paths of `input` and `data` exist: read, when first asked, from the JSON Schemas that publish the policy contract."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Final

from agentos.abi.assets import asset
from agentos.abi.canonical import Json
from agentos.policy.syntax import Step

INPUTS: Final[Mapping[str, str]] = {
    "syscall": "policy-input",
    "admission": "admission-input",
    "approval": "approval-input",
    "control": "control-input",
}
"""The schema of the input of each target, `schemas/v1/<name>.json`."""


@cache
def schema(name: str) -> Mapping[str, Json]:
    """The published schema `schemas/v1/<name>.json`."""
    loaded: Mapping[str, Json] = json.loads((asset("schemas") / "v1" / f"{name}.json").read_text("utf-8"))
    return loaded


def unknown_input(target: str, steps: tuple[Step, ...]) -> tuple[tuple[str, ...], str] | None:
    """The first wrong prefix of `input.<steps>` for a target, and what was probably meant (or ""); None: the path exists."""
    return _unknown(schema(INPUTS[target]), steps)


def unknown_data(steps: tuple[Step, ...]) -> tuple[tuple[str, ...], str] | None:
    """The same for `data.<steps>`, packages left out."""
    return _unknown(schema("policy-data"), steps)


def _unknown(root: Mapping[str, Json], steps: tuple[Step, ...]) -> tuple[tuple[str, ...], str] | None:
    node = root
    for count, step in enumerate(steps, start=1):
        node = _resolve(root, node)
        if node.get("type") == "array":
            if isinstance(step, str):
                return _static(steps[:count]), "an index"
            node = node.get("items", {})
            continue
        if node.get("type") != "object":
            # A scalar has no parts; a value of several types, or of none named, is left alone.
            return (_static(steps[:count]), "") if isinstance(node.get("type"), str) else None
        known = node.get("properties", {})
        rest = node.get("additionalProperties", True)
        if isinstance(step, str) and step in known:
            node = known[step]
        elif isinstance(rest, dict):
            node = rest
        elif rest is True or step is None:
            return None
        else:
            return _static(steps[:count]), closest(str(step), known)
    return None


def closest(word: str, known: Collection[str]) -> str:
    """The known word that was probably meant, or ""."""
    return next(iter(get_close_matches(word, list(known), n=1)), "")


def _resolve(root: Mapping[str, Json], node: Mapping[str, Json]) -> Mapping[str, Json]:
    while "$ref" in node:
        target = str(node["$ref"]).rsplit("/", 1)[-1]
        node = root["$defs"][target]
    return node


def _static(steps: tuple[Step, ...]) -> tuple[str, ...]:
    return tuple("_" if step is None else str(step) for step in steps)
