"""Approvals: what a yes binds to, when it stops counting, and that no order of events makes a call act on less."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from kernel_in_memory import ALLOW, Kernel, calls, settled, text

from agentos.abi import event as ev
from agentos.abi.assets import asset
from agentos.abi.canonical import digest_of
from agentos.abi.decision import Decision, deny, parse_decision
from agentos.abi.errors import AgentOSError, Conflict, Denied, UsageError
from agentos.abi.event import Event
from agentos.audit.finding import Unseen
from agentos.audit.findings import Roster, check_session
from agentos.kernel.approvals import LONGEST_TEXT, UNNAMED, Scope, left_open, require_closed, standing_grant, terms
from agentos.kernel.sessions import Sessions
from agentos.kernel.workspace import Workspaces
from agentos.manifests import validate_resource

INPUT = json.loads((asset("schemas") / "v1" / "approval-input.json").read_text())
ANN, BO, OP = "principal/ann", "principal/bo", "principal/op"


def policy(needed: int = 1) -> Callable[[Mapping[str, Any]], Decision]:
    """As `policies/agentos/syscall/main.rego` decides about approvals, for the tool `send`."""

    def decide(document: Mapping[str, Any]) -> Decision:
        if document["syscall"]["tool"] != "send":
            return ALLOW
        good = {
            one["by"]
            for one in document["approvals"]
            if one["policy_digest"] == document["policy_digest"]
            and document["now"] < one["expires"]
            and (
                one["args_digest"] == document["syscall"]["args_digest"]
                if one["scope"] == "once"
                else one["uses_left"] > 0 and "grants.approval" in one["rules"]
            )
        }
        rules = ["grants.approval", "syscall.approved"] if len(good) >= needed else ["grants.approval"]
        bound = [{"kind": "approvers", "count": needed, "rule": "eyes.many"}] if needed > 1 else []
        effect = "allow" if len(good) >= needed else "ask"
        return parse_decision({"effect": effect, "rules": rules, "reasons": ["so"], "obligations": bound})

    return decide


def count(document: Mapping[str, Any]) -> Decision:
    """As the shipped rules `requester` and `distinct` decide."""
    jsonschema.validate(document, INPUT)
    by = document["approval"]["by"]
    if by == document["session"]["actor"]:
        return deny("requester.same", f"{by} started this session")
    if any(one["by"] == by and document["now"] < one["expires"] for one in document["approvals"]):
        return deny("distinct.again", f"{by} has approved this call already")
    return ALLOW


async def asked(kernel: Kernel, needed: int = 1, paths: tuple[str, ...] = ("x",)) -> tuple[Sessions, str]:
    """A session that waits with the call `c0` of `send`, others behind it."""
    kernel.policy.decide, kernel.policy.count = policy(needed), count
    proposals = [(f"c{number}", "send", {"path": path}) for number, path in enumerate(paths)]
    kernel.model.replies = [calls(*proposals), text("done")]
    sessions = kernel.sessions()
    state = await sessions.create("default", "worker", "work", None, OP)
    await settled(sessions)
    return sessions, state.id


async def yes(sessions: Sessions, session: str, by: str = ANN, **words: Any) -> None:
    await sessions.answer("default", session, **{"granted": True, "reason": "fine", "actor": by, "roles": ("approver",), **words})
    await settled(sessions)


async def the(kernel: Kernel, session: str, kind: str) -> Event:
    return [event for event in await kernel.events(session) if event.type == kind][-1]


async def test_an_approval_records_what_it_binds_to(kernel: Kernel) -> None:
    """The exact arguments, the decision, its policy, an end, the scope, the roles, and what policy said to the yes."""
    sessions, session = await asked(kernel)
    question = await the(kernel, session, ev.SYSCALL_DECIDED)
    before = kernel.timer.ms
    await yes(sessions, session)
    granted = await the(kernel, session, ev.APPROVAL_GRANTED)
    assert before + 3_600_000 < granted.data.pop("expires") <= before + 3_600_000 + 10
    assert granted.data == {
        "call": "c0",
        "args_digest": digest_of({"path": "x"}),
        "reason": "fine",
        "decided": question.seq,
        "policy_digest": question.policy_digest,
        "scope": "once",
        "max_uses": 1,
        "roles": ["approver"],
        "decision": ALLOW.to_dict(),
    }
    assert kernel.driver.calls == [("send", {"path": "x"})]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ({"by": OP}, Denied),
        ({"call": "c9"}, Conflict),
        ({"digest": digest_of({"path": "y"})}, Conflict),
        ({"valid_ms": 3_600_001}, UsageError),
        ({"max_uses": 2}, UsageError),
    ],
    ids=["the requester", "another call", "other arguments", "too long", "too often"],
)
async def test_an_answer_that_does_not_count_changes_nothing(
    kernel: Kernel, words: dict[str, Any], error: type[AgentOSError]
) -> None:
    """It is told why, the log stays as it was, and somebody else can still answer."""
    sessions, session = await asked(kernel)
    before = await kernel.types(session)
    with pytest.raises(error):
        await yes(sessions, session, **words)
    assert await kernel.types(session) == before
    await yes(sessions, session, digest=digest_of({"path": "x"}), call="c0")
    assert len(kernel.driver.calls) == 1


async def test_a_refusal_by_policy_says_why(kernel: Kernel) -> None:
    """The rules and the sentences reach the person."""
    sessions, session = await asked(kernel)
    with pytest.raises(Denied) as caught:
        await yes(sessions, session, OP)
    assert (caught.value.rules, caught.value.reasons) == (("requester.same",), (f"{OP} started this session",))


async def test_a_rehearsal_records_nothing(kernel: Kernel) -> None:
    """It is refused for what the answer would be refused for, and leaves the session waiting."""
    sessions, session = await asked(kernel)
    await yes(sessions, session, rehearse=True)
    with pytest.raises(Denied):
        await yes(sessions, session, OP, rehearse=True)
    assert (await sessions.state("default", session)).state == "waiting"


async def test_two_people_approve_one_after_the_other(kernel: Kernel) -> None:
    """The first yes asks again, with one of two; the same person does not count twice; the second lets the call through."""
    sessions, session = await asked(kernel, needed=2)
    await yes(sessions, session)
    waiting = await the(kernel, session, ev.SESSION_WAITING)
    assert (waiting.data["needed"], waiting.data["given"]) == (2, 1)
    with pytest.raises(Denied, match="may not approve"):
        await yes(sessions, session)
    assert kernel.driver.calls == []
    await yes(sessions, session, BO)
    assert len(kernel.driver.calls) == 1
    decided = [event for event in await kernel.events(session) if event.data.get("call") == "c0" and "decision" in event.data]
    relied = [one["by"] for event in decided for one in event.data.get("approvals", [])]
    assert relied == [ANN, BO]


async def test_a_yes_counts_only_under_the_policy_that_asked(kernel: Kernel) -> None:
    """The policy changed while the call waited: the yes does not carry over, and people are asked under the new one."""
    sessions, session = await asked(kernel)
    kernel.policy_digest, kernel.revision = "sha256:" + "b" * 64, 2
    await yes(sessions, session)
    assert (kernel.driver.calls, (await sessions.state("default", session)).state) == ([], "waiting")
    await yes(sessions, session)
    assert len(kernel.driver.calls) == 1


async def test_a_yes_for_the_session_covers_later_calls_until_it_is_used_up(kernel: Kernel) -> None:
    """Three calls under a yes for two of them: the third asks again."""
    sessions, session = await asked(kernel, paths=("x", "y", "z"))
    await yes(sessions, session, scope=Scope.SESSION, max_uses=2)
    assert [args["path"] for _, args in kernel.driver.calls] == ["x", "y"]
    assert (await sessions.state("default", session)).waiting_for == "c2"
    borrowed = [event.data["approvals"] for event in await kernel.events(session) if event.data.get("approvals")]
    assert borrowed[-1] == [{"call": "c0", "by": ANN, "reason": "fine", "scope": "session"}]


async def test_a_question_ends_by_a_no(kernel: Kernel) -> None:
    """Not before its time; then the model is told, the session goes on, and a late answer finds nothing."""
    sessions, session = await asked(kernel)
    assert not await sessions.expire("default", session)
    kernel.timer.ms += 86_400_000
    with pytest.raises(Conflict, match="has expired"):
        await yes(sessions, session)
    later = kernel.sessions()
    assert await later.expire("default", session)
    await settled(later)
    expired = await the(kernel, session, ev.APPROVAL_EXPIRED)
    assert (expired.actor, expired.data["args_digest"]) == ("system/kernel", digest_of({"path": "x"}))
    assert kernel.driver.calls == []
    assert "nobody approved it in time" in kernel.model.seen[-1].messages[-1]["content"][0]["content"]
    assert not await later.expire("default", session)
    with pytest.raises(Conflict):
        await yes(later, session)


async def test_of_an_answer_and_the_end_of_time_one_wins(kernel: Kernel) -> None:
    """Both at once: the call is answered once."""
    sessions, session = await asked(kernel)
    kernel.timer.ms = (await the(kernel, session, ev.SESSION_WAITING)).data["expires"] - 3
    other = kernel.sessions()
    await asyncio.gather(
        sessions.answer("default", session, granted=True, reason="fine", actor=ANN),
        *(other.expire("default", session) for _ in range(5)),
        return_exceptions=True,
    )
    await settled(sessions)
    await settled(other)
    answers = [kind for kind in await kernel.types(session) if kind.startswith("approval.")]
    assert len(answers) == 1
    assert len(kernel.driver.calls) == (answers == ["approval.granted"])


ROSTER = Roster.of(
    [
        Event(
            f"e{number}",
            ev.PRINCIPAL_CREATED,
            "*",
            "principals",
            number,
            "",
            0,
            "system/boot",
            0,
            None,
            {"name": name, "tenant": "default", "roles": [role], "public_key": "U"},
        )
        for number, (name, role) in enumerate((("ann", "approver"), ("bo", "approver"), ("op", "operator")), 1)
    ]
)

STEPS = st.one_of(
    st.tuples(st.just("yes"), st.sampled_from([ANN, BO, OP]), st.sampled_from([Scope.ONCE, Scope.SESSION])),
    st.tuples(st.just("no"), st.sampled_from([ANN, BO])),
    st.tuples(st.just("pass"), st.sampled_from([1_000, 1_800_000, 3_600_000, 86_400_000])),
    st.tuples(st.just("expire")),
    st.tuples(st.just("restart")),
    st.tuples(st.just("policy"), st.sampled_from("ab")),
    st.tuples(st.just("both"), st.sampled_from([ANN, BO])),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(STEPS, max_size=12), needed=st.integers(1, 2))
@example(steps=[("policy", "b"), ("yes", ANN, Scope.ONCE), ("policy", "a"), ("yes", ANN, Scope.ONCE)], needed=1)
def test_no_order_of_events_makes_a_call_act_on_less(tmp_path_factory: Any, steps: list[Any], needed: int) -> None:
    """Answers, ends, restarts and other policies in any order: a call acts at most once, and the offline verifier, which reads
    nothing but the events, finds enough people behind each that did."""

    async def work(folder: Path) -> None:
        kernel = Kernel(Workspaces(folder))
        sessions, session = await asked(kernel, needed, paths=("x", "y"))
        for step in steps:
            try:
                match step:
                    case ("yes", by, scope):
                        await yes(sessions, session, by, scope=scope)
                    case ("no", by):
                        await sessions.answer("default", session, granted=False, reason="no", actor=by)
                    case ("pass", ms):
                        kernel.timer.ms += ms
                    case ("expire",):
                        await sessions.expire("default", session)
                    case ("restart",):
                        await sessions.close()
                        sessions = kernel.sessions()
                        await sessions.resume("default", session)
                    case ("policy", letter):
                        kernel.policy_digest = "sha256:" + letter * 64
                    case ("both", by):
                        await asyncio.gather(yes(sessions, session, by), sessions.expire("default", session))
            except (Conflict, Denied):
                pass
            await settled(sessions)
        paths = [args["path"] for _, args in kernel.driver.calls]
        assert len(paths) == len(set(paths))
        events = await kernel.events(session)
        assert list(check_session(events, "default", {1}, ROSTER, Unseen())) == []
        for path in paths:
            people = {
                event.actor
                for event in events
                if event.type == ev.APPROVAL_GRANTED
                and (event.data["args_digest"] == digest_of({"path": path}) or event.data["scope"] == "session")
            }
            assert len(people) >= needed
            assert OP not in people

    asyncio.run(work(tmp_path_factory.mktemp("workspaces")))


async def test_a_standing_grant_is_held_to_the_call(kernel: Kernel) -> None:
    """Texts of any length, whole numbers and truth values word for word, with an end and a number of uses; a valid manifest."""
    sessions, session = await asked(kernel)
    state = await sessions.state("default", session)
    args = {"to": "a@b.c", "body": "x" * 30_000, "copies": 2, "urgent": True}
    call = replace(state.calls["c0"], args=args)
    given_terms = terms(kernel.current("default"), call, 1_795_000_000_000, Scope.STANDING, None, None)
    manifest = standing_grant(state, call, given_terms, by=ANN, reason="as every month")
    assert manifest["spec"] == {
        "agents": ["worker"],
        "tools": ["send"],
        "args": {name: {"equals": value} for name, value in args.items()},
        "approval": "none",
        "until": "2026-12-18T11:06:40.000Z",
        "maxUses": 10,
        "reason": "as every month",
    }
    assert manifest["metadata"]["annotations"] == {
        "agentos/approved-by": ANN,
        "agentos/session": session,
        "agentos/call": "c0",
        "agentos/decision": f"{session}#{call.decided}",
    }
    resource, faults = validate_resource(manifest)
    assert (faults, resource is not None) == ([], True)
    for value in (["a"], {"a": 1}, 1.5, 2.0, None, "x" * (LONGEST_TEXT + 1)):
        with pytest.raises(UsageError, match="'to'"):
            standing_grant(state, replace(call, args={"to": value}), given_terms, by=ANN, reason="r")
    other = {"effect": "ask", "rules": ["egress.untrusted", "grants.approval"], "reasons": []}
    with pytest.raises(UsageError, match=r"egress\.untrusted"):
        standing_grant(state, replace(call, decision=other), given_terms, by=ANN, reason="r")


async def test_what_a_grant_leaves_open_is_refused_or_allowed_by_name(kernel: Kernel) -> None:
    """Arguments that the tool takes and the call did not give, those without a name too."""
    sessions, session = await asked(kernel)
    call = replace((await sessions.state("default", session)).calls["c0"], args={"to": "a"})
    closed = {"properties": {"to": {}, "bcc": {}}, "additionalProperties": False}
    assert left_open(call, closed) == ("bcc",)
    assert left_open(call, {**closed, "properties": {"to": {}}}) == ()
    assert left_open(call, {**closed, "patternProperties": {"^x-": {}}}) == ("bcc", UNNAMED)
    assert left_open(call, {"properties": {"to": {}}}) == left_open(call, {}) == (UNNAMED,)
    with pytest.raises(UsageError, match="leaves open bcc, cc") as caught:
        require_closed(("bcc", "cc"), allow_open=False)
    assert "--allow-open" in (caught.value.mend or "")
    require_closed(("bcc",), allow_open=True)
    require_closed((), allow_open=False)


async def test_terms_have_defaults_and_bounds(kernel: Kernel) -> None:
    """An hour for one call, ten calls for a session, thirty days for a grant; less when said."""
    sessions, session = await asked(kernel)
    call, configuration = (await sessions.state("default", session)).calls["c0"], kernel.current("default")
    found = {scope: terms(configuration, call, 0, scope, None, None) for scope in Scope}
    assert {scope: (one.expires, one.max_uses) for scope, one in found.items()} == {
        Scope.ONCE: (3_600_000, 1),
        Scope.SESSION: (3_600_000, 10),
        Scope.STANDING: (30 * 86_400_000, 10),
    }
    assert terms(configuration, call, 5, Scope.SESSION, 60_000, 3).expires == 60_005


async def test_a_declassification_is_approved_by_itself(kernel: Kernel) -> None:
    """A yes for the session, or a standing one, would cover labels that nobody looked at."""
    sessions, session = await asked(kernel)
    kernel.policy.decide = lambda document: parse_decision(
        {"effect": "ask", "rules": ["declassify.approval", "grants.approval"], "reasons": ["labels"]}
    )
    kernel.policy_digest = "sha256:" + "b" * 64
    await yes(sessions, session)
    for scope in (Scope.SESSION, Scope.STANDING):
        with pytest.raises(UsageError, match=r"declassify\.approval asks about each call") as caught:
            await yes(sessions, session, scope=scope)
        assert "once" in (caught.value.mend or "")
    assert kernel.driver.calls == []
    before = await kernel.types(session)
    await yes(sessions, session)
    assert len(await kernel.types(session)) > len(before)
