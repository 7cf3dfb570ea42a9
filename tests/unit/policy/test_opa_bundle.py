"""A bundle names exactly what is in it, and its bytes are the same for the same modules and data."""

from __future__ import annotations

import io
import tarfile

import pytest

from agentos.abi.errors import PolicyError
from agentos.policy.adapters.opa_bundle import Names, build_bundle
from agentos.policy.port import Module

ONE = Module("a.rego", "package agentos.a\n\nx := 1\n")
TWO = Module("../../etc/b.rego", "package agentos.b\n\nx := 2\n")


def test_the_same_content_makes_the_same_bytes() -> None:
    """Revision and bytes depend on nothing but modules and data."""
    assert build_bundle([ONE, TWO], {"n": {"a": 1}}) == build_bundle([ONE, TWO], {"n": {"a": 1}})


def test_any_change_makes_another_revision() -> None:
    """A path, a source, a value, or a boundary between two texts."""
    bundles = [
        build_bundle([ONE], {}),
        build_bundle([ONE, TWO], {}),
        build_bundle([Module("b.rego", ONE.source)], {}),
        build_bundle([Module("a.rego ", ONE.source)], {}),
        build_bundle([Module(ONE.path, ONE.source + "\n")], {}),
        build_bundle([ONE], {"n": 1}),
        build_bundle([ONE], {"n": True}),
    ]
    assert len({bundle.revision for bundle in bundles}) == len(bundles)
    assert len({bundle.sha256 for bundle in bundles}) == len(bundles)


def test_no_path_of_a_module_reaches_a_file_system() -> None:
    """Inside, modules have names of ours."""
    with tarfile.open(fileobj=io.BytesIO(build_bundle([ONE, TWO], {}).content)) as tar:
        assert tar.getnames() == [".manifest", "data.json", "m0000.rego", "m0001.rego"]


def test_messages_speak_of_the_callers_files() -> None:
    """Names inside of the bundle are put back; what is no name of it stays."""
    names = Names(("a.rego", "dir/b.rego"))
    assert (
        names.restore("m0001.rego:3: x m0000.rego:1 m0007.rego xm0000.rego") == "dir/b.rego:3: x a.rego:1 m0007.rego xm0000.rego"
    )


@pytest.mark.parametrize("data", [{"system": {}}, {"n": float("nan")}, {"n": {1, 2}}, {"n": "\ud800"}])
def test_data_that_cannot_be_loaded_is_refused(data: dict[str, object]) -> None:
    """What is no JSON, and what would stand in the server's own place."""
    with pytest.raises(PolicyError, match="data for the policies"):
        build_bundle([ONE], data)
