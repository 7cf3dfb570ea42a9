"""What a request names, in exactly one way of writing it: hosts, ports, methods and paths.

Policy compares texts, and a server reads them by rules of its own. So whatever could be read in two ways is brought into the one
form in which it is asked about *and* sent, or it is refused. Nothing here looks a name up.

    host_of("EXAMPLE.com.")       "example.com"         one trailing dot, upper case
    host_of("bücher.example")     "xn--bcher-kva.example"
    host_of("0x7f.1")             "127.0.0.1"           whatever a C library would read as an address is one
    host_of("[::1]")              "::1"
    target_of("/a/./b//%7Ec?q=1") Target("/a/b/~c", "q=1")

Refused with NetDenied: whatever is no name by IDNA 2008 (full-width letters among it), user names, zone ids, percent signs and
control characters in a host; encoded slashes and backslashes, control characters, parts such as `..;` and percent signs that are
encoded twice in a path.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

import idna

from agentos.egress.asking import NetDenied

PORTS: Final = {"http": 80, "https": 443}
"""The ports that are meant where none is written."""

MAX_HOST: Final = 253
MAX_TARGET: Final = 16_384
"""Most characters of path and query together."""

_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]*|[0-9]+", re.ASCII)
_PORT: Final = re.compile(r"[0-9]{1,5}", re.ASCII)
_METHOD: Final = re.compile(r"[A-Z][A-Z0-9_-]{0,31}", re.ASCII)
_TARGET: Final = re.compile(r"[\x21-\x7e]*", re.ASCII)
_ESCAPE: Final = re.compile(r"%(..?)?", re.ASCII | re.DOTALL)
_HEX: Final = re.compile(r"[0-9A-Fa-f]{2}", re.ASCII)
_TWICE: Final = re.compile(r"%25(?:25)*(?:2[eEfF]|5[cC]|00)", re.ASCII)
_UPWARDS: Final = re.compile(r"\.\.?(?:;|%3B)", re.ASCII)
_LOWER: Final = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_NOT_ASKED: Final = frozenset({"CONNECT", "TRACE"})


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked of a host. `path` begins with a slash; `query` is as it was sent, None where there is no question mark."""

    path: str
    query: str | None = None

    def wire(self) -> str:
        """As it stands in the request line."""
        return self.path if self.query is None else f"{self.path}?{self.query}"


def host_of(text: str) -> str:
    """The host that `text` names: a name in lower case and ASCII, or an address as `ipaddress` writes it (no brackets).

    Raises NetDenied for whatever is neither.
    """
    if not text or len(text) > MAX_HOST + 2:
        raise _refused(text, "it is empty or too long")
    if text[0] == "[" or ":" in text:
        return _six(text)
    name = text.translate(_LOWER).removesuffix(".")
    if not name.isascii():
        # Strict: nothing is mapped, so that a full-width letter or dot is refused instead of becoming another host.
        try:
            name = idna.encode(name, strict=True).decode("ascii")
        except (idna.IDNAError, UnicodeError) as error:
            raise _refused(text, "it is no name by the rules of international names") from error
    if not name or len(name) > MAX_HOST:
        raise _refused(text, "it is empty or too long")
    labels = name.split(".")
    for label in labels:
        if _LABEL.fullmatch(label) is None:
            raise _refused(text, "it has characters that no name of a host has")
        if label.startswith("xn--"):
            _check_encoded(text, label)
    if _NUMBER.fullmatch(labels[-1]) is not None:
        return _four(text, labels)
    return name


def port_of(text: str) -> int:
    """The port that `text` names, 1 to 65535. Raises NetDenied."""
    if _PORT.fullmatch(text) is None or not 1 <= int(text) <= 65_535:
        raise NetDenied(f"{_shown(text)} is no port")
    return int(text)


def authority_of(text: str, default: int | None) -> tuple[str, int]:
    """Host and port of `host`, `host:port`, `[address]` or `[address]:port`; `default` where no port stands.

    Raises NetDenied, also when there is a user name, or no port and no default.
    """
    if "@" in text:
        raise NetDenied("an address with a user name in it is not used")
    host, colon, port = text, "", ""
    if text.startswith("["):
        bracket = text.find("]")
        if bracket < 0:
            raise _refused(text, "its bracket is not closed")
        host, rest = text[: bracket + 1], text[bracket + 1 :]
        if rest:
            colon, port = rest[0], rest[1:]
            if colon != ":":
                raise _refused(text, "something follows its bracket")
    elif ":" in text:
        host, colon, port = text.rpartition(":")
        if ":" in host:
            raise _refused(text, "an address of this form stands in brackets")
    if colon:
        return host_of(host), port_of(port)
    if default is None:
        raise _refused(text, "its port is missing")
    return host_of(host), default


def method_of(text: str) -> str:
    """`text` if it is a method that may be asked for. Raises NetDenied."""
    if _METHOD.fullmatch(text) is None or text in _NOT_ASKED:
        raise NetDenied(f"{_shown(text)} is no method that is passed on")
    return text


