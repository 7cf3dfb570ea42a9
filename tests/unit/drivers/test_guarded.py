"""What surrounds every call: credentials for the call alone, and nothing of them in what comes back."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, DriverError, LogUnavailable, OutcomeUnknown
from agentos.abi.syscall import Result, ToolEffect
from agentos.credentials.adapters.env import EnvSource
from agentos.credentials.broker import Broker
from agentos.credentials.lease import UNAVAILABLE, CredentialUnavailable
from agentos.credentials.reference import Credential, SecretRef
from agentos.drivers import CallContext, Drivers, ToolSpec
from agentos.drivers.cleaned import Cleaned
from agentos.drivers.discreet import SHOWN
from agentos.drivers.port import Found, Outcome
from agentos.drivers.tracked import Mask
from agentos.egress.asking import NetDenied, NetRequest, Permit, Scheme

VALUE = "hunter2-hunter2-hunter2"
GITHUB = SecretRef("github", "env", "GITHUB")


class Now:
    """A clock that stands still, and the operating system's randomness."""

    def now_ms(self) -> int:
        return 1_700_000_000_000

    def token(self, size: int) -> bytes:
        return os.urandom(size)


class Acting:
    """A driver that does what the test says."""

    def __init__(self, act: Callable[[CallContext], Awaitable[Any]]) -> None:
        self.act = act

    async def call(self, tool: ToolSpec, args: Mapping[str, Json], context: CallContext) -> Result:
        del tool, args
        result: Result = await self.act(context)
        return result

    async def reconcile(self, tool: ToolSpec, args: Mapping[str, Json], context: CallContext) -> Found | None:
        del tool, args
        found: Found | None = await self.act(context)
        return found

    async def release(self, session: str) -> None:
        del session

    async def close(self) -> None:
        pass


class Watching:
    """Tells when the files were looked at."""

    def __init__(self, fails: str = "") -> None:
        self.seen: list[str] = []
        self.fails = fails

    async def before(self, tool: ToolSpec, context: CallContext, mask: Mask | None) -> None:
        del tool, context, mask
        self.seen.append("before")
        if self.fails == "before":
            raise DriverError("the disk is full")

    async def after(self, tool: ToolSpec, context: CallContext, mask: Mask | None) -> int | None:
        del tool, context
        self.seen.append("after " + (mask(VALUE.encode()).decode() if mask is not None else "unmasked"))
        if self.fails == "after":
            raise DriverError("the disk is full")
        return 7


def broker() -> Broker:
    return Broker({"env": EnvSource({"GITHUB": VALUE})}, Now(), Now(), patience_s=0.01)


def tool(*credentials: Credential, **more: Any) -> ToolSpec:
    return ToolSpec("t", "", ToolEffect.EXTERNAL, False, {}, {"exec": {}}, credentials=credentials, **more)


WITH = tool(Credential("github", env="TOKEN"))


def context(folder: Path, **more: Any) -> CallContext:
    return CallContext("acme", "s-1", "c-1", folder, decided=(9, "sha256:d"), secrets={"github": GITHUB}, **more)


async def test_credentials_are_there_while_it_acts(tmp_path: Path) -> None:
    """The driver gets the value, the result is masked, the log is told which lease it was, and afterwards there is no value."""
    seen: list[CallContext] = []

    async def act(lent: CallContext) -> Result:
        seen.append(lent)
        assert lent.leases is not None
        value = lent.leases.value("github")
        coded = base64.b64encode(f"user:{value}".encode()).decode()
        return Result(f"as {value} and {coded[4:]}", {"k": [value], value: 1}, acted={"sandbox": {"name": "default"}})

    result = await Drivers(exec=Acting(act), broker=broker()).call(WITH, {}, context(tmp_path))
    assert VALUE not in str(result)
    assert result.content.startswith("as [masked] and ")
    assert result.data == {"k": ["[masked]"], "[masked]": 1}
    (lease,) = result.acted["leases"]
    assert lease["secret"] == "github"
    assert result.acted["decision"] == {"seq": 9, "hash": "sha256:d"}
    assert result.acted["sandbox"] == {"name": "default"}
    assert seen[0].leases is not None
    with pytest.raises(CredentialUnavailable):
        seen[0].leases.value("github")


