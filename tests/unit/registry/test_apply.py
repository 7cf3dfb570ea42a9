"""Applying: every check before anything is stored."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from agentos.abi.decision import Decision, Verdict, deny
from agentos.abi.errors import Conflict, Denied, ManifestError, UsageError
from agentos.control.principal import Caller
from agentos.registry.apply import Allow, Applier
from agentos.registry.plan import Plan, plan
from agentos.registry.selector import Selector

ALL = Allow(destroy=True, widen=True)


async def apply(applier: Applier, caller: Caller, *resources: object, allow: Allow = ALL) -> None:
    proposal = await applier.propose(caller, [one.to_dict() for one in resources])  # type: ignore[attr-defined]
    await applier.apply(caller, proposal, allow=allow)


async def test_whole_way(applier: Applier, gate: SimpleNamespace, alice: Caller, new: SimpleNamespace) -> None:
    """A change that passes everything is one revision with its actor, its reason and what policy said."""
    proposal = await applier.propose(alice, [new.agent().to_dict(), new.grant().to_dict()])
    assert proposal.needs == ("allow_widen",)
    applied = await applier.apply(alice, proposal, reason="start", allow=Allow(widen=True))
    assert applied.revision is not None
    assert (applied.revision.actor, applied.revision.reason) == ("principal/alice", "start")
    assert applied.revision.admission["default"]["effect"] == "allow"
    tenant, question = gate.questions[0]
    assert tenant == question["tenant"] == "default"
    assert question["principal"] == {"name": "alice", "roles": ["operator"], "tenant": "*"}
    assert [change["action"] for change in question["changes"]] == ["create", "create"]
    assert len(question["resources"]) == 2


async def test_no_change_makes_no_revision(applier: Applier, alice: Caller, new: SimpleNamespace) -> None:
    """Applying what is there already changes nothing and asks for nothing."""
    await apply(applier, alice, new.agent())
    applied = await applier.apply(alice, await applier.propose(alice, [new.agent().to_dict()]))
    assert applied.revision is None
    assert len(await applier.registry.history()) == 1


async def test_all_faults_at_once(applier: Applier, alice: Caller, new: SimpleNamespace) -> None:
    """Every bad manifest is named in one refusal, and nothing is stored."""
    with pytest.raises(ManifestError) as caught:
        await applier.propose(alice, [{}, new.agent().to_dict(), 7])
    assert len(caught.value.faults) == 2
    assert await applier.registry.head() is None


async def test_what_has_no_canonical_form(applier: Applier, alice: Caller, new: SimpleNamespace) -> None:
    """A value that cannot be hashed is a fault of the manifest."""
    with pytest.raises(ManifestError, match="1 faults"):
        await applier.propose(alice, [new.grant(reason="\ud800").to_dict()])


async def test_dangling_references(applier: Applier, gate: SimpleNamespace, alice: Caller, new: SimpleNamespace) -> None:
    """References are checked against the whole resulting state, before policy is asked."""
    gate.dangling = True
    with pytest.raises(ManifestError, match="dangling"):
        await applier.propose(alice, [new.agent().to_dict()])
    assert gate.questions == []


@pytest.mark.parametrize(
    "decision",
    [deny("owner.missing", "agent triage has no owner"), Decision(Verdict.ASK, ("x",), ("y",)), Decision(Verdict.HALT, ("x",))],
)
async def test_policy_refuses(
    applier: Applier, gate: SimpleNamespace, alice: Caller, new: SimpleNamespace, decision: Decision
) -> None:
    """Anything but allow is a refusal that carries rules and reasons; the proposal shows it beforehand."""
    gate.decision = decision
    proposal = await applier.propose(alice, [new.agent().to_dict()])
    assert proposal.to_dict()["admission"]["default"]["effect"] == str(decision.effect)
    with pytest.raises(Denied) as caught:
        await applier.apply(alice, proposal, allow=ALL)
    assert (caught.value.rules, caught.value.reasons) == (decision.rules, decision.reasons)
    assert await applier.registry.head() is None


async def test_loud_words(applier: Applier, alice: Caller, new: SimpleNamespace) -> None:
    """Deleting and widening need their word each; the refusal names it and stores nothing."""
    with pytest.raises(UsageError, match="widens permission") as caught:
        await apply(applier, alice, new.grant(), allow=Allow(destroy=True))
    assert caught.value.mend == "look at the plan, then pass --allow-widen"
    await apply(applier, alice, new.grant())
    proposal = await applier.propose(alice, [], delete=[new.grant().key])
    with pytest.raises(UsageError, match=r"deletes 1 \(toolgrant/default/triage-read\)"):
        await applier.apply(alice, proposal, allow=Allow(widen=True))
    assert len(await applier.registry.history()) == 1


async def test_dry_run(applier: Applier, alice: Caller, new: SimpleNamespace) -> None:
    """A dry run passes every check, the loud words among them, and stores nothing."""
    proposal = await applier.propose(alice, [new.grant().to_dict()])
    assert (await applier.apply(alice, proposal, allow=ALL, dry_run=True)).revision is None
    with pytest.raises(UsageError):
        await applier.apply(alice, proposal, dry_run=True)
    assert await applier.registry.head() is None


async def test_saved_plan(applier: Applier, alice: Caller, new: SimpleNamespace) -> None:
    """A saved plan is applied once; sent again it is told so, and after another revision it is stale."""
    saved = Plan.from_dict((await applier.propose(alice, [new.agent().to_dict()])).to_dict()["plan"])
    stale = Plan.from_dict((await applier.propose(alice, [new.agent(calls=99).to_dict()])).to_dict()["plan"])
    await applier.apply(alice, await applier.propose_saved(alice, saved), allow=ALL)
    with pytest.raises(Conflict, match="already applied as revision 1"):
        await applier.propose_saved(alice, saved)
    with pytest.raises(Conflict, match=r"revision 1 by principal/alice 0 s ago changed agent/default/triage \(created\)"):
        await applier.propose_saved(alice, stale)


async def test_shown_is_what_happens(applier: Applier, alice: Caller, new: SimpleNamespace) -> None:
    """What would change must still be what the caller was shown."""
    proposal = await applier.propose(alice, [new.agent().to_dict()])
    with pytest.raises(Conflict, match="no longer what was shown"):
        await applier.apply(alice, proposal, allow=ALL, expect="sha256:" + "0" * 64)


async def test_rollback(applier: Applier, alice: Caller, new: SimpleNamespace) -> None:
    """Going back is planned like anything else and needs the words that it deserves."""
    await apply(applier, alice, new.agent(), new.grant(approval="none"))
    await apply(applier, alice, new.grant(approval="required"), new.agent("more"))
    proposal = await applier.propose_rollback(alice, 1)
    assert proposal.needs == ("allow_destroy", "allow_widen")
    with pytest.raises(UsageError, match="deletes"):
        await applier.apply(alice, proposal)
    applied = await applier.apply(alice, proposal, allow=ALL)
    history = await applier.registry.history()
    assert applied.revision is not None
    assert applied.revision.tree == history[0].tree


async def test_prune(applier: Applier, alice: Caller, new: SimpleNamespace) -> None:
    """Pruning is a deletion, kept to the labels."""
    await apply(applier, alice, new.agent("keep", team="x"), new.agent("drop", team="x"), new.agent("other", team="y"))
    proposal = await applier.propose(alice, [new.agent("keep", team="x").to_dict()], prune=Selector.parse("team=x"))
    assert [str(key) for key in proposal.plan.destroys] == ["agent/default/drop"]
    assert proposal.needs == ("allow_destroy",)


async def test_a_tenants_principal(applier: Applier, alice: Caller, bob: Caller, new: SimpleNamespace) -> None:
    """A principal of one tenant changes that tenant only, neither another nor a Tenant, by no way at all."""
    await apply(applier, alice, new.agent(), new.agent("own", tenant="acme"))
    foreign = [new.agent(calls=11), new.resource("Tenant", "acme", {})]
    for one in foreign:
        with pytest.raises(Denied, match="acme only"):
            await applier.propose(bob, [one.to_dict()])
        saved = (await applier.propose(alice, [one.to_dict()])).plan
        with pytest.raises(Denied):
            await applier.propose_saved(bob, saved)
    with pytest.raises(Denied):
        await applier.propose(bob, [], delete=[new.agent().key])
    await apply(applier, bob, new.agent("own", tenant="acme", calls=5))
    await apply(applier, alice, new.agent(calls=12))
    back = await applier.propose_rollback(bob, 1)
    assert [str(change.key) for change in back.plan.changes] == ["agent/acme/own"]
    await applier.apply(bob, back, allow=ALL)
    assert (await applier.registry.state()).get(new.agent().key) == new.agent(calls=12)


async def test_conflict_does_not_name_other_tenants(applier: Applier, alice: Caller, bob: Caller, new: SimpleNamespace) -> None:
    """Who is bound to a tenant learns that another tenant was changed, not what in it, nor by whom."""
    saved = (await applier.propose(bob, [new.agent("own", tenant="acme").to_dict()])).plan
    await apply(applier, alice, new.agent("secret"))
    with pytest.raises(Conflict) as caught:
        await applier.propose_saved(bob, saved)
    assert "secret" not in str(caught.value)
    assert "alice" not in str(caught.value)
    assert "another tenant" in str(caught.value)


async def test_a_plan_says_nothing_of_other_tenants(applier: Applier, alice: Caller, bob: Caller, new: SimpleNamespace) -> None:
    """Whatever others have, the base of a tenant's plan is the same but for its number; it is taken up, by the fleet too."""
    await apply(applier, alice, new.agent("own", tenant="acme"), new.agent("secret"))
    wanted = [new.agent("own", tenant="acme", calls=5).to_dict()]
    before = (await applier.propose(bob, wanted)).plan
    await apply(applier, alice, new.agent("secret", calls=7))
    after, whole = (await applier.propose(bob, wanted)).plan, (await applier.propose(alice, wanted)).plan
    assert (after.base_revision, after.base_digest) == (before.base_revision + 1, before.base_digest)
    assert whole.base_digest != after.base_digest
    assert (await applier.propose_rollback(bob, 0)).plan.base_digest == after.base_digest
    for caller in (alice, bob):
        assert (await applier.propose_saved(caller, after)).plan == after
    applied = await applier.apply(bob, await applier.propose_saved(bob, after), allow=ALL)
    assert applied.revision is not None
    await apply(applier, alice, new.agent("own", tenant="acme", calls=6))
    with pytest.raises(Conflict, match=r"changed agent/acme/own"):
        await applier.propose_saved(bob, Plan.from_dict(whole.to_dict()))


