"""Which addresses may be connected to: those of the public internet, and private ranges that a declaration names.

A name is looked up once, *every* answer is judged, and the connection goes to one of exactly these answers; so a name server that
gives another answer a moment later gains nothing, and one bad answer among good ones refuses them all.

    check(["93.184.216.34"], ())           fine
    check(["169.254.169.254"], ())         NetDenied: link-local, where clouds keep their metadata
    check(["10.0.0.5"], networks(["10.0.0.0/16"]))   fine
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from agentos.egress.asking import NetDenied

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Range = ipaddress.IPv4Network | ipaddress.IPv6Network

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Looks a name up for a port: the addresses as text, in the order in which they are to be tried. Raises OSError."""

# What `ipaddress` calls global and nobody should reach, or calls by no name of its own. The tables of older Pythons differ.
_NAMED: Final[tuple[tuple[Range, str], ...]] = tuple(
    (ipaddress.ip_network(network), name)
    for network, name in (
        ("0.0.0.0/8", "of no network"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "of a carrier's network"),
        ("127.0.0.0/8", "this machine"),
        ("168.63.129.16/32", "where a cloud keeps its metadata"),
        ("169.254.0.0/16", "link-local, where clouds keep their metadata"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "for protocols"),
        ("192.0.2.0/24", "for documentation"),
        ("192.88.99.0/24", "a relay of 6to4"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "for benchmarks"),
        ("198.51.100.0/24", "for documentation"),
        ("203.0.113.0/24", "for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("::/128", "of no network"),
        ("::1/128", "this machine"),
        ("::ffff:0:0/96", "an IPv4 address in another form"),
        ("::/96", "an IPv4 address in another form"),
        ("64:ff9b::/96", "an IPv4 address behind NAT64"),
        ("64:ff9b:1::/48", "an IPv4 address behind NAT64"),
        ("100::/64", "where packets are dropped"),
        ("2001::/32", "an IPv4 address behind Teredo"),
        ("2001::/23", "for protocols"),
        ("2001:db8::/32", "for documentation"),
        ("2002::/16", "an IPv4 address behind 6to4"),
        ("3fff::/20", "for documentation"),
        ("5f00::/16", "for segment routing"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
    )
)
_GLOBAL_SIX: Final = ipaddress.ip_network("2000::/3")
_MAPPED: Final = ipaddress.ip_network("::ffff:0:0/96")


def networks(ranges: Iterable[str]) -> tuple[Range, ...]:
    """The CIDR ranges of a declaration. Raises NetDenied for one that is none."""
    found: list[Range] = []
    for one in ranges:
        try:
            # A zone would be ignored; without it there is no such range.
            found.append(ipaddress.ip_network(one.replace("%", "/%"), strict=False))
        except ValueError as error:
            raise NetDenied(f"{one[:80]!r} is no range of addresses", mend="write it as CIDR, such as 10.1.0.0/16") from error
    return tuple(found)


def refusal(address: Address, private: Sequence[Range] = ()) -> str | None:
    """Why `address` may not be connected to, in a few words; None if it may."""
    if isinstance(address, ipaddress.IPv6Address) and (address in _MAPPED or address.scope_id is not None):
        return "an IPv4 address in another form" if address in _MAPPED else "link-local"
    inner = _embedded(address)
    if is_private(address, private):
        # A range of such addresses stands for all that may be written in them: what is inside must be fine too.
        return None if inner is None else refusal(inner, private)
    for network, name in _NAMED:
        if address.version == network.version and address in network:
            return name
    if isinstance(address, ipaddress.IPv6Address) and address not in _GLOBAL_SIX:
        return "of no public network"
    return None if address.is_global else "of no public network"


def is_private(address: Address, private: Sequence[Range]) -> bool:
    """Whether `address` is in one of the declared `private` ranges."""
    return any(address.version == network.version and address in network for network in private)


def check(answers: Sequence[str], private: Sequence[Range], host: str = "") -> tuple[Address, ...]:
    """The addresses of `answers`, each of them once, if *all* of them may be connected to. Raises NetDenied otherwise."""
    checked: list[Address] = []
    for answer in answers:
        try:
            address = ipaddress.ip_address(answer)
        except ValueError as error:
            raise NetDenied(f"{host or 'a name'} leads to {answer[:80]!r}, which is no address") from error
        why = refusal(address, private)
        if why is not None:
            whom = str(address) if host in {"", str(address)} else f"{host} leads to {address}, which"
            raise NetDenied(
                f"{whom} is not of the public internet: {why}",
                mend="name its network under `private`, if it is meant to be reached",
            )
        if address not in checked:
            checked.append(address)
    if not checked:
        raise NetDenied(f"{host or 'a name'} leads to no address")
    return tuple(checked)


def _embedded(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that `address` leads to by way of a translator or a tunnel."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    packed = address.packed
    if packed[:12] == bytes.fromhex("0064ff9b0000000000000000"):
        return ipaddress.IPv4Address(packed[12:])
    return None
