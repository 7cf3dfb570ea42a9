"""Signatures of deliveries: what counts, and what does not."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.control.webhook import WINDOW_S, Delivery, OddSecret, genuine, secrets_of

NOW = 1_614_265_330
RAW = b"\x01" * 24
SECRETS = secrets_of("whsec_" + base64.b64encode(RAW).decode(), "standard")


def signature(name: str, at: int, body: bytes, secret: bytes = RAW) -> str:
    made = hmac.new(secret, f"{name}.{at}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(made).decode()


def standard(name: str = "msg_1", at: int = NOW, body: bytes = b"{}", sign: str | None = None) -> Delivery:
    headers = {"webhook-id": name, "webhook-timestamp": str(at), "webhook-signature": sign or signature(name, at, body)}
    return Delivery("default", "orders", headers, body)


def test_the_published_example() -> None:
    """The example of the Standard Webhooks libraries is genuine here too."""
    delivery = Delivery(
        "default",
        "x",
        {
            "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "webhook-timestamp": "1614265330",
            "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        },
        b'{"test": 2432232314}',
    )
    secrets = secrets_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "standard")
    assert genuine("standard", secrets, delivery, NOW) == "msg_p5jXN8AQM9LWM0D4loKWxJek"


def test_github_example() -> None:
    """The example of GitHub's documentation is genuine; the id is the digest of the body, whatever the delivery calls itself."""
    body, secret = b"Hello, World!", secrets_of("It's-a-Secret-to-Everybody", "github")
    sign = "sha256=" + hmac.new(secret[0], body, hashlib.sha256).hexdigest()
    delivery = Delivery("default", "x", {"x-hub-signature-256": sign, "x-github-delivery": "1"}, body)
    name = genuine("github", secret, delivery, NOW)
    assert name == f"sha256-{hashlib.sha256(body).hexdigest()}"
    again = replace(delivery, headers={**delivery.headers, "x-github-delivery": "2"})
    assert genuine("github", secret, again, NOW) == name
    assert genuine("github", secret, replace(delivery, body=b"Hello"), NOW) is None
    assert genuine("github", secret, replace(delivery, headers={}), NOW) is None
    # The other scheme is no way around.
    assert genuine("standard", secret, delivery, NOW) is None


@pytest.mark.parametrize(
    "odd",
    [
        replace(standard(), body=b"{ }"),
        standard(at=NOW - WINDOW_S - 1),
        standard(at=NOW + WINDOW_S + 1),
        standard(sign=signature("msg_2", NOW, b"{}")),
        standard(sign=signature("msg_1", NOW - 1, b"{}")),
        standard(sign=signature("msg_1", NOW, b"{}", b"\x02" * 24)),
        standard(sign="v1,"),
        standard(sign=signature("msg_1", NOW, b"{}").replace("v1,", "v2,")),
        standard(sign=" ".join(["v1,x"] * 10 + [signature("msg_1", NOW, b"{}")])),
        standard(sign="v1,\u00e9"),
        standard(name=""),
        standard(name="a b"),
        replace(standard(), headers={}),
    ],
)
def test_not_genuine(odd: Delivery) -> None:
    """Another body, id, time or secret, a stale delivery, no signature or one too many: each is refused."""
    assert genuine("standard", SECRETS, odd, NOW) is None


@given(
    st.dictionaries(st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature", "x-hub-signature-256"]), st.text())
)
def test_any_headers(headers: dict[str, str]) -> None:
    """Whatever stands in the headers is an answer, never an exception, and never a yes."""
    for scheme in ("standard", "github"):
        assert genuine(scheme, SECRETS, Delivery("default", "x", headers, b"{}"), NOW) is None


def test_a_secret_is_changed() -> None:
    """While a secret is being changed both count."""
    both = secrets_of(f"whsec_{base64.b64encode(b'2' * 24).decode()} whsec_{base64.b64encode(RAW).decode()}", "standard")
    assert genuine("standard", both, standard(), NOW) == "msg_1"


@pytest.mark.parametrize(
    ("text", "scheme"),
    [("", "github"), ("tiny", "github"), ("whsec_MTIz", "standard"), ("whsec_%%", "standard"), ("x" * 40, "standard")],
)
def test_odd_secrets(text: str, scheme: str) -> None:
    """A secret that is missing, short or in the wrong form is refused, and does not stand in the words about it."""
    with pytest.raises(OddSecret) as caught:
        secrets_of(text, scheme)
    assert not text or text not in str(caught.value)
