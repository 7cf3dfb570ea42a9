"""The authority of one sandbox: what it signs, for how long, and what is never on disk."""

from __future__ import annotations

import datetime as dt
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from agentos.egress.adapters import authority as module
from agentos.egress.adapters.authority import Authority


class Clock:
    """A time that is set."""

    def __init__(self, now_ms: int) -> None:
        self.now = now_ms

    def now_ms(self) -> int:
        return self.now


NOW = int(dt.datetime.now(dt.UTC).timestamp() * 1000)
DAY = 86_400_000


def shaken(authority: Authority, host: str, *, asked: str | None = None, trusts: Authority | None = None) -> x509.Certificate:
    """The certificate that a client gets which wants `asked` and trusts `trusts`: without them the host, and the authority."""
    context = ssl.create_default_context(cadata=(trusts or authority).certificate.decode("ascii"))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = authority.context(host).wrap_bio(to_server, to_client, server_side=True)
    client = context.wrap_bio(to_client, to_server, server_hostname=asked or host)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    found = client.getpeercert(binary_form=True)
    assert found is not None
    return x509.load_der_x509_certificate(found)


@pytest.mark.parametrize(
    "host", ["api.test", "127.0.0.1", "::1", "xn--bcher-kva.example", f"{'long-' * 12}a.{'name-' * 12}b.test"]
)
def test_stands_in_for_a_host(host: str) -> None:
    """A strict client that trusts the authority accepts it for exactly this host."""
    leaf = shaken(Authority(Clock(NOW)), host)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == [host]
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc < dt.timedelta(days=2)


def test_another_host_is_refused() -> None:
    """The handshake ends when the client names another host."""
    with pytest.raises(ssl.SSLError):
        shaken(Authority(Clock(NOW)), "api.test", asked="other.test")


def test_authorities_do_not_vouch_for_each_other() -> None:
    """What one sandbox trusts is worth nothing in another."""
    one, other = Authority(Clock(NOW)), Authority(Clock(NOW))
    with pytest.raises(ssl.SSLCertVerificationError):
        shaken(one, "api.test", trusts=other)


def test_contexts_are_kept_and_renewed() -> None:
    """The same host gets the same one until its certificate is half through its life."""
    clock = Clock(NOW)
    authority = Authority(clock)
    first = authority.context("api.test")
    assert authority.context("api.test") is first
    clock.now += DAY * 3 // 4
    assert authority.context("api.test") is not first


def test_so_many_are_kept_and_no_more() -> None:
    """A client cannot fill the memory with names."""
    authority = Authority(Clock(NOW))
    first = authority.context("first.test")
    for number in range(module._LEAVES):
        authority.context(f"n{number}.test")
    assert authority.context("first.test") is not first


def test_the_certificate_is_an_authority_of_leaves_only() -> None:
    """It signs certificates of hosts, not of other authorities, and has no key in it."""
    pem = Authority(Clock(NOW)).certificate
    root = x509.load_pem_x509_certificate(pem)
    constraints = root.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    assert isinstance(root.public_key(), ec.EllipticCurvePublicKey)
    assert pem.count(b"-----BEGIN") == 1


def test_without_files_in_memory_the_key_is_encrypted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the system has none, what touches the disk is encrypted, and gone afterwards."""
    seen = []
    write = Path.write_bytes

    def noted(path: Path, data: bytes) -> int:
        seen.append((path, data))
        return write(path, data)

    monkeypatch.delattr("os.memfd_create")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(Path, "write_bytes", noted)
    shaken(Authority(Clock(NOW)), "api.test")
    assert len(seen) == 1
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in seen[0][1]
    assert b"BEGIN PRIVATE KEY" not in seen[0][1]
    assert list(tmp_path.iterdir()) == []
