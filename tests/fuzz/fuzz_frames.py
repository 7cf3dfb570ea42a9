"""Frames: what a harness, a model's tool server, a client of the control service, a policy server and another runtime may send.

The rule of all of them: whatever gets something decided, asked for or begun can be read strictly, by another reader, to the very
same thing. What has two meanings has none.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from fuzz_case import Broken, Target
from fuzz_strict import Ambiguous, clean_parse, same
from kernel_in_memory import ALLOW, Kernel, calls, settled

from agentos.abi import rpc
from agentos.abi.chain import verify
from agentos.abi.decision import Decision, Verdict, parse_decision
from agentos.abi.envelope import Envelope, read_task_subject
from agentos.abi.errors import AgentOSError, Conflict, EngineUnavailable, NotFound
from agentos.abi.event import SESSION_FAILED, SYSCALL_DECIDED, Event
from agentos.control import wire
from agentos.control.adapters.nats_service import ControlService
from agentos.control.params import Params
from agentos.control.principal import Caller
from agentos.control.webhook import Delivery, genuine
from agentos.drivers.adapters.mcp_process import ServerProcess
from agentos.drivers.adapters.mcp_result import Reading
from agentos.eventlog.subject import session_subject
from agentos.kernel import serving
from agentos.kernel.port import Left
from agentos.kernel.workspace import Workspaces
from agentos.policy.adapters.server import ServerEngine
from agentos.registry.principal import Principal

LOOP: Final = asyncio.new_event_loop()
"""One for all cases: making a loop costs more than most of them."""

GREETING: Final = rpc.response(0, {"abi": rpc.ABI})

JSON_WORDS: Final = (
    b'"id":',
    b'"method":',
    b'"params":',
    b'"jsonrpc":"2.0"',
    b'"result":',
    b'"error":',
    b"true",
    b"null",
    b"1e3",
)


@dataclass(slots=True)
class _Harness:
    """A harness that writes the lines of a case and reads nothing."""

    lines: list[bytes]
    turn: int = 0
    told: list[bytes] = field(default_factory=list)
    wanted: asyncio.Future[None] = field(default_factory=LOOP.create_future)

    async def read_frame(self) -> bytes:
        # The end of the pipe and an empty line are the same to who reads them.
        return self.lines.pop(0).rstrip(b"\n") if self.lines else b""

    async def write_frame(self, frame: bytes) -> None:
        self.told.append(frame)

    async def stop(self, *, reuse: frozenset[str] | None = None, finished: bool = False) -> Left:
        return Left(0)


@dataclass(slots=True)
class _Answers:
    """Notes what it is asked, in order; every third request is off, and what only reads is served beside others."""

    session: str = "s-1"
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    async def handle(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self.asked.append((method, params))
        return self._answer(method)

    def at_once(self, method: str, params: dict[str, Any]) -> Any:
        if params.get("tool") != "read":
            return None
        self.asked.append((method, params))
        return self._later(method)

    async def _later(self, method: str) -> dict[str, Any]:
        await asyncio.sleep(0)
        return self._answer(method)

    def _answer(self, method: str) -> dict[str, Any]:
        if method == "finish":
            raise serving.Leave(rpc.ENDED, "the session is finished")
        if len(self.asked) % 3 == 0:
            raise Conflict("that is off")
        return {"method": method}

    def no_more(self) -> None:
        return


def _requests(lines: list[bytes]) -> list[dict[str, Any]]:
    """The requests among lines, as a clean parse has them, up to the first line that is none."""
    found: list[dict[str, Any]] = []
    for line in lines:
        try:
            frame = clean_parse(line.rstrip(b"\n"))
        except Ambiguous:
            break
        if not isinstance(frame, dict):
            break
        found.append(frame)
    return found


def serve(data: bytes) -> str:
    """The serve loop: everything that is acted on is the request that a clean parse of its own line has, in the same order."""
    lines = data.split(b"\n")
    process, answers = _Harness(list(lines)), _Answers()
    ended = LOOP.run_until_complete(serving.serve(process, answers))
    clean = _requests(lines)[1:]
    if len(answers.asked) > len(clean):
        raise Broken(f"{len(answers.asked)} requests were acted on, {len(clean)} can be read by others")
    for (method, params), frame in zip(answers.asked, clean, strict=False):
        if method != frame.get("method") or not same(params, frame.get("params", {})) or type(frame.get("id")) is not int:
            raise Broken(f"{method} {params} was acted on, others read {frame}")
    numbers = [frame.get("id") for frame in clean]
    for told in process.told:
        answer = clean_parse(told)
        if answer["id"] is not None and answer["id"] not in (0, *numbers):
            raise Broken(f"{answer} answers nothing that was asked")
    if len(process.told) > len(answers.asked) + 2:
        raise Broken(f"{len(process.told)} frames were written for {len(answers.asked)} requests")
    return "taken" if answers.asked else f"refused: {ended.why.split(':', 1)[0]}"


def _decide(document: Mapping[str, Any]) -> Decision:
    return ALLOW if document["syscall"]["tool"] in {"read", "write", "model-call"} else Decision(Verdict.DENY, ("none",), ("no",))


def kernel(data: bytes) -> str:
    """The whole kernel behind the pipe: what is decided and done is what a clean parse of some line asks for."""
    lines = data.split(b"\n")
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        world = Kernel(Workspaces(Path(folder)))
        world.policy.decide = _decide
        world.model.replies = [
            calls(("t1", "read", {"path": "a"}), ("t2", "write", {"path": "b"}), ("t3", "send", {"path": "c"}))
        ]
        world.spawner = _Spawner(lines)
        name, stored = LOOP.run_until_complete(_session(world))
        LOOP.run_until_complete(asyncio.sleep(0))  # what was left over is closed within its own case
    asked = [
        (frame["params"].get("call"), frame["params"].get("tool"), frame["params"].get("args"))
        for frame in _requests(lines)[1:]
        if frame.get("method") == "tool.call" and type(frame.get("id")) is int and isinstance(frame.get("params"), dict)
    ]
    verify(name, stored)
    if any(event.data["error"]["code"] == "internal" for event in map(Event.from_bytes, stored) if event.type == SESSION_FAILED):
        raise Broken("a traceback is in the runtime's log")
    decided = 0
    for record in stored:
        event = Event.from_bytes(record)
        if event.type != SYSCALL_DECIDED or event.data["call"].startswith("model-"):
            continue
        decided += 1
        wanted = (event.data["call"], event.data["tool"], event.data["args"])
        if not any(same(list(wanted), list(one)) for one in asked):
            raise Broken(f"{wanted} was decided, nobody asked for it")
        if event.data["decision"]["effect"] == "allow" and event.data["tool"] not in {"read", "write"}:
            raise Broken(f"{wanted} was allowed")
    for tool, args in world.driver.calls:
        if not any(tool == name and same(args, given) for _, name, given in asked) or tool == "send":
            raise Broken(f"{tool} acted with {args}, nobody asked for it")
    return "taken" if decided else "refused"


@dataclass(slots=True)
class _Spawner:
    """Two harnesses that write the same lines, and then such as leave at once: a budget would end what goes on for ever."""

    lines: list[bytes]
    spawned: int = 0

    async def spawn(self, *_brief: object) -> _Harness:
        self.spawned += 1
        return _Harness(list(self.lines) if self.spawned <= 2 else [])


async def _session(world: Kernel) -> tuple[str, list[bytes]]:
    """A session that ran until it could not go on: its id and its stored events."""
    sessions = world.sessions()
    name = (await sessions.create("default", "worker", "work", None, "principal/op")).id
    await settled(sessions)
    return name, [stored.data async for stored in world.log.read(session_subject(name))]


def mcp(data: bytes) -> str:
    """A tool server's lines: what reaches the client answers something that was asked, once; a result is bounded text."""
    from mcp_types import CallToolResult, JSONRPCRequest, JSONRPCResponse

    process = ServerProcess()
    for number in (1, 2, 3):
        process._sieve.sent(JSONRPCRequest(jsonrpc="2.0", id=number, method="tools/call", params={}))
    cut = len(data) // 3
    for piece in (data[:cut], data[cut:], b"\n"):
        process.pipe_data_received(1, piece)
    heard: list[Any] = []
    taken = False
    while process._lines:
        item = process._read(process._lines.popleft())
        if item is None or not isinstance(item.message, JSONRPCResponse):
            continue
        message = item.message
        if int(message.id) not in (1, 2, 3) or message.id in heard:
            raise Broken(f"an answer to {message.id!r} came through")
        heard.append(message.id)
        try:
            answer = CallToolResult.model_validate(message.result, by_name=False)
        except ValueError:
            continue
        result = Reading(512, "default", "s-1").result(answer, {})
        if len(result.content.encode()) > 1200:
            raise Broken(f"a result of {len(result.content)} characters where 512 bytes were the most")
        taken = True
    return "taken" if taken else "refused"


