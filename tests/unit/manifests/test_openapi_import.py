"""From an OpenAPI document to Tools: names, the part of the document that each needs, and what is left out."""

from __future__ import annotations

from typing import Any

import pytest

from agentos.abi.errors import ManifestError
from agentos.abi.ids import is_name
from agentos.drivers.openapi import operation
from agentos.drivers.openapi_schema import OpenApiFault
from agentos.manifests.openapi_import import MAX_TOOL, Wishes, import_tools, slim

URL = Wishes(url="https://a.example")


def document(*ids: str, **more: Any) -> dict[str, Any]:
    return {"openapi": "3.1.0", "paths": {f"/{n}": {"get": {"operationId": one, **more}} for n, one in enumerate(ids)}}


@pytest.mark.parametrize(
    ("operation_id", "name"),
    [
        ("listOrders", "list-orders"),
        ("getHTTPStatus", "get-http-status"),
        ("orders/list_all.v2", "orders-list-all-v2"),
        ("7days", "op-7days"),
        ("日本", "op"),
        ("x" * 200, "x" * 63),
    ],
)
def test_names(operation_id: str, name: str) -> None:
    """Words in lower case with hyphens: always a valid name."""
    made = import_tools(document(operation_id), URL).tools[0]["metadata"]["name"]
    assert made == name
    assert is_name(made)


def test_names_are_given_once() -> None:
    """What would be called alike is numbered; a prefix stands before it."""
    made = import_tools(document("a-b", "aB", "a_b"), Wishes(url="https://a.example", prefix="acme"))
    assert [tool["metadata"]["name"] for tool in made.tools] == ["acme-a-b", "acme-a-b-2", "acme-a-b-3"]


def test_the_part_that_is_needed_means_the_same() -> None:
    """References are followed wherever they lead, also into what is there already and in circles."""
    whole = document(
        "op",
        parameters=[
            {"name": "a", "in": "query", "schema": {"$ref": "#/components/schemas/Tree"}},
            {"name": "b", "in": "query", "schema": {"$ref": "#/components/schemas/Tree/properties/leaf"}},
            {"name": "c", "in": "query", "schema": {"$ref": "#/x~1y/%7Ba%7D"}},
        ],
        responses={"200": {"$ref": "#/components/responses/Big"}},
    )
    tree = {"type": "object", "properties": {"leaf": {"enum": [{"example": 1}]}, "more": {"$ref": "#/components/schemas/Tree"}}}
    whole |= {
        "components": {"schemas": {"Tree": tree, "Unused": {}}, "responses": {"Big": {}}},
        "x/y": {"{a}": {"type": "string"}},
    }
    part = slim(whole, "/0", "get", "op")
    assert part["components"] == {"schemas": {"Tree": tree}}
    assert operation(part, "op") == operation(whole, "op")
    assert operation(part, "op").schema == operation(whole, "op").schema


def test_what_only_people_read_is_left_out() -> None:
    """Examples, extensions, bounds beyond any number of ours; a property of such a name stays."""
    names = {"example": {"type": "string", "example": "x"}, "x-a": {"type": "integer", "maximum": "9223372036854775807"}}
    body = {"content": {"application/json": {"schema": {"type": "object", "properties": names}, "examples": {}}}}
    part = slim({"openapi": "3.0.0", "paths": {"/": {"post": {"requestBody": body, "x-b": 1}}}}, "/", "post", "op")
    schema = part["paths"]["/"]["post"]["requestBody"]["content"]["application/json"]
    assert schema == {"schema": {"type": "object", "properties": {"example": {"type": "string"}, "x-a": {"type": "integer"}}}}


def test_references_into_lists() -> None:
    """A parameter of another operation is found again; one of its own list, which stands there already, is told."""
    other = document("op", parameters=[{"$ref": "#/paths/~11/get/parameters/0"}])
    other["paths"]["/1"] = {"get": {"parameters": [{"name": "a", "in": "query"}]}}
    part = slim(other, "/0", "get", "op")
    assert operation(part, "op").schema == operation(other, "op").schema
    own = document("op", parameters=[{"$ref": "#/paths/~10/get/parameters/1"}, {"name": "a", "in": "query"}])
    assert import_tools(own, URL).left_out[0].startswith("op: the reference")
    with pytest.raises(ManifestError, match=r"^op: the reference"):
        import_tools(own, Wishes(("op",), "https://a.example"))


def test_what_is_too_large_is_left_out() -> None:
    """A tool with half a megabyte of schema is none."""
    made = import_tools(document("op", description="x" * MAX_TOOL), URL)
    assert made.tools == []
    assert "bytes" in made.left_out[0]


@pytest.mark.parametrize(
    ("servers", "url"),
    [
        ([{"url": "https://{r}.a.example", "variables": {"r": {"default": "eu"}}}], "https://eu.a.example"),
        ([{"url": "/v1"}], None),
        ([{"url": "https://{r}.a.example"}], None),
        ([], None),
        ("odd", None),
    ],
)
def test_servers(servers: Any, url: str | None) -> None:
    """The first server with its variables filled in; without an absolute address one has to be given."""
    made = import_tools({**document("op"), "servers": servers}, Wishes())
    if url is None:
        assert made.tools == []
        assert len(made.left_out) == 1
    else:
        assert made.tools[0]["spec"]["driver"]["http"]["url"] == url


def test_odd_documents_raise_nothing_else() -> None:
    """Whatever stands where operations stand."""
    for odd in (7, [], {"get": 7}, {"get": {"parameters": 7}}, {"get": {"parameters": [{"$ref": 7}]}}, {"$ref": "#/paths/~1x"}):
        made = import_tools({"openapi": "3.1.0", "paths": {"/x": odd}}, URL)
        assert made.tools == []
    with pytest.raises(OpenApiFault):
        import_tools({"openapi": "3.1.0", "paths": {"/x": {"$ref": "other.yaml"}}}, URL)
