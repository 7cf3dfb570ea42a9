"""Resources and their keys: there and back."""

from __future__ import annotations

import json

import pytest
from abi_values import JSON, TEXT
from hypothesis import given
from hypothesis import strategies as st

from agentos.abi.canonical import digest, parse_strict
from agentos.abi.resource import KINDS, Key, Resource, is_fleet_kind

NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True)
KEYS = st.sampled_from(KINDS).flatmap(
    lambda kind: st.builds(Key, st.just(kind), st.just("*") if is_fleet_kind(kind) else NAMES, NAMES)
)
RESOURCES = st.builds(
    Resource,
    key=KEYS,
    labels=st.dictionaries(TEXT, TEXT, max_size=2),
    annotations=st.dictionaries(TEXT, TEXT, max_size=2),
    spec=st.dictionaries(TEXT, JSON, max_size=3),
)


@given(RESOURCES)
def test_a_resource_survives_its_blob(resource: Resource) -> None:
    """The stored bytes give the resource again, and the digest is theirs."""
    stored = resource.to_bytes()
    again = Resource.from_dict(parse_strict(stored))
    assert again == resource
    assert (again.to_bytes(), resource.digest()) == (stored, digest(stored))


@given(RESOURCES)
def test_the_manifest_form_is_a_manifest(resource: Resource) -> None:
    """apiVersion, kind, metadata, spec; what is of the fleet has no tenant; nothing empty is written."""
    body = json.loads(json.dumps(resource.to_dict()))
    assert list(body) == ["apiVersion", "kind", "metadata", "spec"]
    assert ("tenant" in body["metadata"]) == (not is_fleet_kind(resource.key.kind))
    assert all(body["metadata"].values())


@given(KEYS)
def test_a_key_survives_its_text(key: Key) -> None:
    """`Key.parse` inverts `str`."""
    assert Key.parse(str(key)) == key


@given(st.text(alphabet="agent/tenant*x-", max_size=20))
def test_what_is_no_key_is_a_value_error(text: str) -> None:
    """A text is a key that writes itself, or ValueError."""
    try:
        assert str(Key.parse(text)) == text
    except ValueError:
        return


@pytest.mark.parametrize("text", ["", "agent", "agent/default", "agent/default/a/b", "Agent/default/a", "surface/default/a"])
def test_texts_that_are_no_keys(text: str) -> None:
    """Three parts, the first a kind in lower case."""
    with pytest.raises(ValueError):
        Key.parse(text)


def test_tenants_and_priority_classes_are_of_the_fleet() -> None:
    """Two kinds belong to no tenant; a manifest of one is read to the tenant `*`."""
    assert [kind for kind in KINDS if is_fleet_kind(kind)] == ["Tenant", "PriorityClass"]
    body = {"apiVersion": "agentos/v1", "kind": "PriorityClass", "metadata": {"name": "nightly"}, "spec": {"rank": 1}}
    assert str(Resource.from_dict(body).key) == "priorityclass/*/nightly"