@dataclass(slots=True)
class _Verbs:
    """A verb that takes one parameter of each kind, and notes who asked for what."""

    asked: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    async def run(self, caller: Caller, params: dict[str, Any]) -> None:
        self.asked.append((caller.name, caller.tenant, params))
        given = Params(params)
        given.text("session")
        given.text_or_none("reason")
        given.number("limit", default=10, highest=100)
        given.flag("force")
        given.names("labels")
        given.listed("manifests")
        given.mapping("args")
        given.end()

    async def get(self, name: str) -> Principal:
        if name not in {"alice", "olga"}:
            raise NotFound(f"no principal {name}")
        return Principal(name, "*" if name == "olga" else "acme", ("operator",), "U" + "A" * 55, 0, "system/boot")

    async def authorize(self, caller: Caller, verb: str) -> None:
        del caller, verb


def control(data: bytes) -> str:
    """A request to the control service: who acts on which tenant, with what, is what a clean parse of its bytes says."""
    verbs = _Verbs()
    service = ControlService({"session.run": verbs.run}, verbs, verbs.authorize)  # type: ignore[arg-type]
    packed = data.startswith(b"\x1f\x8b")
    account, name = ("*", "olga") if data.endswith(b" ") else ("acme", "alice")
    request = SimpleNamespace(data=data, headers={wire.ENCODING: "gzip"} if packed else None)
    came = "taken"
    try:
        LOOP.run_until_complete(service._perform(request, "session.run", account, name, True))  # type: ignore[arg-type]
    except AgentOSError as error:
        came = f"refused: {error.code}"
    for who, tenant, params in verbs.asked:
        clean = clean_parse(wire.unpack(data, request.headers, most=wire.MAX_REQUEST))
        wanted = clean.get("tenant") or "default" if account == "*" else account
        if (who, tenant) != (name, wanted) or not same(params, clean["params"]):
            raise Broken(f"{who} acted on {tenant} with {params}, others read {clean}")
    return came


