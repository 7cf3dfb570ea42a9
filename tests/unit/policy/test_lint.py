"""Each flawed Rego file of `tests/assets/rego` gives the findings that its name promises, and sound ones give none."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from syrupy.assertion import SnapshotAssertion

from agentos.policy.bundle import TARGETS, axioms
from agentos.policy.lint import lint
from agentos.policy.port import Module

ASSETS = Path(__file__).parents[2] / "assets" / "rego"
FLAWED = sorted(path for path in ASSETS.glob("*.rego") if path.stem != "sound")


def module(name: str) -> Module:
    path = ASSETS / f"{name}.rego"
    return Module(path.name, path.read_text("utf-8"))


@pytest.mark.parametrize("path", FLAWED, ids=lambda path: path.stem)
def test_a_flaw_is_found_where_it_is(path: Path, snapshot: SnapshotAssertion) -> None:
    """Every flawed file has findings, with the line, the column, what is wrong and how to mend it."""
    found = [str(finding) for finding in lint([module(path.stem)], target="syscall")]
    assert found
    assert found == snapshot


def test_a_sound_policy_has_no_findings() -> None:
    """Open arguments, dynamic steps, items of lists and labels pass."""
    assert lint([module("sound")], target="syscall") == []


def test_the_axioms_keep_their_own_rules() -> None:
    """The shipped policies pass the lint that tenants' policies must pass."""
    for target in TARGETS:
        assert lint(axioms(target), target=target, shipped=True) == []


def test_only_the_shipped_rule_names_grants() -> None:
    """A tenant's result has no field `grants`, whatever it stands for; nor has that of another shipped rule."""
    source = module("sound").source.replace('"effect":', '"grants": ["mails"], "effect":')
    assert source != module("sound").source
    for shipped in (False, True):
        found = lint([Module("care.rego", source)], target="syscall", shipped=shipped)
        assert {finding.code for finding in found} == {"policy.result"}
        assert all("grants" in finding.message for finding in found)


def test_an_input_path_belongs_to_a_target() -> None:
    """What a syscall policy may read, an admission policy may not."""
    source = module("sound").source.replace("agentos.syscall", "agentos.admission").replace("policy-input", "admission-input")
    codes = {finding.code for finding in lint([Module("a.rego", source)], target="admission")}
    assert codes == {"policy.input"}


def test_a_rule_id_is_unique_across_modules() -> None:
    """Two modules that use one id: the second is told where the first is."""
    other = module("sound").source.replace("rules.care", "rules.other")
    found = [str(finding) for finding in lint([module("sound"), Module("z.rego", other)], target="syscall")]
    assert any('rule id "care.no" is used already at sound.rego:11' in text for text in found)


def test_own_packages_are_known_data() -> None:
    """A policy may refer to the rules of its own package and of another in the set."""
    source = (
        module("sound").source.replace("grant.approval", "data.agentos.syscall.rules.care.extra") + "\nextra if input.now > 1\n"
    )
    assert lint([Module("care.rego", source.replace("some grant in ", ""))], target="syscall") == []


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200) | st.text(alphabet='package a.b\n:={}[]"`#inputda ', max_size=200))
def test_any_text_gets_findings_and_never_an_error(text: str) -> None:
    """What is no policy at all is told so, whatever it holds."""
    assert lint([Module("any.rego", text)], target="syscall")
