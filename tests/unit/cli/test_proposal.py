"""Proposed packages in the place of those in force: what is replaced, what stays, what is told."""

from __future__ import annotations

from typing import Any

import pytest

from agentos.abi.errors import PolicyError, UsageError
from agentos.cli.proposal import Deciders, Proposal
from agentos.policy.bundle import axioms
from agentos.policy.decide import Decider
from agentos.policy.port import Module


def module(tail: str, path: str = "", *, target: str = "syscall", says: str = "no") -> Module:
    source = (
        f"# METADATA\n# title: {tail}\n# description: a rule of a test\npackage agentos.{target}.rules.{tail}\n\n"
        f'results contains {{"rule": "{tail}.no", "effect": "deny", "reason": "{says}"}} if input.abi == "agentos/v1"\n'
    )
    return Module(path or f"new/{tail}.rego", source)


def facts(*modules: Module, **policies: Any) -> dict[str, Any]:
    data = {"policies": policies, "rules": {"syscall": ["grants", *policies], "admission": [], "approval": []}}
    held = [{"path": one.path, "source": one.source} for one in (*axioms("syscall"), *modules)]
    return {"modules": held, "data": {"agentos": data}}


GOVERNS = {"mode": "warn", "name": "old", "scope": {"agents": ["triage"]}, "parameters": {"n": 1}}


def test_a_package_of_the_same_name_is_replaced_and_keeps_what_governs_it() -> None:
    """Its module goes, its mode, scope and parameters stay; nothing else is touched."""
    proposal = Proposal([module("night", says="new"), Module("new/night_test.rego", "package x")])
    held = facts(module("night", "night/night.rego", says="old"), module("day", "day/day.rego"), night=GOVERNS)
    modules, data = proposal.over(held)
    assert [one.path for one in modules if one not in axioms()] == ["day/day.rego", "new/night.rego"]
    assert data == held["data"]
    assert proposal.said(held) == [
        "agentos.syscall.rules.night: replaced, warn, keeps its scope and its parameters; it binds nothing, see --mode"
    ]


def test_a_new_package_binds_and_is_asked() -> None:
    """It is listed among the packages of its target; the facts that were handed in stay as they were."""
    held = facts()
    proposal = Proposal([module("night"), module("owner", target="admission"), module("again", target="approval")])
    _, data = proposal.over(held)
    assert data["agentos"]["rules"] == {"syscall": ["grants", "night"], "admission": ["owner"], "approval": ["again"]}
    assert data["agentos"]["policies"] == {}
    assert held == facts()
    assert proposal.targets == ("syscall", "admission")
    assert proposal.said(held)[2] == ("agentos.approval.rules.again: added, enforce; decisions of approval are not tried again")


def test_a_mode_is_tried_for_the_proposed_packages_alone() -> None:
    """`--mode` takes the place of the mode in force and leaves scope and parameters."""
    held = facts(module("night", "night/night.rego"), night=GOVERNS, day={"mode": "warn", "name": "day"})
    _, data = Proposal([module("night"), module("noon")], "enforce").over(held)
    assert data["agentos"]["policies"] == {
        "night": {**GOVERNS, "mode": "enforce"},
        "noon": {"name": "proposed", "mode": "enforce"},
        "day": {"mode": "warn", "name": "day"},
    }


def test_two_files_of_one_name_do_not_clash() -> None:
    """A file in force that is called as a proposed one stays in force."""
    modules, _ = Proposal([module("night", "rules.rego")]).over(facts(module("day", "rules.rego")))
    assert sorted(one.path for one in modules if one not in axioms()) == ["rules.rego", "rules.rego (in force)"]


def test_what_is_no_rule_of_a_tenant_is_refused() -> None:
    """Tests alone, and a package outside of the rules."""
    with pytest.raises(UsageError, match="only tests"):
        Proposal([Module("a_test.rego", "package a")])
    with pytest.raises(PolicyError, match=r"agentos\.syscall"):
        Proposal([Module("main.rego", "package agentos.syscall\n")])


async def test_revisions_that_decide_alike_share_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each revision's facts are asked for once, engines are made once per policy and data, and few are open."""
    asked: list[int] = []
    closed: list[Decider] = []

    class Client:
        async def call(self, verb: str, params: dict[str, Any], *, within: float = 30.0) -> Any:
            asked.append(params["revision"])
            held = facts()
            held["data"]["agentos"]["tenant"] = {"name": f"t{params['revision'] // 2}"}
            return held

        async def close(self) -> None:
            return

    def close(decider: Decider) -> None:
        closed.append(decider)

    monkeypatch.setattr(Decider, "close", close)
    deciders = Deciders(Client(), Proposal([module("night")]))
    found = [await deciders.of(revision) for revision in (1, 2, 3, 2, 4, 6, 8, 8)]
    assert asked == [1, 2, 3, 4, 6, 8]
    assert found[1] is found[2] is found[3]
    assert len({id(one) for one in found}) == 5
    assert closed == found[:2]
    deciders.close()
    assert len(closed) == 5