SECRET: Final = b"0123456789abcdef0123456789abcdef"


def webhook(data: bytes) -> str:
    """A delivery (headers, an empty line, a body): genuine is only what carries a signature of exactly these bytes."""
    head, _, body = data.partition(b"\n\n")
    lines = (line.partition(b":") for line in head.split(b"\n"))
    headers = {name.decode("latin-1").strip().lower(): value.decode("latin-1").strip() for name, _, value in lines}
    delivery = Delivery("acme", "mail", headers, body)
    named = genuine("standard", (SECRET,), delivery, 1_700_000_000)
    hub = genuine("github", (SECRET,), delivery, 1_700_000_000)
    if named is not None:
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        mark = base64.b64encode(hmac.digest(SECRET, signed, hashlib.sha256)).decode()
        if f"v1,{mark}" not in headers["webhook-signature"].split() or named != headers["webhook-id"]:
            raise Broken("a delivery without its signature is genuine")
    if hub is not None and headers["x-hub-signature-256"] != f"sha256={hmac.digest(SECRET, body, hashlib.sha256).hex()}":
        raise Broken("a delivery without its signature is genuine")
    return "taken" if named or hub else "refused"


def _deliveries() -> list[bytes]:
    body = b'{"action":"opened"}'
    mark = base64.b64encode(hmac.digest(SECRET, b"m-1.1700000000." + body, hashlib.sha256)).decode()
    hub = hmac.digest(SECRET, body, hashlib.sha256).hex()
    return [
        f"Webhook-Id: m-1\nWebhook-Timestamp: 1700000000\nWebhook-Signature: v1,AAAA v1,{mark}\n\n".encode() + body,
        f"X-Hub-Signature-256: sha256={hub}\n\n".encode() + body,
    ]


