"""Bugs that are put in on purpose: a fuzzer that does not find them proves nothing. Each takes a target and makes it wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from fuzz_case import Broken, Target


def _lenient(target: Target) -> Target:
    """The pipe of a harness is read as `json.loads` does: the last of two keys, NaN, whatever number."""
    from agentos.abi.canonical import NotCanonical
    from agentos.kernel import serving

    def parse(line: bytes) -> Any:
        try:
            return json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise NotCanonical(str(error)) from error

    serving.parse_strict = parse  # type: ignore[attr-defined]
    return target


def _forgiving(target: Target) -> Target:
    """An envelope is taken in any spelling."""
    from agentos.abi import envelope
    from agentos.abi.canonical import parse_strict

    envelope.read_exact = parse_strict  # type: ignore[attr-defined]
    return target


def _raising(target: Target) -> Target:
    """A field that is no text raises what nobody expects."""
    from agentos.abi import event

    def text(body: dict[str, Any], key: str) -> str:
        return str.strip(body[key])

    event._text = text  # type: ignore[attr-defined]
    return target


def _leaking(target: Target) -> Target:
    """Every case leaves a megabyte behind."""
    kept: list[bytearray] = []

    def check(data: bytes) -> str:
        kept.append(bytearray(b"x" * (1 << 20)))
        return target.check(data)

    return replace(target, check=check)


def _slow(target: Target) -> Target:
    """A comma too many costs more than a second."""

    def check(data: bytes) -> str:
        if b",," in data:
            until = time.process_time() + 1.5
            while time.process_time() < until:
                pass
        return target.check(data)

    return replace(target, check=check)


def _deep(target: Target) -> Target:
    """Three bytes, each looked at only if the one before is right: what is not guided by coverage goes past it."""
    from fuzz_planted_deep import reached

    def check(data: bytes) -> str:
        if reached(data):
            raise Broken("the planted place was reached")
        return "taken"

    return replace(target, name="planted.deep", check=check, made=lambda: [b"aaaaaa"], longest=8)


PLANTED: Final[dict[str, Callable[[Target], Target]]] = {
    "lenient": _lenient,
    "forgiving": _forgiving,
    "raising": _raising,
    "leaking": _leaking,
    "slow": _slow,
    "deep": _deep,
}
