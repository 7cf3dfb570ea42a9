"""Frames: one line of ASCII each, whatever they carry."""

from __future__ import annotations

import json
from typing import Any

import pytest
from abi_values import JSON, TEXT
from hypothesis import given
from hypothesis import strategies as st

from agentos.abi import rpc
from agentos.abi.canonical import parse_strict
from agentos.abi.syscall import Result

PARAMS = st.dictionaries(TEXT, JSON, max_size=3)


def body(frame: bytes) -> Any:
    """The one object of a frame, after looking at how it is framed."""
    assert frame.isascii()
    assert frame.endswith(b"\n")
    assert frame.count(b"\n") == 1
    assert b"\r" not in frame
    return parse_strict(frame)


@given(st.integers(0, 2**31), TEXT, PARAMS)
def test_a_request(number: int, method: str, params: dict[str, Any]) -> None:
    """id, method and params come out as they went in."""
    assert body(rpc.request(number, method, params)) == {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


@given(TEXT, PARAMS)
def test_a_notification_has_no_id(method: str, params: dict[str, Any]) -> None:
    """Nobody can answer it."""
    assert body(rpc.notification(method, params)) == {"jsonrpc": "2.0", "method": method, "params": params}


@given(st.integers(0, 2**31) | st.none(), JSON)
def test_a_response_carries_any_value(number: int | None, result: Any) -> None:
    """Also null is a result."""
    assert body(rpc.response(number, result)) == {"jsonrpc": "2.0", "id": number, "result": result}


@given(st.integers(0, 2**31) | st.none(), st.sampled_from([rpc.PARSE_ERROR, rpc.PARKED, rpc.ENDED]), TEXT)
def test_an_error_carries_code_and_message(number: int | None, code: int, message: str) -> None:
    """The code says whether to leave."""
    assert body(rpc.error(number, code, message))["error"] == {"code": code, "message": message}


def test_codes_of_the_kernel_lie_in_the_range_for_servers() -> None:
    """JSON-RPC 2.0 keeps -32000 to -32099 for them."""
    assert len({rpc.PARKED, rpc.ENDED}) == 2
    assert all(-32099 <= code <= -32000 for code in (rpc.PARKED, rpc.ENDED))


def test_a_lone_surrogate_is_still_one_ascii_line() -> None:
    """What a harness cannot name in UTF-8 is escaped, and strict reading refuses it on the other side."""
    frame = rpc.response(1, {"content": "\ud800\n"})
    assert frame.isascii()
    assert frame.count(b"\n") == 1
    assert json.loads(frame)["result"] == {"content": "\ud800\n"}


def test_what_is_not_json_is_never_framed() -> None:
    """NaN has no place in a frame."""
    with pytest.raises(ValueError):
        rpc.response(1, float("nan"))


@given(TEXT, JSON, st.booleans(), st.lists(TEXT, max_size=3))
def test_a_result_survives_the_log(content: str, data: Any, is_error: bool, labels: list[str]) -> None:
    """`Result.from_dict` inverts `to_dict`; absent means None and no labels."""
    result = Result(content, data, is_error, tuple(labels))
    assert Result.from_dict(json.loads(json.dumps(result.to_dict()))) == result
