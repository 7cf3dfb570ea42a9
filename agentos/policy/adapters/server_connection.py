"""The connection to an OPA server: `opa-python-client`, with what it lacks.

What of the client is not used as it comes: it has no unix sockets, no authority of one's own, retries three times, sends
lone surrogates for OPA to replace, and loses the text of errors. So `Connection` opens the session itself and asks through
the client's own request, with no retry; modules and data never pass through it (its rewriting of Rego has nothing to do).
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

import aiohttp
from opa_client import AsyncOpaClient
from yarl import URL

from agentos.abi.errors import EngineUnavailable
from agentos.policy.adapters.server import Address

_OPTIONS: Final = "provenance=true&strict-builtin-errors=true"
_JSON: Final = {"Content-Type": "application/json"}


class Connection(AsyncOpaClient):  # type: ignore[misc] # the package carries no types
    """A client of one server, with connections that stay open."""

    def __init__(self, address: Address, *, connections: int) -> None:
        super().__init__(
            host=address.host, port=address.port, ssl=address.tls is not None, token=address.token, retries=0, timeout=None
        )
        self._address = address
        self._connections = connections
        self._urls: dict[str, URL] = {}

    _session: aiohttp.ClientSession | None

    async def _init_session(self) -> None:
        connector: aiohttp.BaseConnector
        if self._address.socket is not None:
            connector = aiohttp.UnixConnector(self._address.socket, limit=self._connections, keepalive_timeout=3600)
        else:
            connector = aiohttp.TCPConnector(ssl=self._address.tls or False, limit=self._connections)
        self._session = aiohttp.ClientSession(
            headers=self.headers, connector=connector, timeout=aiohttp.ClientTimeout(total=None), trust_env=False
        )

    async def open(self) -> None:
        """Make the session; nothing is connected yet."""
        await self._init_session()

    def use_token(self, token: str | None) -> bool:
        """Be known by `token` from the next question on. False where that is no other than before."""
        said = f"Bearer {token}"
        if token is None or self._session is None or self._session.headers.get("Authorization") == said:
            return False
        self._session.headers["Authorization"] = said
        return True

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Ask for `data.<path>`: status and body. Raises EngineUnavailable for a server that does not answer."""
        url = self._urls.get(path)
        if url is None:
            # Made once: to take a url apart costs a tenth of a decision.
            url = self._urls[path] = URL(f"{self.root_url}/data/{quote(path.replace('.', '/'))}?{_OPTIONS}", encoded=True)
        if self._session is None:
            raise EngineUnavailable("the policy engine has been closed")
        try:
            async with self._request("POST", url, data=body, headers=_JSON) as response:
                return response.status, await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise EngineUnavailable(f"the policy server does not answer: {error or type(error).__name__}") from error

    def drop(self) -> None:
        """Close all connections now. Call it in the session's loop."""
        session, self._session = self._session, None
        if session is None or session.connector is None:
            return
        connector = session.connector
        session.detach()
        # Its first step closes the transports; what is left to wait for (the farewell of TLS) nobody has time for.
        steps = connector.close().__await__()
        if next(steps, None) is not None:
            steps.close()