def policy(data: bytes) -> str:
    """The answer of a policy server: allowed is only what a clean parse of it allows, and no answer at all is said to be none."""
    status = 500 if b'"errors"' in data else 200
    try:
        value = LOOP.run_until_complete(_asked(status, data))
    except EngineUnavailable:
        return "refused"
    decision = parse_decision(value)
    if decision.effect is not Verdict.ALLOW:
        return f"decided: {decision.effect}"
    clean = clean_parse(data)
    if clean["result"]["effect"] != "allow" or REVISION not in str(clean["provenance"]):
        raise Broken(f"allowed, others read {clean}")
    return "taken"


REVISION: Final = "sha256:" + "5" * 64


async def _asked(status: int, data: bytes) -> Any:
    async def post(_path: str, _body: bytes) -> tuple[int, bytes]:
        return status, data

    bundle = SimpleNamespace(names=SimpleNamespace(restore=str), revision=REVISION, sha256=REVISION)
    from agentos.policy.adapters.server import Address

    engine = ServerEngine(Address(socket="/nowhere"), bundle, connections=1, questions=1, queue_seconds=1)  # type: ignore[arg-type]
    engine._connection = SimpleNamespace(post=post, drop=lambda: None)  # type: ignore[assignment]
    return await engine.evaluate("agentos.syscall.decision", {})


def envelope(data: bytes) -> str:
    """The envelope of a delegation: what is read is written back to the same bytes; a subject is read to what makes it."""
    subject, _, body = data.partition(b"\n")
    came = "refused"
    try:
        sender, child = read_task_subject(subject.decode("utf-8", "replace"))
        if f"task.{sender}.{child}".encode() != subject:
            raise Broken(f"{subject!r} is the subject of {child} by {sender}")
    except ValueError:
        came = "refused: subject"
    try:
        read = Envelope.from_bytes(body)
    except ValueError:
        return came
    if read.to_bytes() != body:
        raise Broken("two spellings of one envelope")
    return "taken"


FRAMES: Final = (
    Target("frames.serve", serve, 3000, (*JSON_WORDS, b'"tool.call"', b'"finish"', b'"tool":"read"', b"\n")),
    Target("frames.kernel", kernel, 400, (*JSON_WORDS, b'"tool.call"', b'"call":"t1"', b'"call":"step-1"', b'"args":{}', b"\n")),
    Target("frames.mcp", mcp, 1500, (*JSON_WORDS, b'"content":', b'"structuredContent":', b'"isError":', b'"type":"text"')),
    Target("frames.control", control, 2500, (b'"params":', b'"tenant":', b'"session":', b'"args":', b'"acme"', b"\x1f\x8b")),
    Target("frames.webhook", webhook, 1000, (b"webhook-id:", b"v1,", b"sha256=", b"\n\n"), made=_deliveries),
    Target("frames.policy", policy, 1500, (b'"result":', b'"effect":"allow"', b'"provenance":', b'"bundles":', b'"errors":')),
    Target("frames.envelope", envelope, 3000, (b'"child":', b'"v":1', b"task.U", b"sha256:")),
)
