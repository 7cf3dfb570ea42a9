"""The error tree: as drawn, and the same on both sides of the wire."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re

import jsonschema
import pytest
from abi_values import JSON, TEXT
from hypothesis import given
from hypothesis import strategies as st

import agentos
from agentos.abi import errors
from agentos.abi.assets import asset
from agentos.abi.errors import AgentOSError, error_from_dict
from agentos.drivers.port import ModelUnavailable

SCHEMA = jsonschema.Draft202012Validator(json.loads((asset("schemas") / "v1" / "error.json").read_text()))


def below(root: type[AgentOSError]) -> list[type[AgentOSError]]:
    return [root, *(kind for child in root.__subclasses__() for kind in below(child))]


CLASSES = [kind for kind in below(AgentOSError) if kind.__module__.startswith("agentos.")]
FIELDS = st.fixed_dictionaries({"where": st.none() | TEXT, "mend": st.none() | TEXT})


def drawn() -> dict[str, tuple[str, str, str, int]]:
    """Class name → (parent, module's remark, code, exit code), read from the tree in the module's docstring."""
    found: dict[str, tuple[str, str, str, int]] = {}
    path: dict[int, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        row = re.match(r"^    ((?:[│├└─ ]{4})*)([A-Z]\w+) +([a-z.-]+)? +(\d+)? +(.+)$", line)
        if row is None:
            continue
        depth, name = len(row[1]) // 4, row[2]
        path[depth] = name
        if depth:
            remark = re.match(r"\(`([\w.]+)`\)", row[5])
            found[name] = (path[depth - 1], remark[1] if remark else "abi.errors", row[3], int(row[4]))
    return found


def test_the_drawn_tree_is_the_tree() -> None:
    """Every class of the package stands in the drawing, under its parent, with its code, exit code and module."""
    for module in pkgutil.walk_packages(agentos.__path__, "agentos."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    classes = [kind for kind in below(AgentOSError) if kind.__module__.startswith("agentos.") and kind is not AgentOSError]
    assert drawn() == {
        kind.__name__: (
            kind.__mro__[1].__name__,
            kind.__module__.removeprefix("agentos."),
            kind.code,
            kind.exit_code,
        )
        for kind in classes
    }


def test_codes_are_unique() -> None:
    """A code names one class."""
    codes = [kind.code for kind in CLASSES]
    assert len(codes) == len(set(codes))


def test_exit_codes_are_those_of_the_design() -> None:
    """1 error, 3 denied by policy, 4 conflict, 64 usage; nothing else."""
    other = {kind.__name__: kind.exit_code for kind in CLASSES if kind.exit_code != 1}
    conflicts = ("Conflict", "ChangedMeanwhile", "Frozen", "SequenceConflict", "Relieved")
    assert other == {"Denied": 3, **dict.fromkeys(conflicts, 4), "UsageError": 64}


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
@given(message=TEXT.filter(bool), fields=FIELDS, texts=st.lists(TEXT, max_size=3), retry_after_ms=st.integers(0, 2**53))
def test_an_error_is_rebuilt_as_the_same_class_with_the_same_fields(
    kind: type[AgentOSError], message: str, fields: dict[str, str | None], texts: list[str], retry_after_ms: int
) -> None:
    """`error_from_dict` inverts `to_dict` over JSON, for every class, and the shape fits its schema."""
    more: dict[str, object] = {}
    if issubclass(kind, errors.Denied):
        more = {"rules": texts, "reasons": list(reversed(texts))}
    if issubclass(kind, errors.ManifestError):
        more = {"faults": [{"text": text} for text in texts]}
    if issubclass(kind, errors.TooOften):
        more = {"retry_after_ms": retry_after_ms}
    error = kind(message, **fields, **more)  # type: ignore[arg-type]
    body = error.to_dict()
    SCHEMA.validate(body)
    again = error_from_dict(json.loads(json.dumps(body)))
    assert type(again) is kind
    assert (again.to_dict(), str(again), again.args) == (body, str(error), (message,))


def test_an_error_of_a_model_crosses_the_wire_as_its_class() -> None:
    """What only the runtime uses, how long to wait, may be lost; class, code and sentence are not."""
    again = error_from_dict(ModelUnavailable("busy", retry_after=2.5).to_dict())
    assert type(again) is ModelUnavailable
    assert (again.message, again.retryable) == ("busy", True)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "code": st.sampled_from([kind.code for kind in CLASSES]) | JSON,
            **dict.fromkeys(("message", "where", "mend", "rules", "reasons", "faults", "exit_code", "retry_after_ms"), JSON),
        },
    )
)
def test_whatever_comes_over_the_wire_is_some_error(body: dict[str, object]) -> None:
    """A malformed error is still an error with a sentence, never an exception of another kind."""
    error = error_from_dict(body)
    assert error.message
    SCHEMA.validate(error.to_dict())


def test_an_unknown_code_is_a_plain_error() -> None:
    """A runtime that is newer than the client is understood as far as possible."""
    error = error_from_dict({"code": "from.the-future", "message": "no", "mend": "update"})
    assert (type(error), error.message, error.mend, error.exit_code) == (AgentOSError, "no", "update", 1)
    assert error.to_dict()["code"] == "from.the-future"
    assert error_from_dict({"code": "\x1b[31m", "message": "no"}).code == "error"