async def test_a_plan_of_several_tenants_is_bound_to_all_of_them(
    applier: Applier, alice: Caller, bob: Caller, new: SimpleNamespace
) -> None:
    """The part of one tenant is no base for a plan that changes another one too."""
    await apply(applier, alice, new.agent("own", tenant="acme"), new.agent())
    both = [new.agent("own", tenant="acme", calls=5), new.agent(calls=6)]
    state = await applier.registry.state()
    with pytest.raises(Conflict, match="never had"):
        await applier.propose_saved(alice, plan(state, both, base=state.part("acme")))


async def test_question_about_a_tenant(applier: Applier, gate: SimpleNamespace, alice: Caller, new: SimpleNamespace) -> None:
    """Each tenant touched is a question of its own; Tenants are asked under the default tenant's name and seen by all."""
    await applier.propose(alice, [new.resource("Tenant", "acme", {}).to_dict(), new.agent("own", tenant="acme").to_dict()])
    assert [(tenant, question["tenant"]) for tenant, question in gate.questions] == [("*", "default"), ("acme", "acme")]
    assert [one["kind"] for one in gate.questions[1][1]["resources"]] == ["Agent", "Tenant"]


async def test_question_about_a_tenant_that_changes(
    applier: Applier, gate: SimpleNamespace, alice: Caller, new: SimpleNamespace
) -> None:
    """With a changed Tenant stands what is in it, so that policy sees who still uses what the tenant no longer has."""
    tenants = [new.resource("Tenant", name, {}) for name in ("acme", "globex")]
    agents = [new.agent("own", tenant="acme"), new.agent("other", tenant="globex")]
    await apply(applier, alice, *tenants, *agents)
    gate.questions.clear()
    await applier.propose(alice, [new.resource("Tenant", "acme", {"priorityClasses": ["batch"]}).to_dict()])
    [(tenant, question)] = gate.questions
    assert (tenant, [one["metadata"]["name"] for one in question["resources"]]) == ("*", ["own", "acme", "globex"])