async def test_what_was_leased_before_is_masked_in_later_calls(tmp_path: Path) -> None:
    """A call that has no credentials itself does not show those of an earlier one; another session has nothing to mask."""

    async def act(lent: CallContext) -> Result:
        assert lent is not None
        return Result(VALUE)

    drivers = Drivers(exec=Acting(act), broker=broker())
    assert (await drivers.call(tool(), {}, context(tmp_path))).content == VALUE
    await drivers.call(WITH, {}, context(tmp_path))
    later = await drivers.call(tool(), {}, context(tmp_path))
    assert (later.content, dict(later.acted)) == ("[masked]", {})
    other = CallContext("acme", "s-2", "c-1", tmp_path)
    assert (await drivers.call(tool(), {}, other)).content == VALUE


@pytest.mark.parametrize("broken", ["undeclared", "unset", "no broker"])
async def test_without_the_credential_nothing_happens(tmp_path: Path, broken: str) -> None:
    """The driver is not called, and the words are the same whatever the reason."""

    async def act(_: CallContext) -> Result:
        pytest.fail("it must not act")

    place = context(tmp_path)
    secrets = {} if broken == "undeclared" else {"github": SecretRef("github", "env", "UNSET")}
    place = CallContext("acme", "s-1", "c-1", tmp_path, secrets=secrets)
    drivers = Drivers(exec=Acting(act), broker=None if broken == "no broker" else broker())
    with pytest.raises(CredentialUnavailable) as caught:
        await drivers.call(WITH, {}, place)
    assert (caught.value.message, caught.value.where, caught.value.mend) == (UNAVAILABLE, None, None)


@pytest.mark.parametrize("kind", [DriverError, OutcomeUnknown, LogUnavailable])
async def test_errors_are_masked(tmp_path: Path, kind: type[AgentOSError]) -> None:
    """Message, place, mend and whatever else an error carries say no value, and what it was raised from is not told."""

    async def act(_: CallContext) -> Result:
        try:
            int(VALUE)
        except ValueError as error:
            fault = kind(f"it said {VALUE}", where=f"at {VALUE}", mend=VALUE[::-1])
            fault.partial = f"so far {VALUE.encode().hex()}"  # type: ignore[attr-defined]
            fault.add_note(VALUE)
            raise fault from error

    with pytest.raises(kind) as caught:
        await Drivers(exec=Acting(act), broker=broker()).call(WITH, {}, context(tmp_path))
    told = "".join(traceback.format_exception(caught.value)) + str(vars(caught.value)) + str(caught.value.to_dict())
    for form in (VALUE, VALUE[::-1], VALUE.encode().hex()):
        assert form not in told
    assert caught.value.message == "it said [masked]"
    assert type(caught.value) is kind


async def test_an_unforeseen_error_is_masked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What a driver raises against its contract says no value, neither to whoever catches it nor in the runtime's log."""

    async def act(_: CallContext) -> Result:
        raise KeyError(VALUE)

    with caplog.at_level(logging.DEBUG), pytest.raises(RuntimeError, match=r"KeyError: '.masked.'") as caught:
        await Drivers(exec=Acting(act), broker=broker()).call(WITH, {}, context(tmp_path))
    assert VALUE not in "".join(traceback.format_exception(caught.value)) + caplog.text
    assert "tool t failed in an unexpected way" in caplog.text
    with pytest.raises(KeyError, match=VALUE):
        await Drivers(exec=Acting(act), broker=broker()).call(tool(), {}, context(tmp_path))


async def test_what_is_found_out_later_is_masked(tmp_path: Path) -> None:
    """A tool that is asked what came of a call has its credentials, and what it tells is masked."""

    async def act(lent: CallContext) -> Found:
        assert lent.leases is not None
        return Found(Outcome.FINISHED, f"paid with {lent.leases.value('github')}", VALUE)

    found = await Drivers(exec=Acting(act), broker=broker()).reconcile(WITH, {}, context(tmp_path))
    assert found == Found(Outcome.FINISHED, "paid with [masked]", "[masked]")


