"""Attributes: a header says nothing that somebody wrote, whatever stands in the payload."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentos.abi import event as ev
from agentos.abi.assets import asset
from agentos.abi.attributes import SESSION_LEVEL, attributes_of, names_of, session_attributes, trace_of
from agentos.abi.event import Event
from agentos.abi.record import header_of

SCHEMA: dict[str, Any] = json.loads((asset("schemas") / "v1" / "event.json").read_text())

SESSION_TYPES = sorted(
    kind
    for kind in SCHEMA["properties"]["type"]["enum"]
    if not kind.startswith(("agentos.registry.", "agentos.principal.", "agentos.audit."))
)

NAMES = {
    "admitted/class",
    *("agent", "call", "tool", "effect", "engine", "scope", "outcome"),
    *("decision/effect", "decision/rules/*", "decision/grants/*", "decision/obligations/*/kind"),
    *("charged/*/kind", "charged/*/name", "charged/*/per", "charged/*/grant", "charged/*/digest"),
    *("reserved/program", "reserved/day", "reserved/lineage"),
    *("rules/*", "rule", "approvals/*/by", "policy/data", "policy/engine", "error/code", "labels/*", "result/labels/*", "parent"),
    *("deferred/after/*", "deferred/after_any/*"),
    *("children/*", "child", "code", "freeze", "firing/trigger", "firing/id"),
}
"""Places of a payload that hold names, verdicts and labels of the runtime's own: what a header may say."""

MODEL = {"args/model"}
"""And of a model call, the model."""


def places(schema: dict[str, Any], where: str = "") -> Iterator[str]:
    """Every place of text that a payload of this schema can have: `decision/reasons/*`."""
    if "$ref" in schema:
        yield from places(SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")], where)
        return
    for one in schema.get("oneOf", schema.get("anyOf", ())):
        yield from places({"properties": schema.get("properties", {}), **one}, where)
    kind = schema.get("type")
    for name, inner in schema.get("properties", {}).items():
        yield from places(inner, f"{where}/{name}" if where else name)
    more = schema.get("additionalProperties")
    if isinstance(more, dict):
        yield from places(more, f"{where}/more")
    elif more is not False and (kind == "object" and not schema.get("properties")):
        yield f"{where}/anything"
    if "items" in schema:
        yield from places(schema["items"], f"{where}/*")
    elif kind == "array":
        yield f"{where}/*"
    if kind == "string" or "enum" in schema or "pattern" in schema or (not schema.keys() - {"description", "title"}):
        yield where


def put(data: dict[str, Any], where: str, value: Any) -> None:
    """Set the place in `data`, making what is missing on the way."""
    first, _, rest = where.partition("/")
    if not rest:
        data[first] = value
        return
    if rest == "*":
        data.setdefault(first, []).append(value)
    elif rest.startswith("*/"):
        items = data.setdefault(first, [])
        if not items:
            items.append({})
        put(items[0], rest.removeprefix("*/"), value)
    else:
        put(data.setdefault(first, {}), rest, value)


def planted(kind: str, text: Callable[[int], str]) -> dict[str, Any]:
    """A payload with a text of its own in every place that is nobody's name."""
    data: dict[str, Any] = {}
    for number, where in enumerate(sorted(set(places(SCHEMA["$defs"][kind])))):
        if where not in NAMES:
            put(data, where, text(number))
    return data


@pytest.mark.parametrize("kind", SESSION_TYPES)
@settings(max_examples=20, deadline=None)
@given(word=st.text(st.characters(min_codepoint=0x61, max_codepoint=0x7A), min_size=8, max_size=12))
def test_no_word_of_a_payload_reaches_the_header(kind: str, word: str) -> None:
    """A canary in every place of text that the schema knows of the type, but names: none of them is in the header."""
    data = planted(kind, lambda number: f"zz{word}{number}zz")
    attributes = attributes_of(kind, data) | {"traceparent": trace_of("s-1", "ab" * 16)}
    event = Event("ab" * 16, kind, "default", "s-1", 2, "sha256:" + "0" * 64, 0, "system/kernel", 1, None, data, attributes)
    record = event.to_record(bytes(16))
    assert f"zz{word}".encode() not in header_of(record)
    assert data == {} or f"zz{word}".encode() in record


@pytest.mark.parametrize("kind", SESSION_TYPES)
def test_the_schema_has_places_to_plant_in(kind: str) -> None:
    """The test above plants wherever the schema has free text; types whose payload is numbers alone have none."""
    free = set(places(SCHEMA["$defs"][kind])) - NAMES
    assert free or kind in {ev.SESSION_OWNED, ev.SESSION_REVISED, ev.SESSION_FROZEN, ev.SYSCALL_UNKNOWN}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = sorted({name for kind in SESSION_TYPES for name in SCHEMA["$defs"][kind].get("properties", {})})


@given(st.sampled_from(SESSION_TYPES), st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=8))
def test_any_payload_has_attributes(kind: str, data: dict[str, Any]) -> None:
    """Whatever its shape, nothing is raised, and each attribute is a text that is not empty or a whole number."""
    for name, value in attributes_of(kind, data).items():
        assert name in SCHEMA["properties"]
        assert name not in SESSION_LEVEL
        assert type(value) is int or (type(value) is str and value != "")


def test_a_decision_says_who_what_and_why() -> None:
    """Names and verdicts, and the model of a model call alone."""
    data = {
        "call": "c1",
        "tool": "send-mail",
        "effect": "external",
        "turn": 3,
        "args": {"model": "not told"},
        "decision": {
            "effect": "allow",
            "rules": ["a.b", "c.d"],
            "grants": ["g"],
            "obligations": [{"kind": "cap", "rule": "c.d"}],
        },
        "approvals": [{"by": "principal/anna", "reason": "not told"}],
        "policy": {"engine": "opa 1", "data": "sha256:00"},
    }
    told = attributes_of(ev.SYSCALL_DECIDED, data)
    assert told == {
        "call": "c1",
        "tool": "send-mail",
        "tooleffect": "external",
        "turn": 3,
        "decision": "allow",
        "rules": "a.b,c.d",
        "grants": "g",
        "obligations": "cap",
        "approvals": "principal/anna",
        "engine": "opa 1",
        "datadigest": "sha256:00",
    }
    assert names_of(told, "rules") == ["a.b", "c.d"]
    assert names_of(told, "turn") == names_of(told, "none") == []
    assert attributes_of(ev.SYSCALL_DECIDED, {**data, "tool": "model-call"})["model"] == "not told"


def test_a_session_is_told_by_its_first_event() -> None:
    """Its agent, who started it, and where it came from, if anywhere."""
    assert session_attributes("principal/al", {"agent": "triage", "goal": "x"}) == {
        "agent": "triage",
        "onbehalfof": "principal/al",
    }
    assert session_attributes("principal/al", {"parent": "s-0", "agent": 1}) == {"parent": "s-0", "onbehalfof": "principal/al"}


@given(st.text("0123456789abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=40), st.binary(min_size=16, max_size=16))
def test_a_trace_is_what_w3c_says(session: str, name: bytes) -> None:
    """Version, 32 and 16 hex digits, flags: one trace per session, one span per event."""
    version, trace, span, flags = trace_of(session, name.hex()).split("-")
    assert (version, flags, len(trace), len(span)) == ("00", "01", 32, 16)
    assert int(trace, 16) >= 0
    assert trace == trace_of(session, "0" * 32).split("-")[1]
