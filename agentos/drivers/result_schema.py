"""Whether the structured part of a result fits the schema that its Tool declares."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from agentos.abi.canonical import Json, canonical, parse_strict
from agentos.drivers.bounded import bounded_validator, first_error


def misfit(schema: Mapping[str, Json], data: Json) -> str | None:
    """Why `data` does not fit `schema` (JSON Schema 2020-12, known to be valid), in one sentence; None if it does."""
    error = first_error(_validator(canonical(dict(schema))), data)
    if error is None:
        return None
    place = ".".join(str(part) for part in error.absolute_path)
    message = error.message if len(error.message) <= 300 else error.message[:300] + "…"
    return f"{place}: {message}" if place else message


@lru_cache(maxsize=256)
def _validator(schema: bytes) -> Any:
    return bounded_validator()(parse_strict(schema))