SCHEMA: Mapping[str, Json] = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("result", "fits"),
    [
        (Result("text", {"n": 1}), True),
        (Result("text", {"n": "one"}), False),
        (Result("text"), False),
        (Result("its own failure", is_error=True), True),
    ],
)
async def test_the_declared_output(tmp_path: Path, result: Result, fits: bool) -> None:
    """A result whose structured part does not fit is an error that says why; an error of the tool stays what it is."""

    async def act(_: CallContext) -> Result:
        return result

    given = await Drivers(exec=Acting(act)).call(tool(output_schema=SCHEMA), {}, context(tmp_path))
    if fits:
        assert (given.content, given.data, given.is_error) == (result.content, result.data, result.is_error)
    else:
        assert (given.is_error, given.data) == (True, None)
        assert given.content.startswith("the tool was called, and its result is not as it is declared: ")
        assert given.content.endswith("\ntext")


async def test_a_misfit_says_no_value(tmp_path: Path) -> None:
    """The sentence about what does not fit quotes what is masked already."""

    async def act(_: CallContext) -> Result:
        return Result("", {"n": VALUE})

    given = await Drivers(exec=Acting(act), broker=broker()).call(
        tool(Credential("github", env="T"), output_schema=SCHEMA), {}, context(tmp_path)
    )
    assert given.is_error
    assert VALUE not in given.content


@pytest.mark.parametrize("ending", ["result", "error", "cancelled"])
async def test_files_are_looked_at_around_the_call(tmp_path: Path, ending: str) -> None:
    """Before and after, however the call ends, with the masks of the session; the change is told to the log."""
    watching = Watching()

    async def act(_: CallContext) -> Result:
        if ending == "error":
            raise DriverError("no")
        if ending == "cancelled":
            raise asyncio.CancelledError
        return Result("")

    drivers = Drivers(exec=Acting(act), broker=broker(), tracked=watching)
    if ending == "result":
        result = await drivers.call(WITH, {}, context(tmp_path))
        assert result.acted["change"] == 7
    else:
        with pytest.raises(DriverError if ending == "error" else asyncio.CancelledError):
            await drivers.call(WITH, {}, context(tmp_path))
    assert watching.seen == ["before", "after [masked]"]


async def test_files_that_cannot_be_kept(tmp_path: Path) -> None:
    """Where files cannot be looked at first nothing is done; where they cannot be afterwards nobody knows what came of it."""
    acted: list[str] = []

    async def act(_: CallContext) -> Result:
        acted.append("acted")
        return Result("")

    with pytest.raises(DriverError, match="the disk is full"):
        await Drivers(exec=Acting(act), tracked=Watching("before")).call(tool(), {}, context(tmp_path))
    assert acted == []
    with pytest.raises(OutcomeUnknown, match="the call was made, and what it changed could not be recorded: the disk is full"):
        await Drivers(exec=Acting(act), tracked=Watching("after")).call(tool(), {}, context(tmp_path))


async def test_outputs_are_cleaned_before_they_are_kept() -> None:
    """What is kept of an output, and the digest that is told of it, are of the masked one."""
    kept: list[bytes] = []
    made = broker()

    def keep(tenant: str, session: str, data: bytes) -> str:
        kept.append(data)
        return f"{tenant}/{session}"

    async with made.lease("acme", "s-1", "c-1", "", {"github": GITHUB}):
        outputs = Cleaned(made, keep)
        assert outputs.clean("acme", "s-1", VALUE.encode()) == b"[masked]"
        assert outputs.keep("acme", "s-1", b"a " + VALUE.encode()) == "acme/s-1"
    assert kept == [b"a [masked]"]


class Way:
    """A way out that lets everything pass, and knows what it was asked about and told."""

    def __init__(self) -> None:
        self.asked: list[NetRequest] = []
        self.told: list[str] = []

    async def ask(self, request: NetRequest) -> Permit:
        self.asked.append(request)
        return self

    async def finished(self, *, status: int | None, sent: int, received: int, address: str) -> None:
        self.told.append(f"{status} {sent} {received} {address}")

    async def failed(self, message: str) -> None:
        self.told.append(message)


GET = NetRequest(Scheme.HTTPS, "api.example", 443, "GET", "/v1")


