"""An operation of an OpenAPI document as a tool: its arguments, where they go, and what is refused, with the place."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from agentos.drivers.http_request import Body, Parameter, Style, build
from agentos.drivers.openapi import arguments, operation, operation_ids
from agentos.drivers.openapi_schema import OpenApiFault


def document(operation: dict[str, Any] | None = None, version: str = "3.1.0", path: str = "/pets", **more: Any) -> dict[str, Any]:
    method = more.pop("method", "get")
    return {"openapi": version, "paths": {path: {method: {"operationId": "op", **(operation or {})}}}, **more}


def query(name: str, schema: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, **more}


def posting(
    schema: Any, version: str = "3.1.0", *, required: bool = True, kind: str = "application/json", **components: Any
) -> Any:
    body = {"required": required, "content": {kind: {"schema": schema}}}
    return document({"requestBody": body}, version, method="post", components={"schemas": components})


def test_where_arguments_go() -> None:
    """Path, query and headers by their names; those of the operation override those of the path."""
    made = operation(
        {
            "openapi": "3.1.0",
            "paths": {
                "/pets/{petId}/toys": {
                    "parameters": [
                        {"name": "petId", "in": "path", "required": True, "schema": {"type": "integer"}},
                        query("limit", {"type": "string"}),
                    ],
                    "get": {
                        "operationId": "op",
                        "summary": "List the toys.",
                        "parameters": [
                            query("limit", {"type": "integer", "maximum": 10}, description="How many.", required=True),
                            query("tags", {"type": "array", "items": {"type": "string"}}, explode=False),
                            {"name": "X-Region", "in": "header", "schema": {"type": "string"}},
                            {"name": "Accept", "in": "header", "required": True},
                        ],
                    },
                }
            },
        },
        "op",
    )
    assert made.shape.method == "GET"
    assert made.shape.path == "/pets/{petId}/toys"
    assert made.shape.query == (Parameter("limit", "limit"), Parameter("tags", "tags", Style.COMMA))
    assert made.shape.headers == (Parameter("X-Region", "X-Region", Style.COMMA),)
    assert made.schema == {
        "type": "object",
        "properties": {
            "petId": {"type": "integer"},
            "limit": {"type": "integer", "maximum": 10, "description": "How many."},
            "tags": {"type": "array", "items": {"type": "string"}},
            "X-Region": {"type": "string"},
        },
        "additionalProperties": False,
        "required": ["petId", "limit"],
    }
    assert made.summary == "List the toys."


def test_names_that_are_taken() -> None:
    """The same name in several places: the later one says where it is; odd characters become underscores."""
    made = operation(
        document(
            {
                "parameters": [
                    {"name": "id", "in": "path", "required": True},
                    query("id", {"type": "string"}),
                    query("filter[name]", {"type": "string"}),
                ],
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"type": "object", "properties": {"id": {"type": "integer"}}}}},
                },
            },
            path="/pets/{id}",
            method="put",
        ),
        "op",
    )
    assert list(made.schema["properties"]) == ["id", "query_id", "filter_name_", "body"]
    request = build(
        {"url": "https://a.example"}, made.shape, {"id": "x", "query_id": "y", "filter_name_": "z", "body": {"id": 1}}, "k"
    )
    assert request.url == "https://a.example/pets/x?id=y&filter%5Bname%5D=z"
    assert request.body == b'{"id":1}'


def test_too_many_of_one_name() -> None:
    """A third of the same name has none left."""
    with pytest.raises(OpenApiFault, match="two arguments would be called"):
        operation(document({"parameters": [query("a b", {}), query("a_b", {}), query("a?b", {})]}), "op")


def test_a_plain_body_gives_its_fields() -> None:
    """The fields of an object are arguments, without those that only the answer has."""
    pet = {
        "type": "object",
        "required": ["name", "id"],
        "properties": {"id": {"type": "integer", "readOnly": True}, "name": {"type": "string"}, "tag": {"type": "string"}},
    }
    made = operation(posting({"$ref": "#/components/schemas/Pet"}, Pet=pet), "op")
    assert made.shape.body == Body(fields=(("name", "name"), ("tag", "tag")), required=True)
    assert made.schema["properties"] == {"name": {"type": "string"}, "tag": {"type": "string"}}
    assert made.schema["required"] == ["name"]


FIELDS = {"type": "object", "properties": {"a": {"type": "string"}}}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array"},
        {"oneOf": [FIELDS]},
        {**FIELDS, "oneOf": [{"required": ["a"]}]},
        {**FIELDS, "additionalProperties": True},
        {**FIELDS, "minProperties": 1},
        {"type": "object"},
        {"properties": {"a": {}}},
        True,
    ],
)
def test_any_other_body_is_one_argument(schema: Any) -> None:
    """What its fields alone would not say is given as a whole."""
    made = operation(posting(schema), "op")
    assert made.shape.body == Body(whole="body", required=True)
    assert made.schema["required"] == ["body"]


def test_an_optional_body_with_a_needed_field_is_one_argument() -> None:
    """Fields alone could not say that nothing at all is fine."""
    made = operation(posting({**FIELDS, "required": ["a"]}, required=False), "op")
    assert made.shape.body == Body(whole="body")
    assert "required" not in made.schema


@pytest.mark.parametrize(
    ("kind", "whole"),
    [("application/vnd.api+json", False), ("application/x-www-form-urlencoded", False), ("text/plain", True)],
)
def test_content_types_of_a_body(kind: str, whole: bool) -> None:
    """JSON, forms and text are sent as what they are."""
    body = operation(posting({"type": "string"} if whole else FIELDS, kind=kind), "op").shape.body
    assert body is not None
    assert (body.content_type, body.whole is not None) == (kind, whole)


def test_secrets_are_no_arguments() -> None:
    """Headers and cookies that carry secrets are told of where they are needed, and never asked of the model."""
    made = operation(
        document(
            {
                "parameters": [
                    {"name": "X-Api-Key", "in": "header", "required": True},
                    {"name": "X-Auth-Token", "in": "header"},
                    {"name": "session", "in": "cookie", "required": True},
                    {"name": "theme", "in": "cookie"},
                    {"name": "Authorization", "in": "header", "required": True},
                ]
            }
        ),
        "op",
    )
    assert made.schema["properties"] == {}
    assert made.by_credential == ("X-Api-Key", "Cookie")


def test_headers_that_are_declared_are_no_arguments() -> None:
    """What the tool's own `headers` give is not asked of the model."""
    spec = document({"parameters": [{"name": "X-Version", "in": "header", "required": True}]})
    http = {"url": "https://a.example", "headers": {"x-version": "7"}, "openapi": {"document": spec, "operation": "op"}}
    assert arguments(http) == {}
    assert arguments({**http, "headers": {}}) == {"X-Version": {"type": "string"}}
    assert arguments({**http, "openapi": {"document": {}, "operation": "op"}}) is None


