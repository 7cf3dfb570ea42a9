"""The schemas of the ABI and the frames that kernel and harness really exchange say the same, in both directions."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from kernel_in_memory import ALLOW, Alone, InlineHarness, InlineSpawner, Kernel, calls, settled, text
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012
from test_hostile_harness import run

from agentos.abi import rpc
from agentos.abi.assets import asset
from agentos.abi.decision import Decision, Verdict, deny
from agentos.abi.errors import DriverError
from agentos.abi.syscall import Result
from agentos.boot.system import ProcessHarness
from agentos.kernel.port import Brief, Left

FOLDER = asset("schemas") / "v1" / "abi"
BODIES = {path.name: json.loads(path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.json"))}
REGISTRY: Registry[Any] = Registry().with_resources([(name, Resource(body, DRAFT202012)) for name, body in BODIES.items()])
FRAMES = [name for name in BODIES if name not in {"common.json", "from-kernel.json", "from-harness.json"}]


def validator(name: str) -> Draft202012Validator:
    """What checks against the file `name`, whose references lead to the other files."""
    return Draft202012Validator({"$ref": name}, registry=REGISTRY)


SAYS = {who: {one["$ref"] for one in BODIES[f"from-{who}.json"]["oneOf"]} for who in ("kernel", "harness")}
SAID_BY = {"kernel": validator("from-kernel.json"), "harness": validator("from-harness.json")}


class Overheard:
    """Starts the harnesses of another spawner and keeps what is said, as `(who, frame)`."""

    def __init__(self, spawner: Any) -> None:
        self.frames: list[tuple[str, dict[str, Any]]] = []
        self._spawner = spawner

    async def spawn(self, brief: Brief) -> Any:
        return Tapped(await self._spawner.spawn(brief), self.frames)


class Tapped(Alone):
    def __init__(self, harness: InlineHarness | ProcessHarness, frames: list[tuple[str, dict[str, Any]]]) -> None:
        self._harness, self._frames = harness, frames

    async def read_frame(self) -> bytes:
        line = await self._harness.read_frame()
        if line:
            self._frames.append(("harness", json.loads(line)))
        return line

    async def write_frame(self, frame: bytes) -> None:
        assert frame.endswith(b"\n")
        assert frame.isascii()
        self._frames.append(("kernel", json.loads(frame)))
        await self._harness.write_frame(frame)

    async def stop(self, *, reuse: frozenset[str] | None = None, finished: bool = False) -> Left:
        return await self._harness.stop(reuse=reuse, finished=finished)


def schemas_of(frames: list[tuple[str, dict[str, Any]]]) -> set[str]:
    """Which files the frames fit, each of which has to fit what its speaker may say."""
    for who, frame in frames:
        SAID_BY[who].validate(frame)
    return {name for name in FRAMES for who, frame in frames if name in SAYS[who] and validator(name).is_valid(frame)}


async def test_every_frame_of_real_runs_fits_its_schema(kernel: Kernel) -> None:
    """Greeting, view, model, calls that work, fail, are denied, refused and parked, a resume, the end: nothing else is said."""

    def decide(document: Any) -> Decision:
        name = document["syscall"]["tool"]
        if name == "send":
            return deny("closed.no", "closed")
        if name == "write" and "approval" not in document:
            return Decision(Verdict.ASK, ("asks.first",), ("a person looks first",))
        return ALLOW

    kernel.policy.decide = decide
    kernel.driver.answers["read"] = DriverError("no such file")
    kernel.model.replies = [
        calls(
            ("c1", "read", {"path": "a"}), ("c2", "send", {"path": "b"}), ("c3", "nothing", {}), ("c4", "write", {"path": "é"})
        ),
        text("done"),
    ]
    kernel.spawner = overheard = Overheard(InlineSpawner())
    sessions = kernel.sessions()
    session = (await sessions.create("default", "worker", "work", None, "principal/op")).id
    await settled(sessions)
    assert overheard.frames[-1][1]["error"]["code"] == rpc.PARKED
    kernel.policy.decide = lambda _: ALLOW
    await sessions.cancel("default", session, reason="seen enough", actor="principal/op")
    await sessions.create("default", "worker", "work", None, "principal/op")
    await settled(sessions)
    assert overheard.frames[-1][1]["error"]["code"] == rpc.ENDED
    expected = {
        name for name in FRAMES if name not in {"notification.json", "refusal.json", "left.json", "primitive.call.request.json"}
    }
    assert schemas_of(overheard.frames) == expected


async def test_what_a_foreign_harness_is_told_fits_too(kernel: Kernel) -> None:
    """The whole conversation, and each kind of refusal."""
    kernel.model.replies = [calls(("c1", "write", {"path": "a"})), text("done")]
    kernel.driver.answers["write"] = Result("ok")
    code = """
