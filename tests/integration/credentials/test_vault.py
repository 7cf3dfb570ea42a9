"""Vault: a server that speaks the wire format of its key-value store, version 2, on a real socket, with and without TLS."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agentos.credentials.adapters.sources import all_sources
from agentos.credentials.adapters.vault import MAX_ANSWER, VaultSource
from agentos.credentials.broker import Broker
from agentos.credentials.reference import SecretRef
from agentos.credentials.source import SourceFault

TOKEN = "hvs.CAESIJ-the-token-of-vault"
VALUE = "the-value-that-vault-keeps-4711"


@dataclass
class VaultServer:
    """Answers as Vault does: status, headers and JSON bodies as documented for /v1/{mount}/data/{path}."""

    secrets: dict[str, object] = field(default_factory=dict)
    """By `mount/path`: the data of the last version; None: it was deleted."""
    status: int | None = None
    raw: bytes | None = None
    hang: bool = False
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    address: str = ""

    def answer(self, target: str, headers: dict[str, str]) -> tuple[int, dict[str, str], object]:
        if self.status in (301, 302, 307):
            return self.status, {"Location": "http://127.0.0.1:1/v1/elsewhere"}, None
        if self.status is not None:
            words = {503: "Vault is sealed", 400: "missing client token"}
            return self.status, {}, {"errors": [words.get(self.status, "internal error")]}
        if headers.get("x-vault-token") != TOKEN:
            return 403, {}, {"errors": ["permission denied"]}
        mount, _, path = target.removeprefix("/v1/").partition("/data/")
        name = "/".join(filter(None, (headers.get("x-vault-namespace"), mount, path)))
        if name not in self.secrets:
            return 404, {}, {"errors": []}
        data = self.secrets[name]
        metadata = {
            "created_time": "2026-03-22T02:24:06.945319214Z",
            "custom_metadata": None,
            "deletion_time": "" if data is not None else "2026-03-22T02:36:43.986212308Z",
            "destroyed": False,
            "version": 2,
        }
        body = {
            "request_id": "5c66ce8b-d30a-4d7c-9c9c-1d4d3d3f9d8a",
            "lease_id": "",
            "renewable": False,
            "lease_duration": 0,
            "data": {"data": data, "metadata": metadata},
            "wrap_info": None,
            "warnings": None,
            "auth": None,
            "mount_type": "kv",
        }
        return 200 if data is not None else 404, {}, body

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            lines = head.split("\r\n")
            target = lines[0].split(" ")[1]
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
            self.asked.append((target, headers))
            if self.hang:
                await reader.read()
                return
            status, more, body = self.answer(target, headers)
            data = self.raw if self.raw is not None else json.dumps(body).encode() + b"\n"
            told = {"Content-Type": "application/json", "Content-Length": str(len(data)), "Connection": "close", **more}
            lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in told.items()), "", ""]
            writer.write("\r\n".join(lines).encode())
            writer.write(data)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()


@asynccontextmanager
async def serving(server: VaultServer, tls: object = None, host: str = "127.0.0.1") -> AsyncIterator[VaultServer]:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)  # type: ignore[arg-type]
    port = listening.sockets[0].getsockname()[1]
    server.address = f"{'https' if tls else 'http'}://{host}:{port}"
    try:
        yield server
    finally:
        listening.close()


@pytest.fixture
async def vault() -> AsyncIterator[VaultServer]:
    async with serving(VaultServer({"secret/agents/github": {"token": VALUE, "number": 7}, "secret/gone": None})) as server:
        yield server


@asynccontextmanager
async def source(**environ: str) -> AsyncIterator[VaultSource]:
    made = VaultSource({"VAULT_TOKEN": TOKEN, **environ})
    try:
        yield made
    finally:
        await made.close()


def ref(address: str, path: str = "agents/github", name: str = "token", **more: str) -> SecretRef:
    return SecretRef("github", "vault", {"address": address, "path": path, "field": name, **more})


async def fault(vault: VaultServer, wanted: SecretRef, **environ: str) -> str:
    """Why there is no value: never a token or value of anybody."""
    async with source(**environ) as made:
        with pytest.raises(SourceFault) as caught:
            await made.fetch(wanted)
    told = str(caught.value.to_dict()) + repr(caught.value.__cause__)
    assert TOKEN not in told
    assert VALUE not in told
    return caught.value.message


async def test_a_field_is_read(vault: VaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The field of the last version is the value; the token goes in a header, past any proxy of the environment."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with source() as made:
        assert await made.fetch(ref(vault.address)) == VALUE
        assert await made.fetch(ref(vault.address.replace("127.0.0.1", "localhost"))) == VALUE
    target, headers = vault.asked[0]
    assert target == "/v1/secret/data/agents/github"
    assert (headers["x-vault-token"], headers["x-vault-request"]) == (TOKEN, "true")
    assert "x-vault-namespace" not in headers


async def test_namespace_mount_and_token_of_a_file(vault: VaultServer, tmp_path: Path) -> None:
    """A namespace, a mount of several parts and a token file are used as declared; a token file that others can read is not."""
    vault.secrets["platform/eu/kv/team/a.b/c"] = {"token": VALUE}
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    file.chmod(0o600)
    wanted = ref(vault.address, "a.b/c", namespace="platform/eu", mount="kv/team", tokenFile=str(file))
    async with source(VAULT_TOKEN="another") as made:
        assert await made.fetch(wanted) == VALUE
    file.chmod(0o644)
    assert "open to others" in await fault(vault, wanted)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: setattr(v, "status", 503), "answered 503: it is sealed"),
        (lambda v: setattr(v, "status", 500), "answered 500"),
        (lambda v: setattr(v, "status", 307), "answered 307: this node does not serve it"),
        (lambda v: setattr(v, "status", 429), "answered 429: this node is a standby"),
        (lambda v: v.secrets.pop("secret/agents/github"), "answered 404: there is no such secret"),
        (
            lambda v: v.secrets.update({"secret/agents/github": None}),
            "answered 404: there is no such secret, or its last version",
        ),
        (lambda v: v.secrets.update({"secret/agents/github": {"other": VALUE}}), "no field 'token'"),
        (lambda v: v.secrets.update({"secret/agents/github": {"token": {"a": VALUE}}}), "is no text"),
        (lambda v: setattr(v, "raw", b"<html>" + VALUE.encode()), "no secret of a key-value store"),
        (lambda v: setattr(v, "raw", b'{"data": {"token": "of-version-1"}}'), "no secret of a key-value store"),
        (lambda v: setattr(v, "raw", b"[" * 100_000), "no secret of a key-value store"),
        (lambda v: setattr(v, "raw", b'"' + b"x" * MAX_ANSWER + b'"'), f"more than {MAX_ANSWER} bytes"),
    ],
)
async def test_what_vault_may_answer(vault: VaultServer, change: Callable[[VaultServer], object], words: str) -> None:
    """Each odd answer is told for what it is, and nothing of its body is."""
    change(vault)
    assert words in await fault(vault, ref(vault.address))
    assert len(vault.asked) == 1


async def test_a_wrong_token(vault: VaultServer) -> None:
    """A token that Vault refuses, none at all, and one that would make another header of itself."""
    assert "answered 403" in await fault(vault, ref(vault.address), VAULT_TOKEN="wrong")
    assert "VAULT_TOKEN" in await fault(vault, ref(vault.address), VAULT_TOKEN="")
    assert "is none" in await fault(vault, ref(vault.address), VAULT_TOKEN="a\r\nX-Other: b")
    assert len(vault.asked) == 1


async def test_plain_http_leaves_this_machine_never(vault: VaultServer) -> None:
    """The token is not sent in the clear to another machine, whatever was declared."""
    for address in ("http://192.0.2.1:8200", "http://vault.acme.example:8200", "ftp://127.0.0.1", "http://127.0.0.1.nip.io"):
        assert "plain http" in await fault(vault, ref(address))
    assert vault.asked == []


async def test_vault_is_down() -> None:
    """A closed port is told at once."""
    async with serving(VaultServer()) as server:
        address = server.address
    assert "cannot be asked: ConnectError" in await fault(server, ref(address))


async def test_a_vault_that_hangs_holds_nobody_up(vault: VaultServer) -> None:
    """The broker gives up a Vault that says nothing, and tells operators so."""
    vault.hang = True
    sources = all_sources({"VAULT_TOKEN": TOKEN})
    broker = Broker(sources, _Now(), _Now(), patience_s=0.2)
    assert await broker.check("acme", ref(vault.address)) == "vault did not answer within 0.2 s"
    await broker.close()


async def test_tls_is_verified(tmp_path: Path) -> None:
    """Only an authority that VAULT_CACERT names, or the host knows, may vouch for Vault, and for the name that was asked."""
    tls, authority = _certificates(tmp_path)
    async with serving(VaultServer({"secret/agents/github": {"token": VALUE}}), tls, "127.0.0.1") as server:
        assert "self-signed certificate" in await fault(server, ref(server.address))
        async with source(VAULT_CACERT=str(authority)) as made:
            assert await made.fetch(ref(server.address)) == VALUE
        other = ref(server.address.replace("127.0.0.1", "localhost"))
        assert "mismatch" in await fault(server, other, VAULT_CACERT=str(authority))
        assert "VAULT_CACERT" in await fault(server, ref(server.address), VAULT_CACERT=str(tmp_path / "none"))
    assert len(server.asked) == 1


class _Now:
    def now_ms(self) -> int:
        return 0

    def token(self, size: int) -> bytes:
        return bytes(size)


def _certificates(folder: Path) -> tuple[object, Path]:
    """A server's TLS context for 127.0.0.1, and the file of the authority that vouches for it: itself."""
    import ssl

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vault")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    both = folder / "both.pem"
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    both.write_bytes(private + pem)
    authority = folder / "authority.pem"
    authority.write_bytes(pem)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(both)
    return context, authority
