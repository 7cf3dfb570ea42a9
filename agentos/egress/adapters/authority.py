"""The authority of one sandbox: signs certificates for the hosts that its proxy stands in for, and is trusted nowhere else.

Keys are EC P-256 and live in this process only. What the sandbox gets is the certificate (`certificate`, PEM). TLS contexts want
their key as a file: it is one in memory where the system has such, and else one that is encrypted with a word nobody is told.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import os
import secrets
import ssl
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agentos.abi.ids import Clock
from agentos.egress.asking import NetDenied
from agentos.egress.names import host_of

_BEFORE: Final = dt.timedelta(hours=1)  # clocks of sandboxes are those of the host, but programs round
_LIFE: Final = dt.timedelta(days=30)
_LEAF_LIFE: Final = dt.timedelta(days=1)
_LEAVES: Final = 256

_NO_USE: Final = {
    "content_commitment": False,
    "key_encipherment": False,
    "data_encipherment": False,
    "key_agreement": False,
    "encipher_only": False,
    "decipher_only": False,
}


class Authority:
    """An authority of its own, made anew each time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._leaf_key = ec.generate_private_key(ec.SECP256R1())
        self._word = None if _in_memory() else secrets.token_urlsafe(32)
        self._leaf_pem = self._leaf_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, _hidden(self._word)
        )
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "AgentOS egress")])
        self._root = self._made()
        self._contexts: OrderedDict[str, tuple[dt.datetime, ssl.SSLContext]] = OrderedDict()

    @property
    def certificate(self) -> bytes:
        """The certificate to trust (PEM)."""
        return self._root.public_bytes(serialization.Encoding.PEM)

    def context(self, host: str) -> ssl.SSLContext:
        """TLS of a server that is `host` (normalised). A client that names another one is refused in the handshake."""
        now = self._now()
        found = self._contexts.get(host)
        if found is not None and now < found[0]:
            self._contexts.move_to_end(host)
            return found[1]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        context.sni_callback = _only(host)
        self._equip(context, self._leaf(host))
        self._contexts[host] = (now + _LEAF_LIFE / 2, context)
        while len(self._contexts) > _LEAVES:
            self._contexts.popitem(last=False)
        return context

    def _now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self._clock.now_ms() / 1000, dt.UTC)

    def _made(self) -> x509.Certificate:
        public = self._key.public_key()
        return (
            self._begun(self._name, public, _LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.KeyUsage(digital_signature=False, key_cert_sign=True, crl_sign=True, **_NO_USE), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def _leaf(self, host: str) -> x509.Certificate:
        public = self._leaf_key.public_key()
        # A name may be longer than the common name may be: what counts is the alternative name.
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "AgentOS egress, in place of its host")])
        return (
            self._begun(subject, public, _LEAF_LIFE)
            .add_extension(x509.SubjectAlternativeName([_alternative(host)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(digital_signature=True, key_cert_sign=False, crl_sign=False, **_NO_USE), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def _begun(self, subject: x509.Name, public: ec.EllipticCurvePublicKey, life: dt.timedelta) -> x509.CertificateBuilder:
        now = self._now()
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BEFORE)
            .not_valid_after(now + life)
        )

    def _equip(self, context: ssl.SSLContext, leaf: x509.Certificate) -> None:
        with _as_file(leaf.public_bytes(serialization.Encoding.PEM) + self._leaf_pem) as path:
            context.load_cert_chain(path, password=self._word)


def _in_memory() -> bool:
    """Whether the system has files in memory."""
    return hasattr(os, "memfd_create")


def _hidden(word: str | None) -> serialization.KeySerializationEncryption:
    """How the key is written: by `word`, which takes ten milliseconds each time it is read, or plainly where no disk sees it."""
    return serialization.NoEncryption() if word is None else serialization.BestAvailableEncryption(word.encode("ascii"))


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _only(host: str) -> Callable[[ssl.SSLObject, str | None, ssl.SSLContext], int | None]:
    """Refuses a handshake in which the client names another host; one that names none is not asked for it."""

    def check(_tls: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> int | None:
        if name is None:
            return None
        try:
            named = host_of(name)
        except NetDenied:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        return None if named == host else ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME

    return check


@contextlib.contextmanager
def _as_file(data: bytes) -> Iterator[str]:
    """A path at which `data` can be read while the block lasts, in memory where the system can."""
    if _in_memory():
        with os.fdopen(os.memfd_create("leaf", os.MFD_CLOEXEC), "wb") as file:
            file.write(data)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
        return
    with tempfile.TemporaryDirectory() as folder:  # of mode 0700
        path = Path(folder, "leaf.pem")
        path.write_bytes(data)
        yield str(path)