# --- schemas


def test_references_are_copied() -> None:
    """What is referred to stands in $defs, once; two things of one name get two; trees may hold themselves."""
    node = {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#/components/schemas/Node"}}}}
    spec = document(
        {
            "parameters": [
                {"$ref": "#/components/parameters/P"},
                query("b", {"$ref": "#/components/schemas/Node"}),
                query("c", {"$ref": "#/x~1y/Node"}),
                query("d", {"$ref": "#/components/schemas/Node", "description": "beside"}),
            ]
        },
        components={"schemas": {"Node": node}, "parameters": {"P": query("a", {"$ref": "#/components/schemas/Node"})}},
    )
    spec["x/y"] = {"Node": {"type": "string"}}
    made = operation(spec, "op")
    assert made.schema["properties"]["a"] == made.schema["properties"]["b"] == {"$ref": "#/$defs/Node"}
    assert made.schema["properties"]["c"] == {"$ref": "#/$defs/Node_2"}
    assert made.schema["properties"]["d"] == {"$ref": "#/$defs/Node", "description": "beside"}
    assert made.schema["$defs"]["Node"]["properties"]["children"]["items"] == {"$ref": "#/$defs/Node"}
    Draft202012Validator.check_schema(dict(made.schema))
    good = {"a": {"children": [{"children": []}]}}
    assert Draft202012Validator(dict(made.schema)).is_valid(good)
    assert not Draft202012Validator(dict(made.schema)).is_valid({"a": {"children": [{"children": 1}]}})


def test_schemas_of_3_0() -> None:
    """`nullable`, boolean exclusive bounds and references that count alone, in the words of 2020-12."""
    made = operation(
        posting(
            {
                "type": "object",
                "properties": {
                    "a": {"type": "string", "nullable": True, "enum": ["x"], "example": "x"},
                    "b": {"type": "integer", "minimum": 0, "exclusiveMinimum": True, "maximum": 5, "exclusiveMaximum": False},
                    "c": {"$ref": "#/components/schemas/C", "nullable": True, "description": "ignored"},
                    "d": {"nullable": True, "allOf": [{"$ref": "#/components/schemas/C"}]},
                    "e": {"type": "string", "xml": {"name": "x"}, "x-go": 1},
                },
            },
            "3.0.3",
            C={"type": "string"},
        ),
        "op",
    )
    assert made.schema["properties"] == {
        "a": {"type": ["string", "null"], "enum": ["x", None]},
        "b": {"type": "integer", "exclusiveMinimum": 0, "maximum": 5},
        "c": {"$ref": "#/$defs/C"},
        "d": {"anyOf": [{"allOf": [{"$ref": "#/$defs/C"}]}, {"type": "null"}]},
        "e": {"type": "string"},
    }
    Draft202012Validator.check_schema(dict(made.schema))


def test_names_of_properties_are_no_keywords() -> None:
    """A property called `$ref`, `example` or `items` is one."""
    names = {name: {"type": "string"} for name in ("example", "items", "x-y", "$id", "nullable", "required")}
    made = operation(posting({"type": "array", "items": {"type": "object", "properties": names}}), "op")
    assert made.schema["properties"]["body"]["items"]["properties"] == names


LOOP = {"$ref": "#/components/schemas/L"}


@pytest.mark.parametrize(
    ("schemas", "said"),
    [
        ({"L": LOOP}, "refers to itself"),
        ({"L": {"allOf": [{"$ref": "#/components/schemas/M"}]}, "M": {"anyOf": [{"not": LOOP}]}}, "refers to itself"),
        ({"L": {"$ref": "https://evil.example/x"}}, "leads out of the document"),
        ({"L": {"$ref": "other.yaml#/X"}}, "leads out of the document"),
        ({"L": {"$ref": "#/components/schemas/Gone"}}, "leads nowhere"),
        ({"L": {"$ref": 7}}, "leads out of the document"),
        ({"L": {"$id": "https://a.example"}}, "second address"),
        ({"L": {"$dynamicRef": "#x"}}, "second address"),
        ({"L": {"$schema": "http://json-schema.org/draft-07/schema#"}}, "dialect"),
        ({"L": {"properties": {"a": []}}}, "a schema is an object"),
        ({"L": {"items": 7}}, "a schema is an object"),
    ],
)
def test_schemas_that_are_refused(schemas: Any, said: str) -> None:
    """References that leave, lead nowhere or never end, and schemas that are none."""
    with pytest.raises(OpenApiFault, match=said):
        operation(posting({"type": "array", "items": LOOP}, **schemas), "op")


def test_sizes_are_bounded() -> None:
    """Depth and number of schemas, also where references multiply them; and chains of references."""
    deep: Any = {}
    for _ in range(100):
        deep = {"items": deep}
    with pytest.raises(OpenApiFault, match="deep"):
        operation(posting(deep), "op")
    with pytest.raises(OpenApiFault, match="made of more than"):
        operation(posting({"allOf": [{}] * 30_000}), "op")
    chain = {f"A{number}": {"$ref": f"#/components/schemas/A{number + 1}"} for number in range(100)}
    with pytest.raises(OpenApiFault, match="references lead to each other"):
        operation(posting({"$ref": "#/components/schemas/A0"}, **chain, A100=FIELDS), "op")


# --- what is refused


PATH = {"name": "id", "in": "path", "required": True}


@pytest.mark.parametrize(
    ("spec", "said", "where"),
    [
        (document(version="2.0"), "version", ("openapi",)),
        (document(version="3.2.0"), "version", ("openapi",)),
        (document(jsonSchemaDialect="https://x.example"), "dialect", ("jsonSchemaDialect",)),
        (document(path="/pets/{id}"), "no parameter", ("paths", "/pets/{id}")),
        (document({"parameters": [PATH]}), "0 times", ("paths", "/pets")),
        (document({"parameters": [PATH]}, path="/p/{id}/{id}"), "2 times", ("paths", "/p/{id}/{id}")),
        (document(path="/a/../b"), "has a part that is", ("paths", "/a/../b")),
        (document({"parameters": {}}), "a list", ("paths", "/pets", "get", "parameters")),
        (document({"parameters": [7]}), "object", ("paths", "/pets", "get", "parameters", 0)),
        (document({"parameters": [{"name": "x", "in": "matrix"}]}), "in", ("paths", "/pets", "get", "parameters", 0)),
        (
            document({"parameters": [{**PATH, "style": "matrix"}]}, path="/{id}"),
            "style",
            ("paths", "/{id}", "get", "parameters", 0, "style"),
        ),
        (
            document({"parameters": [{"name": "Host", "in": "header"}]}),
            "runtime's own",
            ("paths", "/pets", "get", "parameters", 0),
        ),
        (
            document({"parameters": [{"name": "X-HTTP-Method-Override", "in": "header"}]}),
            "policy",
            ("paths", "/pets", "get", "parameters", 0),
        ),
        (document({"requestBody": {"content": {}}}), "has no body", ("paths", "/pets", "get", "requestBody")),
        (posting({}, kind="multipart/form-data"), "multipart", ("paths", "/pets", "post", "requestBody", "content")),
    ],
)
def test_operations_that_are_refused(spec: Any, said: str, where: tuple[Any, ...]) -> None:
    """Each with what is wrong, and where."""
    with pytest.raises(OpenApiFault, match=said) as caught:
        operation(spec, "op")
    assert caught.value.path == where


def test_a_name_that_is_not_there() -> None:
    """The nearest one is named; one that stands twice is refused."""
    spec = document({"operationId": "listPets"})
    with pytest.raises(OpenApiFault) as caught:
        operation(spec, "listPet")
    assert caught.value.mend == "did you mean listPets?"
    with pytest.raises(OpenApiFault) as caught:
        operation(spec, "xyz")
    assert caught.value.mend == "known: listPets"
    spec["paths"]["/other"] = {"post": {"operationId": "listPets"}}
    with pytest.raises(OpenApiFault, match="stands 2 times"):
        operation(spec, "listPets")
    assert list(operation_ids(spec)) == [("listPets", "GET", "/pets"), ("listPets", "POST", "/other")]
