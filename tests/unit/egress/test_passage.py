"""What a request is dressed with before it leaves. (Whole requests: `tests/integration/egress`.)"""

from __future__ import annotations

import ipaddress

import pytest

from agentos.egress.adapters.passage import Passage
from agentos.egress.asking import NetDenied, NetRequest, Scheme
from agentos.egress.headers import Wanted
from agentos.egress.names import Target
from agentos.egress.outbound import HeaderCredential, Unasked

CANARY = "canary-0b2c"
PUBLIC, INSIDE = ipaddress.ip_address("8.8.8.8"), ipaddress.ip_address("10.0.0.1")


def wanted(scheme: Scheme, host: str = "api.test") -> Wanted:
    return Wanted(NetRequest(scheme, host, 80, "GET", "/"), Target("/"), [(b"Authorization", b"mine"), (b"Host", b"other")])


def passage() -> Passage:
    credential = HeaderCredential("Authorization", lambda: CANARY, ("api.test",))
    return Passage(Unasked, private=("10.0.0.0/8",), credentials=(credential,))


def test_no_credential_over_plain_http_into_the_internet() -> None:
    """It is refused, not left out: nobody is to find out by a request that fails for want of it."""
    with pytest.raises(NetDenied) as caught:
        passage()._dressed(wanted(Scheme.HTTP), PUBLIC)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(("scheme", "address"), [(Scheme.HTTPS, PUBLIC), (Scheme.HTTPS, INSIDE), (Scheme.HTTP, INSIDE)])
def test_a_credential_goes_over_tls_or_inside(scheme: Scheme, address: ipaddress.IPv4Address) -> None:
    """Over https anywhere, over http only into a declared range; the host header is always that of the request."""
    headers = passage()._dressed(wanted(scheme), address)
    assert [value for name, value in headers if name.lower() == b"authorization"] == [CANARY.encode()]
    assert [value for name, value in headers if name.lower() == b"host"] in ([b"api.test"], [b"api.test:80"])


def test_other_hosts_are_left_as_they_are() -> None:
    """Plain http without a credential is nobody's concern here."""
    headers = passage()._dressed(wanted(Scheme.HTTP, "other.test"), PUBLIC)
    assert (b"Authorization", b"mine") in headers
