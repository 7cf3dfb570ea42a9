"""What a rule is: every shipped rule has a page, a place and a source; a tenant's tells what governs it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agentos.abi.assets import asset
from agentos.abi.errors import NotFound
from agentos.policy.bundle import axioms
from agentos.policy.explain import roles_that_may, rules_of
from agentos.policy.port import Module
from agentos.policy.rule_page import library, rule_pages

ROOT = asset("policies").parent
TARGETS = ("syscall", "admission", "approval", "control")
SHIPPED = [rule for module in (*axioms(), *library()) for target in TARGETS for rule in rules_of([module], target)]

MINE = Module(
    "mine/mine.rego",
    """# METADATA
# title: mine
# description: a rule of our own
package agentos.syscall.rules.mine

# METADATA
# title: late
# description: nothing happens at night
results contains {"rule": "mine.late", "effect": "deny", "reason": "late"} if {
	input.now > 5
}

# what comes behind it is no part of it
late := 5
""",
)


@pytest.mark.parametrize("rule", SHIPPED, ids=lambda rule: f"{rule.module.path}:{rule.rule}")
def test_every_shipped_rule_is_explained(rule: object) -> None:
    """By its id: a description, the page of its package, a line on which it really begins, its source."""
    (page, *_) = [one for one in rule_pages(rule.rule, axioms(), {}) if one.path == rule.module.path]  # type: ignore[attr-defined]
    assert page.description
    beside = ROOT / Path(page.path).parent / "README.md"
    assert page.page == (beside.read_text("utf-8") if beside.is_file() else "")
    assert page.source.startswith("# METADATA")
    assert f'"{page.rule}"' in page.source
    assert re.match(r"results\b", rule.module.source.split("\n")[page.line - 1])  # type: ignore[attr-defined]


def test_a_rule_of_a_tenant_tells_what_governs_it() -> None:
    """Mode, scope and parameters of its Policy; the source ends where the rule does."""
    governs = {"mode": "warn", "name": "night", "parameters": {"from": 5}}
    (page,) = rule_pages("mine", [*axioms(), MINE], {"agentos": {"policies": {"mine": governs}}})
    assert (page.rule, page.origin, page.governs, page.page) == ("mine.late", "policy night", governs, "")
    assert (page.description, page.about) == ("nothing happens at night", "a rule of our own")
    assert page.source.endswith("}")
    assert page.to_dict()["line"] == 9


def test_a_package_stands_for_its_rules() -> None:
    """All ids of a package, in order."""
    found = [page.rule for page in rule_pages("grants", axioms(), {})]
    assert "grants.none" in found
    assert found == sorted(found)


def test_a_name_that_is_near_one_is_told() -> None:
    """The mistake ends in an error with the name that was probably meant."""
    with pytest.raises(NotFound, match=r"grants\.non") as caught:
        rule_pages("grants.non", axioms(), {})
    assert "grants.none" in str(caught.value.mend)


def test_the_roles_that_may_apply() -> None:
    """Told by the shipped control policy itself."""
    assert roles_that_may("registry.apply", ("operator", "auditor", "approver")) == ("operator",)
    assert roles_that_may("runtime.status", ("agent",)) == ("agent",)