told = [ask("model.call"), ask("tool.call", call="c1", tool="write", args={"path": "a"}), ask("session.view", messages=True)]
told += [ask("model.call"), ask("session.view"), ask("bogus"), ask("finish"), ask("tool.call", call="a b", tool="x", args={})]
ask("finish", result=json.dumps(told))
"""
    state = await run(kernel, code)
    told = json.loads(state.result)
    for frame in told:
        SAID_BY["kernel"].validate(frame)
    assert [message["role"] for message in told[2]["result"]["messages"]] == ["user", "assistant", "user"]
    assert told[4]["result"]["final"] == "done"
    assert [frame["error"]["code"] for frame in told[5:]] == [rpc.INVALID_PARAMS] * 3


@pytest.mark.parametrize(
    ("said", "code"), [("b'nonsense'", rpc.PARSE_ERROR), ("[1]", rpc.INVALID_REQUEST), ("{}", rpc.INVALID_REQUEST)]
)
async def test_what_a_broken_frame_is_answered_with_fits(kernel: Kernel, said: str, code: int) -> None:
    """The pipe is closed with one last frame, which has no number."""
    from test_hostile_harness import hostile

    overheard = Overheard(hostile(f"send({said}); receive()"))
    process = await overheard.spawn(Brief("default", "s-1"))
    from agentos.kernel.serving import serve

    class Nobody:
        session = "s-1"

        def no_more(self) -> None:
            return

    # What the harness says is no JSON, so only the kernel's words are kept.
    process.read_frame = process._harness.read_frame
    await serve(process, Nobody())  # type: ignore[arg-type]
    await process.stop()
    last = overheard.frames[-1][1]
    SAID_BY["kernel"].validate(last)
    assert (last["id"], last["error"]["code"]) == (None, code)


def broken(frame: Any) -> Iterator[Any]:
    """The frame with one thing off: a field gone, a field more, a value of another type; in each of its objects of ours."""
    for key in frame:
        without = copy.deepcopy(frame)
        del without[key]
        yield without
        for other in ([], "odd words", 1.5, True, None):
            if type(other) is not type(frame[key]):
                yield {**copy.deepcopy(frame), key: other}
    yield {**copy.deepcopy(frame), "more": 1}
    for key in ("params", "result", "error"):
        inner = frame.get(key)
        if isinstance(inner, dict):
            yield {**copy.deepcopy(frame), key: {**inner, "more": 1}}
            for name in inner:
                yield {**copy.deepcopy(frame), key: {**inner, name: 1.5}}


OPTIONAL = {"initialize.result.json": {"name", "version"}, "session.view.request.json": {"messages"}}


@pytest.mark.parametrize("name", FRAMES)
def test_nothing_else_fits(name: str) -> None:
    """Each example is accepted by its file alone; with one thing off it is no frame of its speaker."""
    check = validator(name)
    who = [who for who, names in SAYS.items() if name in names]
    assert len(who) == 1
    for example in BODIES[name]["examples"]:
        check.validate(example)
        SAID_BY[who[0]].validate(example)
        accepted = [odd for odd in broken(example) if check.is_valid(odd)]
        # What may be left out may be; an error may have no number, and a notification no parameters.
        allowed = {"error.json": 1, "notification.json": 2, "left.json": 1}.get(name, 0)
        assert len(accepted) <= allowed, accepted


@pytest.mark.parametrize("name", BODIES)
def test_each_file_is_a_schema_that_explains_itself(name: str) -> None:
    """JSON Schema 2020-12, with a title and a sentence for each part."""
    Draft202012Validator.check_schema(BODIES[name])

    def parts(node: Any) -> Iterator[Any]:
        if isinstance(node, dict):
            for key in ("properties", "$defs"):
                yield from (part for part in node.get(key, {}).values() if "$ref" not in part and "const" not in part)
            for value in node.values():
                yield from parts(value)

    for part in [BODIES[name], *parts({key: value for key, value in BODIES[name].items() if key != "allOf"})]:
        if set(part) != {"const"}:
            assert part["title"]
            assert part["description"].endswith(".")


def test_the_page_tells_of_every_method_and_code() -> None:
    """`docs/abi.md` names each method, each code and each file; the frames of its transcript are frames."""
    page = (Path(__file__).parents[3] / "docs" / "abi.md").read_text("utf-8")
    for name in FRAMES:
        assert f"`{name}`" in page, name
    for code in (rpc.PARSE_ERROR, rpc.INVALID_REQUEST, rpc.INVALID_PARAMS, rpc.PARKED, rpc.ENDED):
        assert f"`{code}`" in page, code
    assert f"`{rpc.ABI}`" in page
    said = re.findall(r"^ *([←→]) (\{.*\})$", page, re.MULTILINE)
    assert len(said) >= 12
    for arrow, line in said:
        SAID_BY["kernel" if arrow == "→" else "harness"].validate(json.loads(line))
