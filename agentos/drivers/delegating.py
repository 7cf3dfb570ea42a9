"""Delegating: what a tool with the driver `delegate` declares, which tasks a call of it asks for, and what comes back of them.

    terms = Terms.of(tool)                            # agents, mode, reduce, narrowing: the operator's words
    tasks = terms.tasks(args)                         # [Task(agent="writer", goal="…"), …]; raises DriverError
    terms.look(len(tasks), {0: Ended(…)})             # OPEN, MET or MISSED: whether what has ended is enough
    terms.result("c1", ended)                         # what the model of the session that delegates is told

Each task becomes a session of its own, a child; with `reduce` one more child gets what the others came to. All of it is pure: the
same declaration, arguments and ends give the same answer, in the session that delegates and in whoever begins its children. The
act itself is `kernel.delegation`, which a driver reaches by the port `Delegations`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, Protocol

from agentos.abi.canonical import Json, canonical
from agentos.abi.errors import DriverError
from agentos.abi.syscall import Result
from agentos.drivers.port import CallContext, ToolSpec
from agentos.files.confine import MAX_PATH

KEY: Final = "delegate"
"""The key of `tool.driver`."""

TIMEOUT_S: Final = 3600
"""Seconds that a delegation is waited for where the Tool does not say."""

MAX_TIMEOUT_S: Final = 7 * 86_400
"""Most seconds that a Tool may say."""

MAX_TASKS: Final = 16
"""Children of one call where the Tool does not say."""

MOST_TASKS: Final = 128
"""Most children of one call that a Tool may say."""

MAX_GOAL: Final = 64 * 1024
"""Characters of a goal at most; a session takes no longer one."""

MAX_INPUTS: Final = 64
"""Paths that one task names at most."""

MAX_EVENTS: Final = 1000
"""Events of its own that a session hands over at most."""

MAX_TEXT: Final = 32 * 1024
"""Most bytes of one child's result that the model is told, as JSON; of many children each gets less."""

MAX_TEXTS: Final = 512 * 1024
"""Most bytes of all results together."""

MAX_LISTED: Final = 256 * 1024
"""Most bytes of all lists of files together, so that no child can make a result that is too large to be recorded."""

MOST_SHOWN: Final = 20
"""Files of one child that the model is told by name."""

FOLDER: Final = "delegated"
"""The folder of a workspace that the files of children come back to."""

UNITS: Final[Mapping[str, tuple[str, int]]] = {
    "tokens": ("tokens", 1),
    "dollars": ("microdollars", 1_000_000),
    "calls": ("calls", 1),
    "seconds": ("milliseconds", 1000),
    "bytes": ("bytes", 1),
}
"""Amounts as they are declared, and as books keep them."""


class Mode(StrEnum):
    """When what the children came to is enough: all of them finished, the first one has, or so many."""

    ALL = "all"
    FIRST = "first"
    QUORUM = "quorum"


class Look(StrEnum):
    """What the children that have ended come to."""

    OPEN = "open"
    MET = "met"
    MISSED = "missed"


class DelegationFailed(DriverError):
    """Nothing came of a delegation: it took too long, or could not begin."""

    code = "delegation"


class DelegationLate(DelegationFailed):
    """The children did not end within the time that the Tool gives them; they were cancelled."""

    code = "delegation.late"


class DelegationDeadlock(DelegationFailed):
    """Waiting for the children would never end: one of them waits for the session that delegates."""

    code = "delegation.deadlock"


@dataclass(frozen=True, slots=True)
class Task:
    """What one child is to do. `inputs` are paths in the workspace of the session that delegates."""

    agent: str
    goal: str
    inputs: tuple[str, ...] = ()
    reduces: bool = False
    """Whether it gets what the others came to, in place of files."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of one child. `outcome`: finished, failed, cancelled, halted, or refused (it never began)."""

    index: int
    session: str
    agent: str
    outcome: str
    text: str = ""
    """What it finished with, or why it did not."""
    labels: tuple[str, ...] = ()
    """Those that it carried at its end."""
    files: tuple[Mapping[str, Json], ...] = field(default=(), hash=False)
    """What it left in `output/`, as it stands in the workspace of the session that delegates: `{path, bytes, digest}`."""

    @property
    def finished(self) -> bool:
        """Whether it did what it was to do."""
        return self.outcome == "finished"


