"""What an http tool and its request have to agree on."""

from __future__ import annotations

from typing import Any

import pytest

from agentos.manifests.agreement_http import check_http
from agentos.manifests.fault import dotted


def tool(http: dict[str, Any], properties: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    known = properties or {}
    schema = {"type": "object", "properties": known, "required": list(known), "additionalProperties": False}
    return {"effect": "read", "inputSchema": schema, **spec, "driver": {"http": {"url": "https://a.example", **http}}}


def of_document(parameters: list[Any], **spec: Any) -> dict[str, Any]:
    document = {"openapi": "3.1.0", "paths": {"/x": {"get": {"operationId": "op", "parameters": parameters}}}}
    http = {"url": "https://a.example", "openapi": {"document": document, "operation": "op"}}
    return {"effect": "read", **spec, "driver": {"http": http}}


TEXT = {"type": "string"}
POST = {"method": "POST"}


@pytest.mark.parametrize(
    "spec",
    [
        tool({}),
        tool({"path": "/a/{b}", "query": {"q": "c"}}, {"b": TEXT, "c": {"type": "array"}}),
        tool({**POST, "body": ["b"], "query": {"c": "c"}}, {"b": TEXT, "c": TEXT}, effect="external"),
        tool({**POST, "body": "b", "headers": {"Content-Type": "text/csv"}}, {"b": TEXT}, effect="external"),
        tool(
            {**POST, "body": ["b"], "headers": {"content-type": "application/x-www-form-urlencoded"}},
            {"b": TEXT},
            effect="external",
        ),
        tool({"redirects": 5}, effect="external"),
        tool({"url": "http://10.0.0.1:8080/x", "private": ["10.0.0.0/8"]}),
        tool({}, credentials=[{"secret": "s", "header": "Authorization"}]),
        of_document(
            [{"name": "X-Api-Key", "in": "header", "required": True}], credentials=[{"secret": "s", "header": "x-api-key"}]
        ),
    ],
)
def test_what_agrees(spec: dict[str, Any]) -> None:
    """A sound tool has no problems."""
    assert list(check_http(spec)) == []


HTTP = "spec.driver.http"


@pytest.mark.parametrize(
    ("spec", "code", "where", "said"),
    [
        (tool({"url": "http://a.example"}), "tool.url", f"{HTTP}.url", "plain http"),
        (tool({"url": "https://a.example/%2e%2e"}), "tool.url", f"{HTTP}.url", "`.` or `..`"),
        (tool({"url": "https://a.example//b"}), "tool.url", f"{HTTP}.url", "empty part"),
        (tool({"url": "https://\uff41.example"}), "tool.url", f"{HTTP}.url", "host"),
        (tool({"private": ["10.0.0.0/99"]}), "tool.private", f"{HTTP}.private[0]", "not a network"),
        (tool({"private": ["0.0.0.0/0"]}), "tool.private", f"{HTTP}.private[0]", "every network"),
        (tool({"path": "/a/../b"}), "tool.path", f"{HTTP}.path", "`.` or `..`"),
        (tool({"path": "/{a"}), "tool.path", f"{HTTP}.path", "brace"),
        (
            tool({"path": "/{b}"}, {"a": TEXT, "b": {"type": "array"}, "c": TEXT}),
            "tool.argument",
            "spec.inputSchema.properties.b.type",
            "array",
        ),
        (tool({"path": "/{x}"}), "tool.argument", f"{HTTP}.path", "no property"),
        (tool({"path": "/{x}/{x}"}, {"x": TEXT}), "tool.argument", f"{HTTP}.path", "twice"),
        (tool({"query": {"q": "x", "r": "x"}}, {"x": TEXT}), "tool.argument", f"{HTTP}.query.r", "twice"),
        (tool({**POST, "body": ["y"]}, effect="external"), "tool.argument", f"{HTTP}.body[0]", "no property"),
        (tool({**POST, "body": "y"}, effect="external"), "tool.argument", f"{HTTP}.body", "no property"),
        (tool({}, {"x": TEXT}), "tool.argument", "spec.inputSchema.properties.x", "goes nowhere"),
        (tool({"body": "x"}, {"x": TEXT}), "tool.body", f"{HTTP}.body", "has no body"),
        (tool({"method": "HEAD", "body": ["x"]}, {"x": TEXT}), "tool.body", f"{HTTP}.body", "has no body"),
        (
            tool({**POST, "body": ["x"], "headers": {"Content-Type": "text/plain"}}, {"x": TEXT}, effect="external"),
            "tool.body",
            f"{HTTP}.body",
            "form",
        ),
        (tool(POST), "tool.effect", "spec.effect", "may change"),
        (tool({**POST}, effect="write"), "tool.effect", "spec.effect", "beyond the workspace"),
        (tool({}, effect="write"), "tool.effect", "spec.effect", "beyond the workspace"),
        (tool({**POST, "redirects": 1}, effect="external"), "tool.redirects", f"{HTTP}.redirects", "POST"),
        (tool({"headers": {"Cookie": "a=b"}}), "tool.header", f"{HTTP}.headers.Cookie", "carries secrets"),
        (tool({"headers": {"transfer-encoding": "x"}}), "tool.header", f"{HTTP}.headers.transfer-encoding", "runtime's own"),
        (tool({"headers": {"X-A": "1", "x-a": "2"}}), "tool.header", f"{HTTP}.headers.x-a", "twice"),
        (tool({"headers": {"X-A": "1"}, "idempotencyHeader": "x-a"}), "tool.header", f"{HTTP}.idempotencyHeader", "twice"),
        (
            tool({"headers": {"X-A": "1"}}, credentials=[{"secret": "s", "header": "x-a"}]),
            "tool.header",
            "spec.credentials[0].header",
            "twice",
        ),
        (
            of_document([{"name": "X-Api-Key", "in": "header", "required": True}]),
            "tool.openapi",
            f"{HTTP}.openapi.document.paths./x.get",
            "X-Api-Key",
        ),
        (
            of_document([{"name": "q", "in": "query", "schema": {"pattern": "("}}]),
            "tool.openapi",
            f"{HTTP}.openapi.document.paths./x.get",
            "regular expression",
        ),
    ],
)
def test_what_does_not_agree(spec: dict[str, Any], code: str, where: str, said: str) -> None:
    """Each with where it stands, and how to mend it."""
    found = [problem for problem in check_http(spec) if problem.code == code and said in problem.message]
    assert [dotted(problem.path) for problem in found] == [where]
    assert all(problem.mend for problem in found)


def test_a_part_of_the_path_is_required() -> None:
    """Without it there is no path."""
    spec = tool({"path": "/{x}"}, {"x": TEXT})
    spec["inputSchema"]["required"] = []
    assert [problem.mend for problem in check_http(spec)] == ["add x to `required`"]


def test_an_operation_says_itself_what_it_is() -> None:
    """Beside `openapi` there is no method, path, query or body; a name that is not there is told where it stands."""
    spec = of_document([])
    spec["driver"]["http"].update(method="GET", path="/x", query={"q": "q"}, body="b")
    found = [problem.path[-1] for problem in check_http(spec) if problem.code == "tool.http"]
    assert found == ["method", "path", "query", "body"]
    spec = of_document([])
    spec["driver"]["http"]["openapi"]["operation"] = "opp"
    problem = next(check_http(spec))
    assert (dotted(problem.path), problem.mend) == (f"{HTTP}.openapi.operation", "did you mean op?")
