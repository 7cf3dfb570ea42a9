"""Checking arguments against a tool's input schema: one compiled validator per tool, one sentence for what does not fit."""

from __future__ import annotations

from collections.abc import Mapping

from jsonschema.exceptions import ValidationError

from agentos.abi.canonical import Json
from agentos.drivers.bounded import bounded_validator, first_error, patterned
from agentos.kernel.port import ArgumentCheck
from agentos.manifests.accept import compile_schema


def compile_check(schema: Mapping[str, Json]) -> ArgumentCheck:
    """The check of a tool whose input schema is `schema` (JSON Schema 2020-12, already known to be valid)."""
    validator = bounded_validator()(dict(schema))
    # The quick predicates match expressions by Python's engine, which a model's text can keep busy for ever.
    fits = compile_schema(dict(schema) if not patterned(schema) else False)

    def check(args: Mapping[str, Json]) -> str | None:
        # The predicate never accepts what the schema refuses; what it does not accept, jsonschema judges and explains.
        if fits(args):
            return None
        error = first_error(validator, dict(args))
        return None if error is None else _sentence(error)

    return check


def _sentence(error: ValidationError) -> str:
    place = ".".join(str(part) for part in error.absolute_path)
    message = error.message if len(error.message) <= 300 else error.message[:300] + "…"
    return f"argument {place}: {message}" if place else f"arguments: {message}"
