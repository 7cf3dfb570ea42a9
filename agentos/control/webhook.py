"""Whether a delivery at a webhook is genuine: pure checks of signatures, and how often deliveries may come.

Two schemes. `standard` is Standard Webhooks (https://www.standardwebhooks.com): the signature covers id, time and body, so a
delivery is fresh for `WINDOW_S`, and its id is the sender's word. `github` is that of GitHub's webhooks
(https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries): it covers the body alone. Whoever has seen one
such delivery could send it again under another id, so there the digest of the body is the id: the same body counts once.

A secret is never compared in a way whose time tells of it, and nothing in here says which part of a check failed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from agentos.control.rate import Allowance

MAX_BODY: Final = 1024 * 1024
"""Most bytes of a delivery's body."""

WINDOW_S: Final = 300
"""Seconds that the clocks of sender and runtime may differ, the way included."""

OFTEN: Final = Allowance(per_second=10, burst=60)
"""Deliveries that may come at one path."""

SCHEMES: Final = ("standard", "github")

_STANDARD_PREFIX: Final = "whsec_"
_LEAST_SECRET: Final = 16
"""Bytes of a secret at least: a shorter one could be found by trying."""

_MOST_SIGNATURES: Final = 10
_ID: Final = re.compile(r"[!-~]{1,256}", re.ASCII)
_TIME: Final = re.compile(r"[0-9]{1,12}", re.ASCII)
_GITHUB: Final = re.compile(r"sha256=([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a client sent to `/hooks/<tenant>/<path>`. Names of `headers` are in lower case."""

    tenant: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class OddSecret(ValueError):
    """A secret that cannot be used; its words say why, and nothing of the secret."""


def secrets_of(text: str, scheme: str) -> tuple[bytes, ...]:
    """The secrets in an environment variable: one, or several with blanks between while they are changed. Raises OddSecret."""
    found = tuple(_standard_secret(word) if scheme == "standard" else word.encode("utf-8") for word in text.split())
    if not found:
        raise OddSecret("it is empty")
    if any(len(secret) < _LEAST_SECRET for secret in found):
        raise OddSecret(f"it is shorter than {_LEAST_SECRET} bytes")
    return found


def genuine(scheme: str, secrets: Sequence[bytes], delivery: Delivery, now_s: int) -> str | None:
    """The id of a delivery that is signed by one of `secrets`, and fresh where that can be told; None for any other."""
    return _standard(secrets, delivery, now_s) if scheme == "standard" else _github(secrets, delivery)


def _standard(secrets: Sequence[bytes], delivery: Delivery, now_s: int) -> str | None:
    name, at = delivery.headers.get("webhook-id", ""), delivery.headers.get("webhook-timestamp", "")
    signed = f"{name}.{at}.".encode("utf-8", "replace") + delivery.body
    given = [
        word.removeprefix("v1,")
        for word in delivery.headers.get("webhook-signature", "").split()[:_MOST_SIGNATURES]
        if word.startswith("v1,")
    ]
    right = False
    for secret in secrets:
        wanted = base64.b64encode(hmac.digest(secret, signed, hashlib.sha256))
        for one in given:
            right |= hmac.compare_digest(wanted, one.encode("utf-8", "replace"))
    shaped = _ID.fullmatch(name) is not None and _TIME.fullmatch(at) is not None
    return name if right and shaped and abs(now_s - int(at)) <= WINDOW_S else None


def _github(secrets: Sequence[bytes], delivery: Delivery) -> str | None:
    found = _GITHUB.fullmatch(delivery.headers.get("x-hub-signature-256", ""))
    given = found[1] if found is not None else ""
    right = False
    for secret in secrets:
        right |= hmac.compare_digest(hmac.digest(secret, delivery.body, hashlib.sha256).hex(), given)
    return f"sha256-{hashlib.sha256(delivery.body).hexdigest()}" if right else None


def _standard_secret(word: str) -> bytes:
    if not word.startswith(_STANDARD_PREFIX):
        raise OddSecret(f"a secret of Standard Webhooks begins with {_STANDARD_PREFIX}")
    try:
        return base64.b64decode(word.removeprefix(_STANDARD_PREFIX), validate=True)
    except binascii.Error as error:
        raise OddSecret(f"what follows {_STANDARD_PREFIX} is no base64") from error
