"""A connection to NATS that says what happened: refused keys are IdentityError, an absent server is Unavailable.

The client's own habits are tamed here: nothing is printed (its errors go to `logging`, one line each), a server that is
not there is told at once, and a lost connection is taken up again after `_RETRY`, not two seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from nats.aio.client import Client
from nats.errors import AuthorizationError, Error, NoServersError, StaleConnectionError
from nats.protocol import parser

from agentos.abi.errors import IdentityError, Unavailable
from agentos.eventlog.adapters.credentials import NKey, parse_seed
from agentos.eventlog.adapters.private_file import read_private

_LOGGER = logging.getLogger(__name__)
_OPEN = 5.0  # seconds for the whole of getting in
_RETRY = 0.05  # seconds between two tries to get back in
_PORT = 4222
_LIMITS: Final = ("maximum payload", "maximum subscriptions", "maximum account active connections", "maximum connections")
_REFUSED: Final = re.compile(r'permissions violation for publish to "([^"]*)"', re.IGNORECASE)

# As the server reads its lines: between words are blanks and tabs. The library takes any other white space for such a gap, too,
# and ends the connection over a reply that has some in it.
parser.MSG_RE = re.compile(rb"\AMSG[ \t]+([^ \t\r\n]+)[ \t]+([0-9]+)[ \t]+(([^ \t\r\n]+)[ \t]+)?(\d+)\r\n")
parser.HMSG_RE = re.compile(rb"\AHMSG[ \t]+([^ \t\r\n]+)[ \t]+([0-9]+)[ \t]+(([^ \t\r\n]+)[ \t]+)?([\d]+)[ \t]+(\d+)\r\n")


async def connect(
    url: str,
    credentials: NKey | Path,
    *,
    name: str,
    inbox_prefix: str = "_INBOX",
    reconnect: bool = False,
    refused: Callable[[str], None] | None = None,
) -> Client:
    """An open connection to the server at `url` (`nats://host:port`).

    `credentials` is a key, or a file with a seed or a JWT and seed (`nats` creds format). `name` shows in the server's list
    of connections. `inbox_prefix` is where answers come in: a user restricted to `_INBOX.<name>.>` passes `_INBOX.<name>`.
    With `reconnect` a lost connection is retried for ever; without it is closed. `refused` is told the subject of each message
    that the server does not let its user publish.
    Raises IdentityError when the server refuses the credentials, Unavailable when there is no server.
    """
    key, jwt = _read(credentials)
    await _knock(url)
    told: list[Exception] = []
    client = _Steady(name)

    async def on_error(error: Exception) -> None:
        told.append(error)
        if refused is not None and (found := _REFUSED.search(str(error))) is not None:
            refused(found[1])
        elif opened:
            _LOGGER.warning("%s: %s", name, _sentence(error))
        del told[:-8]

    async def on_disconnected() -> None:
        # No answer will come to a question that was asked before; the client would let its asker wait for the whole time-out.
        for waiting in list(client._resp_map.values()):  # noqa: SLF001 - there is no public way
            if not waiting.done():
                waiting.set_exception(StaleConnectionError())
        if opened and not client.is_closed:
            _LOGGER.warning("%s: lost the connection to %s", name, url)

    async def on_reconnected() -> None:
        _LOGGER.info("%s: back on %s", name, url)

    opened = False
    try:
        async with asyncio.timeout(_OPEN):
            await client.connect(
                url,
                name=name,
                nkeys_seed_str=None if jwt else key.seed,
                user_jwt_cb=(lambda: bytearray(jwt, "ascii")) if jwt else None,
                signature_cb=key.answer if jwt else None,
                inbox_prefix=inbox_prefix,
                error_cb=on_error,
                disconnected_cb=on_disconnected,
                reconnected_cb=on_reconnected,
                # The first try must fail fast, later ones go on for ever; the client has one set of options for both.
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=_RETRY,  # type: ignore[arg-type] # a float works and is needed
            )
    except (Error, OSError, TimeoutError) as error:
        reasons = [*told, error]
        await client.close()
        raise _explain(url, name, reasons) from error
    client.options["allow_reconnect"] = reconnect
    client.options["max_reconnect_attempts"] = -1
    opened = True
    return client


class _Steady(Client):
    """A client that no message can bring down.

    What a message names as its reply, and where its headers belong, is whatever its sender has sent: the server looks at neither.
    The library stops reading for good, and says nothing, where that is no text or no headers.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self._odd = 0

    async def _process_headers(self, headers: Any) -> dict[str, str] | None:
        try:
            return await super()._process_headers(headers)
        except (LookupError, TypeError, ValueError):
            self._count_odd("headers that are none")
            return None

    def _build_message(self, sid: int, subject: Any, reply: Any, data: bytes, headers: dict[str, str] | None) -> Any:
        try:
            return super()._build_message(sid, subject, reply, data, headers)
        except UnicodeDecodeError:
            self._count_odd("a subject or a reply that is no text, and is dropped")
            return None

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        await super()._process_info(info, initial_connection)
        # What the account allows is said after the handshake, and the library listens to the server's own limit alone.
        if not initial_connection and isinstance(info.get("max_payload"), int):
            self._max_payload = info["max_payload"]

    async def _process_err(self, err_msg: str) -> None:
        # A limit that was lowered, or full for the moment, is no reason for the runtime never to come back.
        if self.options["allow_reconnect"] and any(limit in err_msg.lower() for limit in _LIMITS):
            self._err = Error(f"nats: {err_msg.strip(chr(39))}")
            await self._error_cb(self._err)
            await self._process_op_err(self._err)
            return
        await super()._process_err(err_msg)

    async def _read_loop(self) -> None:
        await super()._read_loop()
        task = asyncio.current_task()
        if self.is_connected and task is not None and not task.cancelling():
            # It has stopped for a reason that nobody foresaw, and would not read again.
            await self._process_op_err(StaleConnectionError())

    def _count_odd(self, what: str) -> None:
        """Say so now and then: one line for each would let anybody fill the log."""
        self._odd += 1
        if self._odd & (self._odd - 1) == 0:
            _LOGGER.warning("%s: a message with %s; %d such so far", self._name, what, self._odd)