class Delegations(Protocol):
    """Delegates for sessions."""

    async def delegate(self, tool: ToolSpec, args: Mapping[str, Json], place: CallContext) -> Result:
        """Have the children of the call (`place.children`) begun, wait for them, give what came of them.

        The same call again goes on where it was: no child begins twice. Raises DriverError; see `kernel.seat.Displaced` for who
        has to give its place up meanwhile. Cancelling leaves the children alone: they go on, or are ended with their parent.
        """


@dataclass(frozen=True, slots=True)
class Terms:
    """`driver.delegate` of a Tool, read. Amounts of `budget` are those of `UNITS` as books keep them."""

    agents: tuple[str, ...]
    mode: Mode = Mode.ALL
    quorum: int = 0
    reduce: Task | None = None
    most: int = MAX_TASKS
    tools: tuple[str, ...] | None = None
    budget: Mapping[str, int] | None = field(default=None, hash=False)

    @classmethod
    def of(cls, tool: ToolSpec) -> Terms:
        """The terms of a delegate tool. Only of one."""
        return cls.read(tool.driver[KEY])

    @classmethod
    def read(cls, declared: Mapping[str, Json]) -> Terms:
        """The terms in a validated `driver.delegate`."""
        reduce, tools, budget = declared.get("reduce"), declared.get("tools"), declared.get("budget")
        return cls(
            agents=tuple(declared["agents"]),
            mode=Mode(declared.get("mode", Mode.ALL)),
            quorum=int(declared.get("quorum", 0)),
            reduce=None if reduce is None else Task(reduce["agent"], reduce["goal"], reduces=True),
            most=int(declared.get("maxTasks", MAX_TASKS)),
            tools=None if tools is None else tuple(tools),
            budget=None if budget is None else _amounts(budget),
        )

    def tasks(self, args: Mapping[str, Json]) -> tuple[Task, ...]:
        """The tasks of a call, the reducing one last. Raises DriverError for arguments that make none of them."""
        shared = tuple(args.get("inputs", ()))
        listed = args.get("tasks")
        if (listed is None) == (args.get("goal") is None):
            raise DelegationFailed("name a goal, or tasks with a goal each; not both", mend="leave one of the two out")
        if listed is None:
            asked = [Task(self._agent(args, args), str(args["goal"]), shared)]
        else:
            asked = [
                Task(self._agent(one, args), str(one["goal"]), tuple(dict.fromkeys((*shared, *one.get("inputs", ())))))
                for one in listed
            ]
        if not 0 < len(asked) <= self.most:
            raise DelegationFailed(f"{len(asked)} tasks were named, and 1 to {self.most} are taken at once")
        if self.mode is Mode.QUORUM and len(asked) < self.quorum:
            raise DelegationFailed(f"{self.quorum} children have to finish, and {len(asked)} tasks were named")
        if any(len(task.inputs) > MAX_INPUTS for task in asked):
            raise DelegationFailed(f"a task names at most {MAX_INPUTS} inputs", mend="name the folder that they are in")
        return (*asked, self.reduce) if self.reduce is not None else tuple(asked)

    def children(self, args: Mapping[str, Json]) -> int:
        """How many sessions a call begins; none if its arguments make no tasks, which the act then says."""
        try:
            return len(self.tasks(args))
        except DelegationFailed:
            return 0

    def narrowed_tools(self, args: Mapping[str, Json]) -> list[str] | None:
        """The tools that the children may use of those that their agents have, sorted; None: all of them."""
        asked = args.get("tools")
        if asked is None:
            return None if self.tools is None else sorted(self.tools)
        return sorted(set(asked) if self.tools is None else set(asked) & set(self.tools))

    def narrowed_budget(self, args: Mapping[str, Json]) -> dict[str, int] | None:
        """What each child may use at most, by unit of the books: the less of what Tool and call say. None: nothing is said."""
        asked = _amounts(args["budget"]) if args.get("budget") is not None else {}
        both = [amounts for amounts in (self.budget or {}, asked) if amounts]
        found = {
            unit: min(one[unit] for one in both if unit in one) for unit in dict.fromkeys(unit for one in both for unit in one)
        }
        return found or None

    def look(self, total: int, ended: Mapping[int, Ended]) -> Look:
        """Whether it is enough that these of `total` tasks, the reducing one not counted, have ended."""
        finished = sum(one.finished for one in ended.values())
        open_ = total - len(ended)
        if self.mode is Mode.ALL:
            # All are heard, also when one of them has failed: what the others did is of use.
            return Look.OPEN if open_ else Look.MET if finished == total else Look.MISSED
        wanted = 1 if self.mode is Mode.FIRST else self.quorum
        return Look.MET if finished >= wanted else Look.OPEN if finished + open_ >= wanted else Look.MISSED

    def result(self, call: str, ended: Sequence[Ended], *, met: bool) -> Result:
        """What the model is told: one part per child, in the order of the tasks. `data` is `{mode, met, children}`.

        Of those that were still at work when it was enough, the ends say so and carry no words. Labels are those of everybody
        whose end is told. Of a child's files as many are listed as there is room for; `unlisted` counts the others.
        """
        most = min(MAX_TEXT, MAX_TEXTS // max(len(ended), 1))
        parts, children = [], list[Json]()
        for one in ended:
            text = cut(one.text, most, f"the whole is {place(call, one.index)}.txt") if one.finished else cut(one.text, most, "")
            listed = _fitting(one.files, MAX_LISTED // max(len(ended), 1))
            shown = listed[:MOST_SHOWN]
            files = "".join(f"\n- {file['path']} ({file['bytes']} bytes)" for file in shown)
            left = len(one.files) - len(shown)
            more = f"\n- … and {left} more in {place(call, one.index)}" if left else ""
            parts.append(f"[{one.index}] {one.agent} ({one.session}) {one.outcome}: {text}{files}{more}")
            child: dict[str, Json] = {"session": one.session, "agent": one.agent, "outcome": one.outcome}
            unlisted = {"unlisted": len(one.files) - len(listed)} if len(listed) < len(one.files) else {}
            children.append(child | {"result": text, "labels": list(one.labels), "files": listed, **unlisted})
        # Also of one without a word: that it has ended, and how, tells something.
        labels = tuple(sorted({label for one in ended for label in one.labels}))
        wanted = {Mode.ALL: "all of them", Mode.FIRST: "one of them", Mode.QUORUM: f"{self.quorum} of them"}[self.mode]
        head = [] if met else [f"{wanted} had to finish, and did not:"]
        data: Json = {"mode": str(self.mode), "met": met, "children": children}
        return Result("\n\n".join([*head, *parts]), data, is_error=not met, labels=labels)

    def reduced(self, call: str, ended: Sequence[Ended], *, met: bool) -> Result:
        """The same where one more child, the last of `ended`, has made one of what the others came to: it speaks for all."""
        whole = self.result(call, ended, met=met)
        last = ended[-1]
        most = min(MAX_TEXT, MAX_TEXTS // max(len(ended), 1))
        return replace(whole, content=cut(last.text, most, f"the whole is {place(call, last.index)}.txt")) if met else whole

    def _agent(self, one: Mapping[str, Json], args: Mapping[str, Json]) -> str:
        name = one.get("agent", args.get("agent"))
        if name is None and len(self.agents) == 1:
            return self.agents[0]
        if name not in self.agents:
            raise DelegationFailed("each task names the agent that does it", mend=f"one of: {', '.join(self.agents)}")
        return str(name)


def delegates(tool: ToolSpec | None) -> bool:
    """Whether a tool hands work to other sessions."""
    return tool is not None and KEY in tool.driver


def place(call: str, index: int) -> str:
    """Where in the workspace of the session that delegates the files of a child come to."""
    return f"{FOLDER}/{call}/{index}"


def cut(text: str, most: int, where: str) -> str:
    """`text`, if it takes no more than `most` bytes of JSON; else as much of it as does, with a notice that says where it is."""
    if len(text) <= most // 6 or len(canonical(text)) <= most:
        return text
    short, long = 0, len(text)
    while short < long:
        middle = (short + long + 1) // 2
        short, long = (middle, long) if len(canonical(text[:middle])) <= most else (short, middle - 1)
    return f"{text[:short]}\n[cut here: {short} of {len(text)} characters{'; ' if where else ''}{where}]"


def _fitting(files: Sequence[Mapping[str, Json]], most: int) -> list[Json]:
    """The first of `files`, as many as take no more than `most` bytes of JSON."""
    found: list[Json] = []
    for file in files:
        most -= len(canonical(dict(file))) + 1
        if most < 0:
            break
        found.append(dict(file))
    return found


def is_cut(text: str, children: int) -> bool:
    """Whether the model is told only a part of a child's result, where there are so many children."""
    most = min(MAX_TEXT, MAX_TEXTS // max(children, 1))
    return len(text) > most // 6 and len(canonical(text)) > most


def input_schema(declared: Mapping[str, Json]) -> dict[str, Json]:
    """The JSON Schema (2020-12) of the arguments of a tool with this `driver.delegate`.

    That a call names a goal or tasks, and not both, is said in words: hosted models take no `oneOf` at the top.
    """
    agents, most = list(declared["agents"]), int(declared.get("maxTasks", MAX_TASKS))
    goal: Json = {"type": "string", "minLength": 1, "maxLength": MAX_GOAL}
    agent: Json = {"type": "string", "enum": agents, "description": "Who does it."}
    inputs: Json = {
        "type": "array",
        "description": "Files or folders of the workspace that are handed over; they come to stand in `input/`.",
        "items": {"type": "string", "minLength": 1, "maxLength": MAX_PATH},
        "maxItems": MAX_INPUTS,
        "uniqueItems": True,
    }
    named: dict[str, Json] = {"agent": agent} if len(agents) > 1 else {}
    task: Json = {
        "type": "object",
        "properties": {**named, "goal": {**goal, "description": "What is to be done."}, "inputs": inputs},
        "required": ["goal"],
        "additionalProperties": False,
    }
    number: Json = {"type": "integer", "minimum": 1}
    return {
        "type": "object",
        "description": "Have other agents do something, and wait for what they come to. Name `goal` for one task, or `tasks`.",
        "properties": {
            **named,
            "goal": {**goal, "description": "What is to be done, where there is one task."},
            "tasks": {
                "type": "array",
                "description": "What is to be done, each by a session of its own, all at the same time.",
                "items": task,
                "minItems": 1,
                "maxItems": most,
            },
            "inputs": inputs,
            "events": {
                "type": "object",
                "description": "Which of your own events are handed over, by number, as `input/context.jsonl`.",
                "properties": {"first": number, "last": number},
                "required": ["first", "last"],
                "additionalProperties": False,
            },
            "tools": {
                "type": "array",
                "description": "The only tools that may be used for it.",
                "items": {"type": "string", "minLength": 1, "maxLength": 63},
                "maxItems": 200,
                "uniqueItems": True,
            },
            "budget": {
                "type": "object",
                "description": "What each task may use at most; dollars as text.",
                "properties": {
                    **{
                        unit: {"type": "integer", "minimum": 1, "maximum": 1_000_000_000_000}
                        for unit in UNITS
                        if unit != "dollars"
                    },
                    "dollars": {"type": "string", "pattern": r"^(0|[1-9][0-9]{0,6})(\.[0-9]{1,6})?$"},
                },
                "additionalProperties": False,
            },
        },
        "additionalProperties": False,
    }


def _amounts(declared: Mapping[str, Json]) -> dict[str, int]:
    return {unit: _whole(declared[name], scale) for name, (unit, scale) in UNITS.items() if declared.get(name) is not None}


def _whole(amount: Json, scale: int) -> int:
    """An amount in the unit of the books, exactly; a text has at most six digits behind its point."""
    if not isinstance(amount, str):
        return int(amount) * scale
    before, _, behind = amount.partition(".")
    return int(before) * scale + int(behind.ljust(6, "0") or "0") * scale // 1_000_000