def target_of(text: str) -> Target:
    """Path and query of `text`, which begins with a slash, a question mark, or is empty. Raises NetDenied.

    The path: `.` and `..` parts resolved, empty parts dropped, percent-encoding of unreserved characters undone and in upper
    case elsewhere. A final slash stays, since servers tell the two apart.
    """
    if len(text) > MAX_TARGET:
        raise NetDenied("the address is too long")
    if _TARGET.fullmatch(text) is None:
        raise NetDenied("the address has characters that must be percent-encoded")
    if "#" in text:
        raise NetDenied("the address has a fragment, which is never sent")
    path, question, query = text.partition("?")
    if path and path[0] != "/":
        raise NetDenied("the path does not begin with a slash")
    return Target(_path(path), query if question else None)


def absolute_of(text: str) -> tuple[str, int, Target]:
    """Host, port and target of `http://…`. Raises NetDenied for any other form."""
    if not text[:7].translate(_LOWER) == "http://":
        raise NetDenied("a proxy takes addresses that begin with http://, and CONNECT for all else")
    rest = text[7:]
    end = next((at for at, one in enumerate(rest) if one in "/?#\\"), len(rest))
    host, port = authority_of(rest[:end], PORTS["http"])
    return host, port, target_of(rest[end:])


def written(host: str, port: int, scheme: str) -> str:
    """`host` and `port` as a Host header has them: no port that the scheme means anyway."""
    shown = f"[{host}]" if ":" in host else host
    return shown if PORTS.get(scheme) == port else f"{shown}:{port}"


def covers(pattern: str, host: str) -> bool:
    """Whether `pattern` (a host, or `*.` and a name: any host below it, never itself) means `host`, both normalised."""
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and len(host) >= len(pattern) and not _is_address(host)
    return pattern == host


def _six(text: str) -> str:
    bare = text
    if text[0] == "[":
        if text[-1] != "]":
            raise _refused(text, "its bracket is not closed")
        bare = text[1:-1]
    if "%" in bare:
        raise _refused(text, "an address with a zone is not used")
    try:
        return str(ipaddress.IPv6Address(bare))
    except ipaddress.AddressValueError as error:
        raise _refused(text, "it is no address") from error


def _four(text: str, labels: list[str]) -> str:
    """The address that `inet_aton` reads in `labels`: one to four numbers in any base, the last one filling what is left."""
    if len(labels) > 4:
        raise _refused(text, "it ends like an address, and is none")
    numbers = [_number(text, label) for label in labels]
    *front, last = numbers
    if any(number > 255 for number in front) or last >= 256 ** (5 - len(labels)):
        raise _refused(text, "it ends like an address, and is none")
    value = last + sum(number << 8 * (3 - place) for place, number in enumerate(front))
    return str(ipaddress.IPv4Address(value))


def _number(text: str, label: str) -> int:
    if _NUMBER.fullmatch(label) is None:
        raise _refused(text, "it ends like an address, and is none")
    try:
        if label[:2] in {"0x", "0X"}:
            return int(label[2:] or "0", 16)
        return int(label, 8) if len(label) > 1 and label[0] == "0" else int(label)
    except ValueError as error:  # an 8 or a 9 in an octal number
        raise _refused(text, "it ends like an address, and is none") from error


def _check_encoded(text: str, label: str) -> None:
    try:
        again = idna.encode(idna.decode(label, strict=True), strict=True).decode("ascii")
    except (idna.IDNAError, UnicodeError) as error:
        raise _refused(text, "it is no name by the rules of international names") from error
    if again != label:
        raise _refused(text, "it is no name by the rules of international names")


def _is_address(host: str) -> bool:
    return ":" in host or host.rpartition(".")[2].isdigit()


def _path(path: str) -> str:
    if "\\" in path:
        raise NetDenied("the path has a backslash in it")
    if _TWICE.search(path) is not None:
        raise NetDenied("the path has a character in it that is encoded twice")
    plain = _ESCAPE.sub(_unescaped, path)
    parts: list[str] = []
    for part in plain.split("/"):
        if part == "..":
            if parts:
                parts.pop()
        elif _UPWARDS.match(part) is not None:
            raise NetDenied("the path has a part in it that some servers read as a way up")
        elif part not in {"", "."}:
            parts.append(part)
    final = plain.rpartition("/")[2] in {"", ".", ".."} and bool(parts)
    return "/" + "/".join(parts) + ("/" if final else "")


def _unescaped(found: re.Match[str]) -> str:
    digits = found[1] or ""
    if _HEX.fullmatch(digits) is None:
        raise NetDenied("the path has a percent sign in it that encodes nothing")
    value = int(digits, 16)
    if value < 0x20 or value == 0x7F:
        raise NetDenied("the path has an encoded control character in it")
    one = chr(value)
    if one in "/\\":
        raise NetDenied("the path has an encoded slash or backslash in it")
    return one if one in _UNRESERVED else f"%{digits.upper()}"


def _shown(text: str) -> str:
    return repr(text[:80])


def _refused(text: str, why: str) -> NetDenied:
    return NetDenied(f"{_shown(text)} is not used as a host: {why}")
