"""What an older OPA lacks is known before it is asked, and the table agrees with OPA's own records."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from agentos.abi.errors import PolicyError
from agentos.policy.adapters.opa_since import BUILTINS, OLDEST, TEMPLATE_STRINGS, refuse_newer
from agentos.policy.bundle import axioms
from agentos.policy.port import Module

OPA = Path(sys.executable).with_name("opa")
SPLIT = Module("rules/split.rego", 'package a\n\n# strings.split_n is new\nx := strings.split_n("a.b", ".", 1)\n')


def capabilities(*words: str) -> str:
    """What `opa capabilities` prints."""
    return subprocess.run([OPA, "capabilities", *words], capture_output=True, text=True, check=True, timeout=30).stdout


def test_the_table_is_what_opa_says_of_its_versions() -> None:
    """Every builtin that came after the oldest version is in the table with its version, and nothing else is."""
    versions = sorted(
        tuple(map(int, found.groups())) for found in re.finditer(r"^v(\d+)\.(\d+)\.(\d+)$", capabilities(), re.MULTILINE)
    )
    first: dict[str, tuple[int, ...]] = {}
    for version in versions:
        if version >= OLDEST:
            read = json.loads(capabilities("--version", "v{}.{}.{}".format(*version)))
            for name in [*(one["name"] for one in read["builtins"]), *read["features"]]:
                first.setdefault(name, version)
    later = {name: version for name, version in first.items() if version > OLDEST}
    assert later.pop("template_strings") == later.pop("internal.template_string") == TEMPLATE_STRINGS
    assert later == BUILTINS
    assert "keywords_in_refs" in first


@pytest.mark.parametrize("version", ["1.19.0", "1.20.2", "2.0.0", "1.20.2-dev", "of our own"])
def test_a_version_that_has_it_is_let_pass(version: str) -> None:
    """Also one that is newer than ours, or that is no version."""
    refuse_newer([SPLIT], version)


@pytest.mark.parametrize(
    ("module", "version", "where", "said"),
    [
        (SPLIT, "1.18.2", "rules/split.rego:4", "OPA 1.18.2, and strings.split_n came with 1.19.0"),
        (Module("t.rego", 'package a\n\nx := $"n {input.n}"\n'), "1.11.1", "t.rego:3", "a template string came with 1.12.0"),
        (Module("t.rego", "package a\n"), "0.70.0", "t.rego:1", "OPA 0.70.0, which does not read these policies"),
    ],
)
def test_what_an_older_server_lacks_is_named_by_line(module: Module, version: str, where: str, said: str) -> None:
    """With the version that has it."""
    with pytest.raises(PolicyError, match=re.escape(said)) as caught:
        refuse_newer([module], version)
    assert caught.value.where == where


def test_the_shipped_policies_run_on_the_oldest() -> None:
    """So that an older server can be used at all."""
    refuse_newer(axioms(), ".".join(map(str, OLDEST)))
