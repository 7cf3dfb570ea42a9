"""One value printed as it was asked for: JSON, YAML, or lines for people."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from agentos.abi.canonical import Json
from agentos.cli.command import emit_json, emit_yaml


def show(value: Json, output: StrEnum, lines: Callable[[], object]) -> None:
    """Print `value` as `output` says: `json`, `yaml`, or for anything else what `lines` prints."""
    match str(output):
        case "json":
            emit_json(value)
        case "yaml":
            emit_yaml(value)
        case _:
            lines()
