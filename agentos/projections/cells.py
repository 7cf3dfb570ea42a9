"""The cells of the read model's rows: texts of bounded length, JSON as text."""

from __future__ import annotations

from typing import Final

import orjson

from agentos.abi.canonical import Json

MAX_ARGS: Final = 4096
"""Longest JSON text of a call's arguments kept in a row, in characters; the log keeps them whole."""

MAX_TEXT: Final = 4096
"""Longest free text (goal, result, error, reason) kept in a row, in characters."""

MAX_ARGUMENT: Final = 256
"""Longest single text among the arguments, once the whole is too long, in characters."""


def text(body: Json, key: str) -> str:
    """The text at `key`. Raises KeyError or ValueError."""
    value = body[key]
    if type(value) is not str:
        raise ValueError(f"{key} is not text")
    return value


def texts(value: Json) -> list[str]:
    """`value`, which is a list of texts. Raises ValueError."""
    if not isinstance(value, list) or not all(type(item) is str for item in value):
        raise ValueError("expected a list of texts")
    return value


def error(body: Json) -> str:
    """`{code, message}` on one line."""
    return clip(f"{text(body, 'code')}: {text(body, 'message')}") if isinstance(body, dict) else clip(str(body))


def clip(text: str, limit: int = MAX_TEXT) -> str:
    """`text`, cut where it is longer than a row keeps."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"


def dump(value: Json) -> str:
    """`value` as JSON text."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def bounded(args: Json) -> str:
    """Arguments as JSON text of bounded length: long texts are shortened first, then the whole is replaced by its size."""
    text = dump(args)
    if len(text) <= MAX_ARGS:
        return text
    short = dump(_shorten(args))
    return short if len(short) <= MAX_ARGS else dump(f"… ({len(text)} characters: see the log)")


def _shorten(value: Json) -> Json:
    if isinstance(value, str):
        return clip(value, MAX_ARGUMENT)
    if isinstance(value, dict):
        return {key: _shorten(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shorten(item) for item in value]
    return value
