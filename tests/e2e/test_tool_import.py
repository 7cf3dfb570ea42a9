"""`agentos tool import` as a process: what it prints can be applied, what it leaves out it names."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from e2e_runtime import AGENTOS, ROOT

SHOP = ROOT / "tests" / "assets" / "openapi" / "shop.yaml"


def run(*words: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("AGENTOS_")}
    return subprocess.run([AGENTOS, *words], capture_output=True, input=given, env=env, cwd=ROOT, timeout=60, check=False)


def test_what_is_printed_validates() -> None:
    """YAML goes to standard output alone, sound as it is; what cannot be a tool and what is missing stand beside it."""
    done = run("tool", "import", str(SHOP), "--prefix", "shop")
    assert done.returncode == 0
    said = done.stderr.decode()
    assert "left out: putPhoto: a body is sent as JSON, as a form or as text, and this one is image/png" in said
    assert "note: listOrders: the API asks for Authorization" in said
    checked = run("validate", "-", given=done.stdout)
    assert checked.returncode == 0, checked.stderr
    assert b"4 declarations" in checked.stdout + checked.stderr


def test_as_json() -> None:
    """Effects and repetition follow from methods; each tool has the part of the document that it needs, and its credentials."""
    done = run("tool", "import", str(SHOP), "--secret", "shop", "--url", "https://shop.example/v2", "-o", "json")
    tools = {tool["metadata"]["name"]: tool["spec"] for tool in json.loads(done.stdout)}
    assert {name: (spec["effect"], spec.get("idempotent", False)) for name, spec in tools.items()} == {
        "list-orders": ("read", True),
        "create-order": ("external", False),
        "get-order": ("read", True),
        "delete-orders-order-id": ("external", True),
    }
    assert {spec["driver"]["http"]["url"] for spec in tools.values()} == {"https://shop.example/v2"}
    assert tools["list-orders"]["credentials"] == [{"secret": "shop", "header": "Authorization", "format": "Bearer {}"}]
    assert tools["delete-orders-order-id"]["credentials"] == [{"secret": "shop", "header": "X-Api-Key"}]
    document = tools["list-orders"]["driver"]["http"]["openapi"]["document"]
    assert list(document["paths"]) == ["/orders"]
    assert list(document["components"]["schemas"]) == ["State"]


def test_standard_input_and_chosen_operations() -> None:
    """One operation by its id, another by method and path, in the order in which they were asked for."""
    words = ("--operation", "DELETE /orders/{orderId}", "--operation", "getOrder", "-o", "json")
    done = run("tool", "import", "-", *words, given=SHOP.read_bytes())
    assert [tool["metadata"]["name"] for tool in json.loads(done.stdout)] == ["delete-orders-order-id", "get-order"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--operation", "listOrder"), 1, "did you mean listOrders?"),
        (("--operation", "putPhoto"), 1, "image/png"),
        (("--url", "http://shop.example"), 1, "no operation of the document can be a tool"),
        (("--operation", "getOrder", "--url", "http://shop.example"), 1, "plain http"),
        (("--operation", "getOrder", "--url", "nonsense"), 1, "begins with https://"),
        (("-o", "xml"), 64, "xml"),
    ],
)
def test_what_cannot_be_imported(words: tuple[str, ...], code: int, said: str) -> None:
    """Nothing is printed on standard output, and the reason on standard error."""
    done = run("tool", "import", str(SHOP), *words)
    assert (done.returncode, done.stdout) == (code, b"")
    assert said in done.stderr.decode()


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", 1),
        (b"[]", 1),
        (b"openapi: 3.1.0", 1),
        (b"a: [", 1),
        (b"\xff", 1),
        (b"[" * 100_000, 1),
        (b'{"openapi": "2", "paths": {}}', 1),
    ],
)
def test_what_is_no_document(content: bytes, code: int, tmp_path: Path) -> None:
    """Whatever the file holds: an error of one line and no traceback."""
    file = tmp_path / "odd.yaml"
    file.write_bytes(content)
    done = run("tool", "import", str(file))
    assert done.returncode == code
    assert b"error[" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_file_that_is_not_there() -> None:
    """A wrong word of the command."""
    assert run("tool", "import", "no-such-file.yaml").returncode == 64
