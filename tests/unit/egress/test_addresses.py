"""Which addresses may be connected to."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.egress.addresses import check, is_private, networks, refusal
from agentos.egress.asking import NetDenied

PUBLIC = ["8.8.8.8", "93.184.216.34", "1.1.1.1", "2606:4700:4700::1111", "2a00:1450:4001:82a::200e"]
SHUT = [
    "0.0.0.0",  # noqa: S104 - refused
    "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254", "168.63.129.16",
    "169.254.0.1", "169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.9", "192.0.0.192",
    "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255",
    "240.0.0.1", "255.255.255.255",
    "::", "::1", "::2", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:169.254.169.254",
    "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:2::1", "2001:10::1", "2001:db8::1", "2002:7f00:1::", "2002:808:808::1", "3fff::1", "4000::1", "5f00::1",
    "fc00::1", "fd00:ec2::254",
    "fe80::1", "febf::1", "fec0::1", "ff02::1", "fe80::1%eth0", "2606:4700::1%1",
]  # fmt: skip


@pytest.mark.parametrize("text", PUBLIC)
def test_the_public_internet_may_be_reached(text: str) -> None:
    """An address that is routed publicly is fine."""
    assert [str(one) for one in check([text], ())] == [text]


@pytest.mark.parametrize("text", SHUT)
def test_nothing_else_may(text: str) -> None:
    """This machine, its neighbours, metadata of clouds, and all that stands for another address."""
    with pytest.raises(NetDenied):
        check([text], ())


@pytest.mark.parametrize("text", SHUT)
def test_one_among_good_ones_refuses_all(text: str) -> None:
    """Wherever it stands among the answers."""
    for answers in ([*PUBLIC, text], [text, *PUBLIC]):
        with pytest.raises(NetDenied):
            check(answers, ())


@given(st.ip_addresses())
def test_whatever_may_be_reached_is_global(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """No address is let through that `ipaddress` calls private, reserved, or anything but global unicast."""
    if refusal(address) is None:
        assert address.is_global
        shut = (address.is_multicast, address.is_loopback, address.is_link_local, address.is_unspecified, address.is_reserved)
        assert not any(shut)


@given(st.ip_addresses(v=4))
def test_no_form_of_an_address_opens_what_it_alone_does_not(inner: ipaddress.IPv4Address) -> None:
    """Every way to write an IPv4 address into an IPv6 one is shut, whatever the address is."""
    number = int(inner)
    for outer in (0, 0xFFFF << 32, 0x64FF9B << 96, 0x2002 << 112 | number << 80, 0x20010000 << 96 | (number ^ 0xFFFFFFFF)):
        assert refusal(ipaddress.IPv6Address(outer | number if outer >> 112 != 0x2002 else outer)) is not None


def test_declared_ranges_open_exactly_themselves() -> None:
    """A private range opens its addresses, no other, and not what may be written into them."""
    private = networks(["10.1.0.0/16", "fd00::/8", "64:ff9b::/96"])
    check(["10.1.2.3"], private)
    check(["fd00::1"], private)
    check(["64:ff9b::808:808"], private)
    check(["64:ff9b::a01:203"], private)
    for shut in ("10.2.0.1", "127.0.0.1", "fc00::1", "64:ff9b::7f00:1", "::ffff:10.1.2.3"):
        with pytest.raises(NetDenied):
            check([shut], private)
    assert is_private(ipaddress.ip_address("10.1.0.0"), private)
    assert not is_private(ipaddress.ip_address("8.8.8.8"), private)


def test_mapped_addresses_stay_shut() -> None:
    """Even a range of all of them does not open an IPv4 address in another form."""
    with pytest.raises(NetDenied):
        check(["::ffff:127.0.0.1"], networks(["::/0"]))


@pytest.mark.parametrize("bad", ["10.0.0.0/33", "x", "", "10.0.0.0/8/8", "fe80::%eth0/64"])
def test_ranges_that_are_none(bad: str) -> None:
    """A declaration that cannot be read opens nothing."""
    with pytest.raises(NetDenied):
        networks([bad])


def test_answers_that_are_none() -> None:
    """No answer, or one that is no address, is refused; the same one twice is one."""
    for answers in ([], ["example.com"], ["127.0.0.1:80"], ["8.8.8.8", "8.8.8"]):
        with pytest.raises(NetDenied):
            check(answers, ())
    assert len(check(["8.8.8.8", "8.8.8.8"], ())) == 1
