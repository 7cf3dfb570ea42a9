"""Sessions that a runtime could have recorded: those that are not in order, with the checks that say so, and those that are."""

from __future__ import annotations

from agentos.abi import event as ev
from agentos.abi.canonical import digest_of

BY_ANNA = {"call": "c1", "by": "principal/anna", "reason": "fine", "scope": "once"}
ASKED = ("grants.approval",)
APPROVED = ("grants.approval", "syscall.approved")
TWO = [{"kind": "approvers", "count": 2, "rule": "eyes.two"}]


def _asked(chain, call: str = "c1", **more) -> None:
    chain.decided(call, "write", "ask", {"path": "a"}, rules=ASKED)
    chain.waiting(call, **more)


def _allowed(chain, *yeses: object, call: str = "c1", **more) -> None:
    chain.decided(call, "write", "allow", {"path": "a"}, rules=APPROVED, approvals=list(yeses), **more)
    chain.finished(call, "write")


def approved(chain, actor: str, *, ask: bool = True, claim: object = None, **more) -> None:
    if ask:
        _asked(chain)
    else:
        chain.decided("c1", "write", "deny", {"path": "a"})
    chain.granted("c1", actor, **more)
    _allowed(chain, claim or BY_ANNA | {"by": actor})


def _refused(chain) -> None:
    _asked(chain)
    chain.rejected("c1")
    _allowed(chain, BY_ANNA)


def _late(chain) -> None:
    _asked(chain)
    chain.granted("c1", minutes=1)
    chain.now_ms += 60_000
    _allowed(chain, BY_ANNA)


def _obliged(chain, *yeses: object) -> None:
    decision = {"effect": "allow", "rules": list(APPROVED), "reasons": [], "obligations": TWO}
    _allowed(chain, *yeses, decision=decision)


def _one_of_two(chain) -> None:
    _asked(chain, needed=2)
    chain.granted("c1")
    _obliged(chain, BY_ANNA)


def _twice_the_same(chain) -> None:
    for already in range(2):
        _asked(chain, needed=2, given=already)
        chain.granted("c1")
    _obliged(chain, BY_ANNA, BY_ANNA)


def _for_the_session(chain, uses: int) -> None:
    """A yes for two calls, and so many calls."""
    _asked(chain)
    chain.granted("c1", scope="session", max_uses=2)
    for number in range(uses):
        _allowed(chain, BY_ANNA | {"scope": "session"}, call=f"c{number + 1}")


def _expired(chain, *, minutes: int, actor: str = "system/kernel") -> None:
    _asked(chain, minutes=30)
    chain.now_ms += minutes * 60_000
    chain.expired("c1", actor)


def _overruled(chain, effect: str, rule: str) -> None:
    policy = {"effect": "allow", "rules": ["grants.allowed"], "reasons": []}
    chain.decided("c1", "write", effect, rules=(rule,), overruled=policy)


