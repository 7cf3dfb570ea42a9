"""A remote OPA server decides only with exactly the modules and data of the revision in force, over a trusted wire."""

from __future__ import annotations

import datetime as dt
import functools
import http.server
import ipaddress
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from opa_server import TOKEN, OperatorsServer

from agentos.abi.errors import EngineUnavailable, IdentityError, PolicyError
from agentos.policy.adapters.opa_bundle import Bundle
from agentos.policy.adapters.remote import RemoteFactory, RemoteSettings, to_folder
from agentos.policy.bundle import axioms
from agentos.policy.decide import Decider
from agentos.policy.port import Module

ECHO = Module("echo.rego", "package agentos.syscall\n\ndecision := [input.x, data.facts.n]\n")
PATIENT = 30.0


async def test_the_shipped_policies_decide_there(
    operators_server: OperatorsServer, facts: dict[str, Any], call: dict[str, Any]
) -> None:
    """A call is allowed, and denied once the server is gone."""
    decider = await Decider.load(operators_server.factory(), axioms(), facts, decision_seconds=PATIENT, cache_size=0)
    assert (await decider.decide_syscall(call)).rules == ("grants.allowed",)
    operators_server.stop()
    decision = await decider.decide_syscall(call)
    assert decision.rules == ("kernel.no-decision",)
    assert "does not answer" in decision.reasons[0]
    decider.close()


async def test_an_answer_of_another_revision_is_no_answer(operators_server: OperatorsServer) -> None:
    """As soon as the server holds other modules or other data, the older engine denies and the newer decides."""
    factory = operators_server.factory()
    old = await factory.load([ECHO], {"facts": {"n": 1}})
    assert await old.evaluate("agentos.syscall.decision", {"x": 1}, within=PATIENT) == [1, 1]
    new = await factory.load([ECHO], {"facts": {"n": 2}})
    with pytest.raises(EngineUnavailable, match="does not have this revision: it has operator, sha256:"):
        await old.evaluate("agentos.syscall.decision", {"x": 1}, within=PATIENT)
    assert await new.evaluate("agentos.syscall.decision", {"x": 1}, within=PATIENT) == [1, 2]
    old.close()
    new.close()


async def test_a_server_that_never_gets_the_revision_is_not_used(operators_server: OperatorsServer) -> None:
    """A load waits for the revision and gives up with what the server has instead."""
    serving = await operators_server.factory().load([ECHO], {"facts": {"n": 1}})
    settings = RemoteSettings(operators_server.url, token_file=operators_server.token_file, load_seconds=0.2)
    with pytest.raises(EngineUnavailable, match="does not have this revision") as caught:
        await RemoteFactory(settings).load([ECHO], {"facts": {"n": 2}})
    assert caught.value.where == operators_server.url
    (await RemoteFactory(settings).load([ECHO], {"facts": {"n": 1}})).close()
    serving.close()


