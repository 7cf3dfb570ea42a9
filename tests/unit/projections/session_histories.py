"""Valid histories of one session, drawn step by step as the kernel writes them, and cut anywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from agentos.abi import event as ev
from agentos.abi.canonical import digest_of
from agentos.abi.event import Event

KERNEL, AGENT, PERSON = "system/kernel", "agent/worker", "principal/ann"
PEOPLE = (PERSON, "principal/bo")
TOOLS = ("read", "write", "send")
LABELS = ("untrusted", "pii", "internal")


@dataclass
class Writer:
    """Writes events of one session; `draw` decides what happens."""

    draw: Callable[[st.SearchStrategy[Any]], Any]
    events: list[Event] = field(default_factory=list)
    proposed: list[list[str]] = field(default_factory=list)
    """The call ids of each reply of the model."""
    turn: int = 0
    models: int = 0
    revision: int = 1
    epoch: int = 0

    def add(self, kind: str, data: dict[str, Any], actor: str = KERNEL) -> None:
        seq = len(self.events) + 1
        event = Event(f"e-{seq}", kind, "default", "s-1", seq, "", seq, actor, self.revision, None, data)
        self.events.append(event)

    def chance(self, of: int) -> bool:
        return bool(self.draw(st.integers(1, of)) == 1)

    def whole(self) -> None:
        """A session from its creation to its end."""
        inputs = [{"path": "input/a.md", "bytes": 3, "digest": "sha256:" + "0" * 64}] * self.draw(st.integers(0, 2))
        created: dict[str, Any] = {"agent": "worker", "goal": "sort", "inputs": inputs}
        if self.chance(4):
            created["deferred"] = {"not_before": 1, "after": ["s-0"]}
        self.add(ev.SESSION_CREATED, created, "principal/op")
        if "deferred" in created and not self.begins():
            return
        for _ in range(self.draw(st.integers(0, 4))):
            if not self.model_call() or not self.tool_calls():
                return
        if self.chance(3):
            self.add(ev.SESSION_CANCELLED, {"reason": "enough"}, PERSON)
        elif self.chance(4):
            self.stopped(self.draw(st.sampled_from(["network", "home"])))
            error = {"code": "harness", "message": "the harness was stopped"}
            self.add(ev.SESSION_FAILED, {"error": error})
        elif self.model_call(last=True):
            self.add(ev.SESSION_FINISHED, {"result": "done"})
            if self.chance(3):
                self.stopped("after-finish", after="finished")

    def stopped(self, reason: str, **more: str) -> None:
        """The harness did what no harness may do, perhaps behind the end."""
        self.add(ev.HARNESS_STOPPED, {"reason": reason, "message": f"it did: {reason}", **more})

    def begins(self) -> bool:
        """A deferred session begins, perhaps after it was paused for a while; or can never begin."""
        paused = self.chance(3)
        for kind in (ev.SESSION_PAUSED, ev.SESSION_RESUMED) if paused else ():
            self.add(kind, {"reason": "wait"}, PERSON)
        if self.chance(4):
            self.add(ev.SESSION_FAILED, {"error": {"code": "precondition", "message": "session s-0 failed"}})
            return False
        self.add(ev.SESSION_BEGUN, {"outcomes": {"s-0": "finished"}})
        return True

    def decided(self, call: str, tool: str, args: dict[str, Any], effect: str, approvals: Any = None) -> None:
        data = {
            "call": call,
            "tool": tool,
            "effect": "external",
            "args": args,
            "args_digest": digest_of(args),
            "decision": {"effect": effect, "rules": ["some.rule"], "reasons": ["because"]},
            "turn": self.turn,
            "agent": {"name": "triage", "labels": {}},
            "now": 1_700_000_000_000,
            "policy": {"engine": "opa 1.0 (in process)", "data": "sha256:" + "2" * 64},
        }
        self.add(ev.SYSCALL_DECIDED, data | ({"approvals": approvals} if approvals else {}), AGENT)

    def model_call(self, *, last: bool = False) -> bool:
        """One reply of the model, perhaps after tries that fail; False when the session ended over it."""
        if self.chance(6):
            self.revision += 1
            self.add(ev.SESSION_REVISED, {"from": self.revision - 1, "to": self.revision})
        while True:
            self.models += 1
            self.turn += 1
            call = f"model-{self.models}"
            args = {"model": "m", "input_digest": "sha256:" + "1" * 64}
            what = self.draw(st.sampled_from(["finished"] * 6 + ["failed", "unknown", "deny"]))
            self.decided(call, "model-call", args, "deny" if what == "deny" else "allow")
            if what == "finished":
                break
            if what == "failed":
                error = {"code": "driver.model", "message": "busy"}
                self.add(ev.SYSCALL_FAILED, {"call": call, "tool": "model-call", "error": error, "duration_us": 1})
            if what == "unknown":
                self.taken_over()
                self.add(ev.SYSCALL_UNKNOWN, {"call": call, "tool": "model-call"})
            if what == "deny":
                self.add(ev.SESSION_FAILED, {"error": {"code": "denied", "message": "because"}})
                return False
        ids = [] if last else [f"c-{self.models}-{number}" for number in range(self.draw(st.integers(1, 3)))]
        self.proposed.append(ids)
        content: list[dict[str, Any]] = [{"type": "text", "text": "so"}] if self.chance(2) or last else []
        for name in ids:
            block = {"type": "tool_use", "id": name, "name": self.draw(st.sampled_from(TOOLS)), "input": {"path": name}}
            content.append(block)
        usage = {"input_tokens": self.draw(st.integers(0, 50)), "output_tokens": self.draw(st.integers(0, 50))}
        result = {"content": "", "is_error": False, "data": {"content": content, "stop_reason": "tool_use", **usage}}
        self.add(ev.SYSCALL_FINISHED, {"call": call, "tool": "model-call", "result": result, "duration_us": 1})
        self.blocks = [block for block in content if block["type"] == "tool_use"]
        return True

    def tool_calls(self) -> bool:
        """The calls of the last reply, in order; False when the session ended over one."""
        return all(self.tool_call(block["id"], block["name"], block["input"]) for block in self.blocks)

    def tool_call(self, call: str, tool: str, args: dict[str, Any]) -> bool:
        ends = ["refused", "deny", "allow", "allow", "allow", "ask", "ask", "halt", "cancelled"]
        what = self.draw(st.sampled_from(ends))
        approvals = None
        if what == "refused":
            error = {"code": "refused", "message": "path: expected text"}
            self.add(ev.SYSCALL_REFUSED, {"call": call, "tool": tool, "args_text": "{}", "error": error}, AGENT)
            return True
        if what == "cancelled":
            self.add(ev.SESSION_CANCELLED, {"reason": "enough"}, PERSON)
            return False
        self.decided(call, tool, args, what)
        if what == "ask":
            answered = self.people(call, tool, args)
            if answered is None:
                return True
            what = self.draw(st.sampled_from(["allow", "allow", "deny"]))
            approvals = answered if what == "allow" else None
            self.decided(call, tool, args, what, approvals)
        if what == "halt":
            self.add(ev.SESSION_HALTED, {"rules": ["some.rule"], "reasons": ["because"]})
            return False
        if what == "allow":
            self.outcome(call, tool, args, approvals)
        return True

    def people(self, call: str, tool: str, args: dict[str, Any]) -> list[dict[str, Any]] | None:
        """The question to people, one or two of them; the yeses that a later allow rests on, None for a no and for nobody."""
        needed = self.draw(st.integers(1, 2))
        for given in range(needed):
            if given:
                self.decided(call, tool, args, "ask")
            decided = {"args_digest": digest_of(args), "decided": len(self.events)}
            expires = {"expires": 2_000_000_000_000}
            asked = {"call": call, "args_digest": decided["args_digest"], "needed": needed, "given": given}
            self.add(ev.SESSION_WAITING, asked | expires)
            answer = {"call": call, "reason": "I looked"} | decided
            if self.chance(6):
                self.add(ev.APPROVAL_EXPIRED, {"call": call} | decided)
                return None
            if self.chance(4):
                self.add(ev.APPROVAL_DENIED, answer, PERSON)
                return None
            scope = self.draw(st.sampled_from(["once", "session"]))
            terms = {"scope": scope, "max_uses": 1 if scope == "once" else 3, "policy_digest": "sha256:" + "3" * 64}
            said = {"roles": ["approver"], "decision": {"effect": "allow", "rules": [], "reasons": []}}
            self.add(ev.APPROVAL_GRANTED, answer | expires | terms | said, PEOPLE[given])
        last = self.events[-1]
        return [{"call": call, "by": last.actor, "reason": "I looked", "scope": last.data["scope"]}]

    def outcome(self, call: str, tool: str, args: dict[str, Any], approvals: Any) -> None:
        what = self.draw(st.sampled_from(["finished", "finished", "failed", "unknown", "again"]))
        if what == "again":
            # A runtime stopped here, and the tool may be repeated.
            self.taken_over()
            self.decided(call, tool, args, "allow", approvals)
            what = "finished"
        data: dict[str, Any] = {"call": call, "tool": tool}
        if what == "finished":
            result: dict[str, Any] = {"content": f"result of {call}", "is_error": self.chance(4)}
            labels = self.draw(st.lists(st.sampled_from(LABELS), max_size=2))
            data |= {"result": result | ({"labels": labels} if labels else {}), "duration_us": 1}
            self.add(ev.SYSCALL_FINISHED, data)
        elif what == "failed":
            self.add(ev.SYSCALL_FAILED, data | {"error": {"code": "driver", "message": "no"}, "duration_us": 1})
        else:
            self.taken_over()
            self.add(ev.SYSCALL_UNKNOWN, data)

    def taken_over(self) -> None:
        self.epoch += 1
        self.add(ev.SESSION_OWNED, {"epoch": self.epoch})


@dataclass(frozen=True)
class History:
    """A session from its beginning, whole or cut; `proposed` are the ids of each reply that the events hold."""

    events: tuple[Event, ...]
    proposed: tuple[tuple[str, ...], ...]


@st.composite
def histories(draw: Callable[[st.SearchStrategy[Any]], Any], *, whole: bool = False) -> History:
    """Histories, cut after any event unless `whole`."""
    writer = Writer(draw)
    writer.whole()
    end = len(writer.events) if whole else draw(st.integers(1, len(writer.events)))
    events = tuple(writer.events[:end])
    replies = sum(1 for event in events if event.type == ev.SYSCALL_FINISHED and event.data["tool"] == "model-call")
    return History(events, tuple(map(tuple, writer.proposed[:replies])))