ODD_SESSIONS = {
    "outcome without a decision": ("intent", lambda chain: chain.finished("c1", "write")),
    "outcome of a denied call": ("intent", lambda chain: (chain.decided("c1", "write", "deny"), chain.finished("c1", "write"))),
    "outcome of another tool": ("intent", lambda chain: (chain.decided("c1", "read", "allow"), chain.finished("c1", "write"))),
    "two outcomes": (
        "intent",
        lambda chain: (chain.decided("c1", "read", "allow"), chain.finished("c1", "read"), chain.finished("c1", "read")),
    ),
    "outcome before its decision": (
        "intent",
        lambda chain: (chain.finished("c1", "write"), chain.decided("c1", "write", "allow")),
    ),
    "wrong args_digest": ("intent", lambda chain: chain.decided("c1", "read", "allow", args_digest=digest_of({}))),
    "revision that was never applied": (
        "revisions",
        lambda chain: (setattr(chain, "revision", 7), chain.decided("c1", "read", "allow")),
    ),
    "asked, allowed, nobody answered": (
        "approvals",
        lambda chain: (chain.decided("c1", "write", "ask"), chain.decided("c1", "write", "allow")),
    ),
    "approved by one who is no approver": ("approvals", lambda chain: approved(chain, "principal/alice")),
    "approved by the agent": ("approvals", lambda chain: approved(chain, "agent/triage")),
    "approved by somebody unknown": ("approvals actors", lambda chain: approved(chain, "principal/mallory")),
    "approved by who started it": (
        "approvals",
        lambda chain: (chain.restart("principal/anna"), approved(chain, "principal/anna")),
    ),
    "approved and never asked": ("approvals", lambda chain: approved(chain, "principal/anna", ask=False)),
    "allowed after a no": ("approvals", _refused),
    "allowed after the yes expired": ("approvals", _late),
    "another approver is named": (
        "approvals",
        lambda chain: approved(chain, "principal/anna", claim=BY_ANNA | {"by": "principal/olga"}),
    ),
    "a yes that policy refused": (
        "approvals",
        lambda chain: approved(chain, "principal/anna", decision={"effect": "deny", "rules": ["x.y"], "reasons": []}),
    ),
    "a yes under another policy": (
        "approvals",
        lambda chain: approved(chain, "principal/anna", policy_digest="sha256:" + "cd" * 32),
    ),
    "a yes to other arguments": ("approvals", lambda chain: approved(chain, "principal/anna", args_digest=digest_of({}))),
    "a yes to another question": ("approvals", lambda chain: approved(chain, "principal/anna", decided=1)),
    "a yes after the end of its question": (
        "approvals",
        lambda chain: (_asked(chain, minutes=0), setattr(chain, "now_ms", chain.now_ms + 5000), chain.granted("c1")),
    ),
    "one approver of two": ("approvals", _one_of_two),
    "the same approver twice": ("approvals", _twice_the_same),
    "more uses than were given": ("approvals", lambda chain: _for_the_session(chain, 3)),
    "a question that ended too soon": ("approvals", lambda chain: _expired(chain, minutes=29)),
    "a question that a person ended": ("approvals", lambda chain: _expired(chain, minutes=31, actor="principal/anna")),
    "approval claimed, none there": ("approvals", lambda chain: _allowed(chain, BY_ANNA)),
    "approved by people, none named": ("approvals", lambda chain: chain.decided("c1", "write", "allow", rules=APPROVED)),
    "overruled into an allow": ("intent", lambda chain: _overruled(chain, "allow", "obligation.sandbox")),
    "overruled for no obligation": ("intent", lambda chain: _overruled(chain, "deny", "grants.none")),
    "charged and not allowed": (
        "intent",
        lambda chain: chain.decided("c1", "write", "deny", charged=[{"kind": "uses"}]),
    ),
    "unknown principal acted": (
        "actors",
        lambda chain: chain.add(ev.SESSION_CANCELLED, {"reason": "enough"}, "principal/mallory"),
    ),
    "acted before it was created": (
        "actors",
        lambda chain: (
            setattr(chain, "now_ms", chain.now_ms - 10_000_000),
            chain.add(ev.SESSION_CANCELLED, {"reason": "enough"}, "principal/alice"),
        ),
    ),
    "went on after its end": (
        "chains",
        lambda chain: (chain.add(ev.SESSION_FINISHED, {"result": "done"}), chain.decided("c1", "read", "allow")),
    ),
    "decided without fields": ("intent", lambda chain: chain.add(ev.SYSCALL_DECIDED, {"call": "c1"})),
}


def _by_two(chain) -> None:
    _asked(chain, needed=2)
    chain.granted("c1")
    _asked(chain, needed=2, given=1)
    chain.granted("c1", "principal/bo")
    _obliged(chain, BY_ANNA, BY_ANNA | {"by": "principal/bo"})


def _renewed(chain) -> None:
    """The first yes expired before the second person came; its giver gave it again."""
    _asked(chain, needed=2)
    chain.granted("c1", minutes=1)
    chain.now_ms += 120_000
    _by_two(chain)


def _not_needed_any_more(chain) -> None:
    """A yes wakes the session; by now a grant lets the call through without people."""
    _asked(chain)
    chain.granted("c1")
    chain.decided("c1", "write", "allow", {"path": "a"}, rules=("grants.allowed",))
    chain.finished("c1", "write")


SOUND_SESSIONS = {
    "one yes, one call": lambda chain: approved(chain, "principal/anna"),
    "two people": _by_two,
    "a yes that was given again": _renewed,
    "as many uses as were given": lambda chain: _for_the_session(chain, 2),
    "a question that ended in time": lambda chain: _expired(chain, minutes=30),
    "a yes that was not needed any more": _not_needed_any_more,
    "an obligation that could not be met": lambda chain: _overruled(chain, "deny", "obligation.sandbox"),
}