def _read(credentials: NKey | Path) -> tuple[NKey, str | None]:
    if isinstance(credentials, NKey):
        return credentials, None
    text = read_private(credentials)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    seeds = [line for line in lines if line.startswith("SU")]
    tokens = [line for line in lines if line.startswith("eyJ")]
    try:
        key = parse_seed(seeds[0] if seeds else "")
    except IdentityError as error:
        raise IdentityError(error.message, where=str(credentials), mend=error.mend) from error
    return key, tokens[0] if tokens else None


async def _knock(url: str) -> None:
    """Find out that somebody listens, before the client begins its slower way of finding out."""
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port or _PORT
    except ValueError as error:
        raise Unavailable(f"{url!r} is no address of a NATS server", mend="write nats://host:port") from error
    if not host:
        raise Unavailable(f"{url!r} is no address of a NATS server", mend="write nats://host:port")
    try:
        async with asyncio.timeout(_OPEN):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError) as error:
        raise _absent(url, error) from error
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def _explain(url: str, name: str, told: list[Exception]) -> IdentityError | Unavailable:
    if any(isinstance(error, AuthorizationError) or "authorization violation" in str(error).lower() for error in told):
        return IdentityError(
            f"the NATS server refuses the credentials of {name}",
            where=url,
            mend="use the credentials that `agentos up` made, or ask an operator for a principal",
        )
    cause = next((error for error in reversed(told) if not isinstance(error, NoServersError)), told[-1])
    return _absent(url, cause)


def _absent(url: str, error: Exception) -> Unavailable:
    return Unavailable(
        f"no NATS server answers at {url}: {_sentence(error)}", where=url, mend="start the runtime with `agentos up`"
    )


def _sentence(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error).removeprefix("nats: ") or type(error).__name__
