"""A remote OPA server decides only with exactly the modules and data of the revision in force, over a trusted wire."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from opa_server import TOKEN, OperatorsServer
from pki import Pki

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
    assert decision.rules == ("policy.failed",)
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


async def test_a_server_that_does_not_get_the_revision_denies_until_it_has_it(operators_server: OperatorsServer) -> None:
    """A load waits for the revision, and no longer than it may; then the engine denies, and decides once the server has it."""
    factory = operators_server.factory()
    serving = await factory.load([ECHO], {"facts": {"n": 1}})
    assert factory.troubles() == []
    settings = RemoteSettings(operators_server.url, token_file=operators_server.token_file, load_seconds=0.2)
    patient = RemoteFactory(settings)
    engine = await patient.load([ECHO], {"facts": {"n": 2}})
    with pytest.raises(EngineUnavailable, match="does not have this revision"):
        await engine.evaluate("agentos.syscall.decision", {"x": 1}, within=PATIENT)
    assert "does not have this revision" in patient.troubles()[0]
    newer = await factory.load([ECHO], {"facts": {"n": 2}})
    assert await engine.evaluate("agentos.syscall.decision", {"x": 1}, within=PATIENT) == [1, 2]
    assert patient.troubles() == []
    assert patient.version == f"opa 1.20.2 (remote, {operators_server.url})"
    for one in (serving, engine, newer):
        one.close()


async def test_an_engine_stands_while_its_server_is_away(operators_server: OperatorsServer) -> None:
    """It denies, and decides as soon as the server is there."""
    settings = RemoteSettings(operators_server.url, token_file=operators_server.token_file, reach_seconds=0.1)
    factory = RemoteFactory(settings)
    engine = await factory.load([ECHO], {"facts": {"n": 1}})
    with pytest.raises(EngineUnavailable, match="does not answer"):
        await engine.evaluate("agentos.syscall.decision", {"x": 1}, within=PATIENT)
    assert factory.version == f"opa of unknown version (remote, {operators_server.url})"
    serving = await operators_server.factory().load([ECHO], {"facts": {"n": 1}})
    assert await engine.evaluate("agentos.syscall.decision", {"x": 1}, within=PATIENT) == [1, 1]
    engine.close()
    serving.close()


async def test_to_check_publishes_nothing(operators_server: OperatorsServer) -> None:
    """Rego that would not load there is named by line, and what the server has stays in force, whatever was checked."""
    factory = operators_server.factory()
    engine = await factory.load([ECHO], {"facts": {"n": 1}})
    (await factory.checking.load([ECHO], {"facts": {"n": 2}})).close()
    for source, where in (("package a\n\nx := ", "bad.rego:3"), ("package a\nx := nosuch(1)", "bad.rego:2")):
        with pytest.raises(PolicyError) as caught:
            await factory.checking.load([ECHO, Module("bad.rego", source)], {})
        assert caught.value.where == where
    assert await engine.evaluate("agentos.syscall.decision", {"x": 1}, within=PATIENT) == [1, 1]
    engine.close()


async def test_rego_that_is_too_new_for_the_server_is_named_by_line(tmp_path: Path) -> None:
    """The version is the one that the server's answers tell; such Rego is refused by a check and by a load."""
    new = Module("new.rego", 'package a\n\nx := strings.split_n("a.b", ".", 1)\n')
    published: list[str] = []

    async def publish(tenant: str, bundle: Bundle) -> None:
        published.append(tenant)

    with answering({"result": 1, "provenance": {"version": "1.6.0", "bundles": {"theirs": {"revision": "r"}}}}) as url:
        factory = RemoteFactory(RemoteSettings(url, load_seconds=0.1), publish=publish)
        for way in (factory.checking.load, factory.load):
            with pytest.raises(PolicyError, match=r"is OPA 1\.6\.0, and strings\.split_n came with 1\.19\.0") as caught:
                await way([ECHO, new], {})
            assert caught.value.where == "new.rego:3"
        assert published == []
        (await factory.checking.load([ECHO], {})).close()


async def test_a_token_that_was_renewed_is_read_again(operators_server: OperatorsServer) -> None:
    """A refused token is read anew from its file, and the question asked again; nothing has to be restarted."""
    serving = await operators_server.factory().load([ECHO], {"facts": {"n": 1}})
    operators_server.token_file.write_text("outdated")
    settings = RemoteSettings(operators_server.url, token_file=operators_server.token_file, load_seconds=0.1)
    engine = await RemoteFactory(settings).load([ECHO], {"facts": {"n": 1}})
    with pytest.raises(EngineUnavailable, match="refuses our token"):
        await engine.evaluate("agentos.syscall.decision", {"x": 1}, within=PATIENT)
    operators_server.token_file.write_text(TOKEN)
    assert await engine.evaluate("agentos.syscall.decision", {"x": 1}, within=PATIENT) == [1, 1]
    operators_server.token_file.chmod(0o644)
    assert await engine.evaluate("agentos.syscall.decision", {"x": 1}, within=PATIENT) == [1, 1]
    engine.close()
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


@contextmanager
def answering(answer: dict[str, Any]) -> Iterator[str]:
    """A server that gives one answer to every question; its url."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def test_a_token_that_can_be_read_by_others_is_refused(operators_server: OperatorsServer) -> None:
    """And it stands in nothing that is shown."""
    settings = RemoteSettings(operators_server.url, token_file=operators_server.token_file)
    factory = RemoteFactory(settings)
    factory.usable()
    assert TOKEN not in str(settings) + repr(factory.address("default"))
    operators_server.token_file.chmod(0o644)
    with pytest.raises(IdentityError, match="can be read by others"):
        await factory.load([ECHO], {})


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://opa.example:8181", "needs TLS"),
        ("opa.example:8181", "not the url"),
        ("https://", "not the url"),
        ("https://opa.example/v1", "not the url"),
        ("https://opa.example:99999", "not the url"),
        ("https://opa.example?x", "not the url"),
        ("https://al:secret@opa.example", "no name or password"),
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
            RemoteSettings(server.url, authority=pki.ca, reach_seconds=0.1),
            RemoteSettings(server.url, certificate=pki.client[0], key=pki.client[1], reach_seconds=0.1),
        ):
            stranger = await RemoteFactory(settings).load([ECHO], {"facts": {"n": 1}})
            with pytest.raises(EngineUnavailable, match="does not answer"):
                await stranger.evaluate("agentos.syscall.decision", {"x": 1}, within=PATIENT)
            stranger.close()
        with pytest.raises(EngineUnavailable, match="certificates"):
            await RemoteFactory(RemoteSettings(server.url, authority=tmp_path / "none.pem")).load([ECHO], {})
    finally:
        server.stop()