@pytest.mark.parametrize(
    "told",
    [
        {"path": f"/{VALUE}"},
        {"path": f"/a/{base64.b64encode(VALUE.encode()).decode().rstrip('=')}/b"},
        {"host": f"{VALUE}.evil.example"},
        {"host": f"{VALUE.encode().hex()}.evil.example"},
        {"method": VALUE.upper()},
        {"host": "hunter2-hunter", "path": "/2-hunter2"},
    ],
)
async def test_no_address_shows_a_value(tmp_path: Path, told: dict[str, Any]) -> None:
    """A process cannot tell a value to the log or to a name server by where it wants to go: the attempt is recorded, masked, and
    nothing leaves, also by a later call that has no credentials. Other requests pass as they are, in the way out's own words."""
    way = Way()

    async def act(lent: CallContext) -> Result:
        assert lent.net is not None
        with pytest.raises(NetDenied, match=SHOWN):
            await lent.net.ask(replace(GET, **told))
        permit = await lent.net.ask(GET)
        await permit.failed(f"lost {VALUE}")
        await (await lent.net.ask(GET)).finished(status=200, sent=1, received=2, address="192.0.2.1")
        return Result("")

    drivers = Drivers(exec=Acting(act), broker=broker())
    for one in (WITH, tool()):
        await drivers.call(one, {}, context(tmp_path, net=way))
    assert way.told == [SHOWN, "lost [masked]", "200 1 2 192.0.2.1"] * 2
    assert way.asked[1:3] == [GET, GET]
    shown = str(way.asked).lower()
    assert not any(
        form in shown for form in (VALUE, VALUE.encode().hex(), base64.b64encode(VALUE.encode()).decode().lower()[:24])
    )
    assert "[masked]" in shown


async def test_what_an_earlier_runtime_lent_is_masked(tmp_path: Path) -> None:
    """A session that comes back knows nothing of its leases; what its calls were lent is fetched again, once, and only masked."""
    fetched: list[str] = []

    class Counting(EnvSource):
        async def fetch(self, ref: SecretRef) -> str:
            fetched.append(ref.name)
            return await super().fetch(ref)

    made = Broker({"env": Counting({"GITHUB": VALUE})}, Now(), Now(), patience_s=0.01)

    async def act(lent: CallContext) -> Result:
        assert lent.leases is None
        return Result(f"found {VALUE}")

    drivers = Drivers(exec=Acting(act), broker=made)
    gone = SecretRef("gone", "env", "GONE")
    for _ in range(2):
        result = await drivers.call(tool(), {}, context(tmp_path, lent={"github": GITHUB, "gone": gone}))
        assert (result.content, dict(result.acted)) == ("found [masked]", {})
    assert fetched == ["github", "gone"]
    assert made.live() == []
    made.ended("acme", "s-1")
    assert (await drivers.call(tool(), {}, context(tmp_path))).content == f"found {VALUE}"


async def test_what_is_told_of_the_hands_is_masked(tmp_path: Path) -> None:
    """What a driver adds for the log goes through the masks, in a result and in an error."""

    async def act(lent: CallContext) -> Result:
        del lent
        return Result("", acted={"sandbox": {VALUE: [VALUE]}})

    async def fail(lent: CallContext) -> Result:
        del lent
        error = OutcomeUnknown("lost")
        error.acted = MappingProxyType({"sandbox": {"name": VALUE}})
        raise error

    result = await Drivers(exec=Acting(act), broker=broker()).call(WITH, {}, context(tmp_path))
    assert VALUE not in str(result)
    assert "leases" in result.acted
    with pytest.raises(OutcomeUnknown) as caught:
        await Drivers(exec=Acting(fail), broker=broker()).call(WITH, {}, context(tmp_path))
    assert caught.value.acted == {"sandbox": {"name": "[masked]"}}


@pytest.mark.parametrize("ending", ["error", "cancelled"])
async def test_a_call_ends_as_it_ended(tmp_path: Path, ending: str, caplog: pytest.LogCaptureFixture) -> None:
    """Where what a failed or stopped call has changed cannot be recorded, it is that call's own end that is told all the same."""

    async def act(_: CallContext) -> Result:
        raise OutcomeUnknown("it broke off") if ending == "error" else asyncio.CancelledError

    with pytest.raises(OutcomeUnknown if ending == "error" else asyncio.CancelledError):
        await Drivers(exec=Acting(act), tracked=Watching("after")).call(tool(), {}, context(tmp_path))
    assert "could not be recorded: the disk is full" in caplog.text
