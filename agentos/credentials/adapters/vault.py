"""Values in HashiCorp Vault's key-value store, version 2: one GET by its HTTP API.

    GET /v1/{mount}/data/{path}      X-Vault-Token, X-Vault-Namespace      200 {"data": {"data": {FIELD: VALUE}, "metadata": {…}}}

https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2. TLS is verified, against the file that `VAULT_CACERT` names or the
host's authorities. No proxy of the environment is used and no redirect followed: the token goes to the declared address alone.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import ssl
from collections.abc import Mapping
from ipaddress import ip_address
from types import ModuleType
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

from agentos.abi.canonical import Json
from agentos.credentials.adapters.env import variable
from agentos.credentials.adapters.file import read_private
from agentos.credentials.reference import SecretRef
from agentos.credentials.source import Apart, SourceFault

if TYPE_CHECKING:
    import httpx2

TIMEOUT_S: Final = 2.5
"""Seconds for a connection, and for each answer on it; shorter than the broker's patience, so that the reason is known."""

MAX_ANSWER: Final = 1024 * 1024
"""Most bytes of an answer."""

_REASONS: Final = {
    400: "the request is wrong: look at mount, path and namespace",
    403: "it refuses the token, or the token may not read this path",
    404: "there is no such secret, or its last version is deleted or destroyed",
    412: "this node has not caught up yet",
    429: "this node is a standby, or asks to slow down",
    472: "this node is a disaster recovery secondary",
    473: "this node is a performance standby",
    503: "it is sealed, or down for maintenance",
}


class VaultSource:
    """Reads `vault: {address, mount, path, field, namespace, tokenEnv | tokenFile}`; `environ` is the runtime's environment."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._apart = Apart()
        self._lock = asyncio.Lock()
        self._http: ModuleType | None = None
        self._client: httpx2.AsyncClient | None = None

    async def fetch(self, ref: SecretRef) -> str:
        """The field of the secret's last version. Raises SourceFault."""
        told: Mapping[str, Json] = ref.settings
        address = str(told["address"])
        _check_address(address)
        headers = {"X-Vault-Token": await self._token(told), "X-Vault-Request": "true", "Accept-Encoding": "identity"}
        if "namespace" in told:
            headers["X-Vault-Namespace"] = str(told["namespace"])
        mount = str(told.get("mount", "secret"))
        url = f"{address}/v1/{quote(mount)}/data/{quote(str(told['path']))}"
        return _field(await self._get(url, headers, f"Vault at {address}"), str(told["field"]))

    async def close(self) -> None:
        """Close its connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _token(self, told: Mapping[str, Json]) -> str:
        if "tokenFile" in told:
            path = str(told["tokenFile"])
            token = await self._apart.run(lambda: read_private(path))
        else:
            token = variable(self._environ, str(told.get("tokenEnv", "VAULT_TOKEN")))
        if not token.isascii() or not token.isprintable() or " " in token:
            raise SourceFault("what stands for Vault's token is none: it is one word of ASCII")
        return token

    async def _get(self, url: str, headers: Mapping[str, str], where: str) -> bytes:
        client, http = await self._opened()
        body = bytearray()
        try:
            async with client.stream("GET", url, headers=dict(headers)) as answer:
                async for piece in answer.aiter_raw():
                    body += piece
                    if len(body) > MAX_ANSWER:
                        raise SourceFault(f"{where} answered with more than {MAX_ANSWER} bytes")
        except (http.HTTPError, http.InvalidURL) as error:
            raise SourceFault(f"{where} cannot be asked: {type(error).__name__}{_tls(error)}") from None
        if answer.status_code != 200:
            why = _REASONS.get(answer.status_code, "this node does not serve it" if 300 <= answer.status_code < 400 else "")
            raise SourceFault(f"{where} answered {answer.status_code}" + (f": {why}" if why else ""))
        return bytes(body)

    async def _opened(self) -> tuple[httpx2.AsyncClient, ModuleType]:
        async with self._lock:
            if self._http is None:
                self._http = await asyncio.to_thread(importlib.import_module, "httpx2")
            if self._client is None:
                try:
                    authorities = ssl.create_default_context(cafile=self._environ.get("VAULT_CACERT") or None)
                except OSError as error:
                    raise SourceFault(f"the authorities that VAULT_CACERT names cannot be read: {error.strerror}") from None
                self._client = self._http.AsyncClient(
                    verify=authorities, trust_env=False, follow_redirects=False, timeout=self._http.Timeout(TIMEOUT_S)
                )
            return self._client, self._http


def _check_address(address: str) -> None:
    """Refuse plain http but to this machine, whatever was declared when that was looked at."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    if parts.scheme == "https" and host:
        return
    try:
        here = parts.scheme == "http" and (host == "localhost" or ip_address(host).is_loopback)
    except ValueError:
        here = False
    if not here:
        raise SourceFault(f"the address {address} is not asked: plain http would show the token to the network")


def _tls(error: BaseException) -> str:
    """What is wrong with the certificate, if that is why."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    return f" ({cause.verify_message})" if isinstance(cause, ssl.SSLCertVerificationError) else ""


def _field(body: bytes, name: str) -> str:
    try:
        answer = json.loads(body)
        fields = answer["data"]["data"]
    except (ValueError, RecursionError, KeyError, TypeError):
        raise SourceFault("what Vault answered is no secret of a key-value store of version 2") from None
    if not isinstance(fields, dict) or name not in fields:
        raise SourceFault(f"the secret in Vault has no field {name!r}")
    value = fields[name]
    if not isinstance(value, str):
        raise SourceFault(f"the field {name!r} in Vault is no text")
    return value