async def test_a_running_server_takes_a_published_revision_by_itself(operators_server: OperatorsServer, tmp_path: Path) -> None:
    """An OPA that polls the published bundle goes from revision to revision without a restart."""
    folder = tmp_path / "bundles"
    folder.mkdir()
    with served(folder) as url:
        polling = {"min_delay_seconds": 1, "max_delay_seconds": 1}
        bundles = {"default": {"service": "publisher", "resource": "default.tar.gz", "polling": polling}}
        config = {"services": {"publisher": {"url": url}}, "bundles": bundles}
        (operators_server.folder / "config.json").write_text(json.dumps(config))
        operators_server.run("--config-file", "config.json")
        await operators_server.listening()
        factory = RemoteFactory(RemoteSettings(operators_server.url), publish=to_folder(folder))
        for number in (1, 2):
            engine = await factory.load([ECHO], {"facts": {"n": number}})
            assert await engine.evaluate("agentos.syscall.decision", {"x": 0}, within=PATIENT) == [0, number]
            engine.close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        return


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A web server over a folder of bundles; its url."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def test_a_token_that_is_not_known_or_can_be_read_by_others_is_refused(operators_server: OperatorsServer) -> None:
    """The error says which it was."""
    (await operators_server.factory().load([ECHO], {})).close()
    operators_server.token_file.write_text("guess")
    settings = RemoteSettings(operators_server.url, token_file=operators_server.token_file, load_seconds=0.1)
    with pytest.raises(EngineUnavailable, match="refuses our token"):
        await RemoteFactory(settings).load([ECHO], {})
    operators_server.token_file.chmod(0o644)
    with pytest.raises(IdentityError, match="can be read by others"):
        await RemoteFactory(settings).load([ECHO], {})
    assert TOKEN not in str(settings)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://opa.example:8181", "needs TLS"),
        ("opa.example:8181", "not the url"),
        ("https://", "not the url"),
        ("https://opa.example/v1", "not the url"),
        ("https://opa.example:99999", "not the url"),
    ],
)
def test_a_url_that_would_leak_decisions_is_refused(url: str, said: str) -> None:
    """Decisions travel in the clear on the loopback only."""
    with pytest.raises(EngineUnavailable, match=said):
        RemoteFactory(RemoteSettings(url))


async def test_rego_that_cannot_be_read_is_named_by_line(operators_server: OperatorsServer) -> None:
    """It is refused before anything is published."""
    with pytest.raises(PolicyError) as caught:
        await operators_server.factory().load([Module("bad.rego", "package a\n\nx := ")], {})
    assert caught.value.where == "bad.rego:3"
    assert not (operators_server.folder / "default.tar.gz").exists()


async def test_mutual_tls(tmp_path: Path) -> None:
    """A server of our authority decides for us; one that we cannot check, or that cannot check us, does not."""
    pki = Pki(tmp_path)
    server = OperatorsServer(
        tmp_path / "operator",
        scheme="https",
        arguments=[
            "--tls-cert-file",
            str(pki.server[0]),
            "--tls-private-key-file",
            str(pki.server[1]),
            "--tls-ca-cert-file",
            str(pki.ca),
        ],
    )

    async def publish(tenant: str, bundle: Bundle) -> None:
        (server.folder / f"{tenant}.tar.gz").write_bytes(bundle.content)
        server.stop()
        server.run("--authentication", "tls", "--bundle", f"{tenant}.tar.gz")
        await server.listening()

    try:
        good = RemoteSettings(server.url, certificate=pki.client[0], key=pki.client[1], authority=pki.ca)
        engine = await RemoteFactory(good, publish=publish).load([ECHO], {"facts": {"n": 1}})
        assert await engine.evaluate("agentos.syscall.decision", {"x": 1}, within=PATIENT) == [1, 1]
        engine.close()
        for settings in (
            RemoteSettings(server.url, authority=pki.ca, load_seconds=0.1),
            RemoteSettings(server.url, certificate=pki.client[0], key=pki.client[1], load_seconds=0.1),
        ):
            with pytest.raises(EngineUnavailable, match="does not answer"):
                await RemoteFactory(settings).load([ECHO], {"facts": {"n": 1}})
        with pytest.raises(EngineUnavailable, match="certificates"):
            await RemoteFactory(RemoteSettings(server.url, authority=tmp_path / "none.pem")).load([ECHO], {})
    finally:
        server.stop()


class Pki:
    """An authority, and a certificate that it gave to a server on localhost and one to a client."""

    def __init__(self, folder: Path) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        self._folder = folder
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(self._certificate(self._name, self._key, authority=True))
        self.server = self._issue("server")
        self.client = self._issue("client")

    def _issue(self, name: str) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate, secret = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        certificate.write_bytes(self._certificate(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key))
        secret.touch(mode=0o600)
        secret.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        return certificate, secret

    def _certificate(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, authority: bool = False) -> bytes:
        now = dt.datetime.now(dt.UTC)
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        usage = x509.KeyUsage(
            digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=authority, crl_sign=authority, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        built = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return built.public_bytes(serialization.Encoding.PEM)
