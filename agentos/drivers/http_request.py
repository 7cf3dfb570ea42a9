"""What a call of an HTTP tool sends: the shape that a declaration gives it, and the arguments that fill the shape.

Scheme, host, port and the beginning of the path are declared and stay as they are, whatever the arguments hold. An argument is
one part of the path, values of one query parameter, the value of one header, or a piece of the body; nothing else of the request
is its to choose. What would be read in two ways on its way (a slash in a part of the path, a line end in a header, `..` in any
disguise) is refused, and not encoded in the hope that everybody behind decodes it once.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from urllib.parse import quote, unquote

from agentos import __version__
from agentos.abi.canonical import Json, NotCanonical, canonical
from agentos.abi.errors import DriverError
from agentos.egress.names import PORTS, authority_of, written

MAX_URL: Final = 8192
"""Bytes of an address, which is what every server ought to take (RFC 9110, section 4.1, asks for 8000)."""

MAX_BODY: Final = 2 * 1024 * 1024
"""Bytes of a body."""

READING: Final = frozenset({"GET", "HEAD"})
"""Methods that change nothing (RFC 9110, section 9.2.1)."""

USER_AGENT: Final = f"agentos/{__version__}"
ACCEPT: Final = "application/json, text/*;q=0.9, */*;q=0.1"
JSON_TYPE: Final = "application/json"
FORM_TYPE: Final = "application/x-www-form-urlencoded"


class Style(StrEnum):
    """How the value of a parameter is written."""

    REPEAT = "repeat"
    """A list as one parameter an element."""
    COMMA = "comma"
    SPACE = "space"
    PIPE = "pipe"
    DEEP = "deep"
    """An object as `name[key]=value`."""
    JSON = "json"


_BETWEEN: Final[Mapping[Style, str]] = {Style.COMMA: ",", Style.SPACE: " ", Style.PIPE: "|"}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the query or a header: its name in the request, and the argument that it takes."""

    name: str
    argument: str
    style: Style = Style.REPEAT


@dataclass(frozen=True, slots=True)
class Body:
    """The body: one argument as a whole (`whole`), or fields with the argument of each."""

    whole: str | None = None
    fields: tuple[tuple[str, str], ...] = ()
    """(name in the body, argument), in the order of the declaration."""
    content_type: str = JSON_TYPE
    required: bool = False
    """Whether fields make a body even if none was given."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A request before it has arguments. `path` is what stands behind the base address, with `{argument}` where one goes."""

    method: str
    path: str
    query: tuple[Parameter, ...] = ()
    headers: tuple[Parameter, ...] = ()
    body: Body | None = None

    def arguments(self) -> Iterator[str]:
        """Every argument that the request takes, as often as it takes it."""
        yield from placeholders(self.path)
        yield from (one.argument for one in (*self.query, *self.headers))
        if self.body is not None:
            yield from ((self.body.whole,) if self.body.whole is not None else (argument for _, argument in self.body.fields))


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it goes out, without credentials: `url` is ASCII, header names are as declared, each at most once."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(default=b"", repr=False)


def plain_shape(http: Mapping[str, Json]) -> Shape:
    """The shape of `driver.http` without `openapi`."""
    body: Json = http.get("body")
    kind = content_type(http)
    return Shape(
        method=str(http.get("method", "GET")),
        path=str(http.get("path", "")),
        query=tuple(Parameter(name, argument) for name, argument in http.get("query", {}).items()),
        body=None
        if body is None
        else Body(whole=body, content_type=kind)
        if isinstance(body, str)
        else Body(fields=tuple((name, name) for name in body), content_type=kind, required=True),
    )


def content_type(http: Mapping[str, Json]) -> str:
    """The content type that the declared headers give the body; JSON where they say nothing."""
    return next((str(value) for name, value in http.get("headers", {}).items() if name.lower() == "content-type"), JSON_TYPE)


def build(http: Mapping[str, Json], shape: Shape, args: Mapping[str, Json], key: str) -> Request:
    """The request of a call with `args`, whose idempotency key is `key`. `http` is the declaration: base address and headers.

    Raises DriverError for arguments that do not fit into it; nothing has left then.
    """
    _known(shape, args)
    url = base_of(str(http["url"])) + _path(shape.path, args) + _query(shape.query, args)
    if len(url) > MAX_URL:
        raise DriverError(f"the address is {len(url)} bytes long, and at most {MAX_URL} are sent", mend="give shorter arguments")
    body = None if shape.body is None else _body(shape.body, args)
    return Request(shape.method, url, tuple(_headers(http, shape, args, key, with_body=body is not None)), body or b"")


def _known(shape: Shape, args: Mapping[str, Json]) -> None:
    taken = set(shape.arguments())
    for name in args:
        if name not in taken:
            raise DriverError(f"the request has no place for the argument {name!r}", mend=f"it takes: {', '.join(sorted(taken))}")


# --- the address


_PLACEHOLDER: Final = re.compile(r"\{([^{}/]+)\}")
_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_PATH_SAFE: Final = "!$&'()*+,;=:@-._~%"
_ROUNDS: Final = 4
"""How often a value may be percent-decoded before it has to stay as it is."""


def base_of(url: str) -> str:
    """A declared base address in the one way of writing it, without its last slash. Raises DriverError for what is none."""
    scheme, found, rest = url.partition("://")
    if not found or scheme not in PORTS or "?" in url or "#" in url:
        raise DriverError("an address begins with https:// or http://, and has neither query nor fragment", where="url")
    authority, slash, path = rest.partition("/")
    host, port = authority_of(authority, PORTS[scheme])
    path = (slash + path).rstrip("/")
    if not path.isascii():
        raise DriverError("the path of the address has characters that are percent-encoded in an address", where="url")
    reason = refused_path(path, allow_placeholders=False)
    if reason is not None:
        raise DriverError(f"the path of the address {reason}", where="url")
    return f"{scheme}://{written(host, port, scheme)}{_literal(path)}"


def placeholders(path: str) -> list[str]:
    """The arguments that a path names, in order."""
    return _PLACEHOLDER.findall(path)


def refused_path(path: str, *, allow_placeholders: bool = True) -> str | None:
    """Why a declared path is not taken (it goes on after "the path"); None if it is."""
    bare = _PLACEHOLDER.sub("x", path) if allow_placeholders else path
    if "{" in bare or "}" in bare:
        return "has a brace that is no part of a `{argument}`"
    if "\\" in bare or any(ord(char) < 0x21 or ord(char) == 0x7F for char in bare) or "?" in bare or "#" in bare:
        return "has a character that no path has"
    if _ESCAPE.search(bare):
        return "has a % without two hexadecimal digits"
    if not bare:
        return None
    if not bare.startswith("/"):
        return "does not begin with a slash"
    _, *parts = bare.split("/")
    for index, part in enumerate(parts):
        if not part and index < len(parts) - 1:
            return "has an empty part"
        reason = _tricky(part)
        if reason is not None:
            return f"has a part that {reason}"
    return None


def _path(template: str, args: Mapping[str, Json]) -> str:
    return "/".join(_part(part, args) for part in template.split("/"))


def _part(part: str, args: Mapping[str, Json]) -> str:
    """One part of the path. It is judged as a whole too: `.` and `.` in two arguments make `..`."""
    names = placeholders(part)
    if not names:
        return _literal(part)
    written, plain = "", ""
    for index, piece in enumerate(_PLACEHOLDER.split(part)):
        if index % 2 == 0:
            written, plain = written + _literal(piece), plain + unquote(piece)
            continue
        value = _scalar(args.get(piece), piece)
        if not value:
            raise DriverError(f"argument {piece} is a part of the path and may not be empty")
        written, plain = written + _quoted(value, piece), plain + value
    reason = _tricky(plain)
    if reason is not None:
        raise DriverError(f"argument {', '.join(names)}: a part of the path that {reason} is not sent")
    return written


def _tricky(part: str) -> str | None:
    """Why somebody behind could take one part of a path for something else; it goes on after "that"."""
    seen = part
    for _ in range(_ROUNDS):
        for form in (seen, unicodedata.normalize("NFKC", seen)):
            if "/" in form or "\\" in form:
                return "has an encoded slash"
            if any(ord(char) < 0x20 or ord(char) == 0x7F for char in form):
                return "has a control character"
            # Some servers cut what stands behind a semicolon before they look for dots.
            if form.partition(";")[0].strip() in {".", ".."}:
                return "is `.` or `..`"
        try:
            decoded = unquote(seen, errors="strict")
        except UnicodeDecodeError:
            return "is no text once it is decoded"
        if decoded == seen:
            return None
        seen = decoded
    return "is encoded several times over"


def _literal(text: str) -> str:
    return quote(text, safe=_PATH_SAFE + "/")


def _query(parameters: tuple[Parameter, ...], args: Mapping[str, Json]) -> str:
    pairs = [pair for one in parameters for pair in _pairs(one, args.get(one.argument))]
    return "?" + _encoded(pairs) if pairs else ""


def _encoded(pairs: list[tuple[str, str]]) -> str:
    return "&".join(f"{_quoted(name, name)}={_quoted(value, name)}" for name, value in pairs)


def _pairs(parameter: Parameter, value: Json) -> Iterator[tuple[str, str]]:
    """A parameter with its values. What was not given, and null, is left out."""
    name, argument = parameter.name, parameter.argument
    if value is None:
        return
    if parameter.style is Style.JSON:
        yield name, _json(value, argument).decode()
    elif isinstance(value, list) and parameter.style in _BETWEEN:
        between = _BETWEEN[parameter.style]
        words = [_scalar(one, argument) for one in value]
        if any(between in word for word in words):
            raise DriverError(f"argument {argument}: an element with {between!r} in it would become two", mend="give it apart")
        yield name, between.join(words)
    elif isinstance(value, list) and parameter.style is Style.REPEAT:
        yield from ((name, _scalar(one, argument)) for one in value)
    elif isinstance(value, dict) and parameter.style is Style.DEEP:
        yield from ((f"{name}[{key}]", _scalar(one, argument)) for key, one in value.items())
    else:
        yield name, _scalar(value, argument)


def _scalar(value: Json, argument: str) -> str:
    """A value as text: texts as they are, numbers as JSON has them, `true` and `false`."""
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, int, float)):
        return _json(value, argument).decode()
    if value is None:
        raise DriverError(f"argument {argument} is needed")
    raise DriverError(f"argument {argument} has to be one text, number or boolean here")


def _quoted(text: str, argument: str) -> str:
    if "\0" in text:
        raise DriverError(f"argument {argument} has a NUL character")
    try:
        return quote(text, safe="")
    except UnicodeEncodeError as error:
        raise DriverError(f"argument {argument} is not valid Unicode") from error


# --- headers and body


_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}", re.ASCII)
_VALUE: Final = re.compile(r"([\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?)?", re.ASCII)
MAX_HEADER: Final = 4096
"""Characters of the value of a header."""

_FRAMING: Final = frozenset(
    {
        "host", "content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade", "keep-alive", "expect",
        "proxy-connection", "proxy-authenticate", "http2-settings", "accept-encoding",
    }
)  # fmt: skip
_SECRET: Final = frozenset({"authorization", "proxy-authorization", "cookie", "cookie2", "set-cookie"})
_OVERRIDES: Final = frozenset(
    {"x-http-method", "x-http-method-override", "x-method-override", "x-original-url", "x-rewrite-url", "x-original-host"}
)
_SECRETIVE: Final = re.compile(
    r"(^|[-_])(authorization|auth|cookie|token|secret|password|credentials?|api[-_]?key|session|signature)([-_]|$)"
)


def refused_header(name: str) -> tuple[str, str] | None:
    """Why a declaration may not set the header, and what to do instead; None if it may."""
    low = name.lower()
    if not _NAME.fullmatch(name):
        return f"{name!r} is no name of a header", "letters, digits and -"
    if low in _SECRET:
        return f"the header {name} carries secrets, which a declaration never does", "use `credentials`"
    if low in _FRAMING:
        return f"the header {name} is the runtime's own", "remove it"
    if low in _OVERRIDES:
        return f"the header {name} changes what policy has decided about", "write `method`, `path` and `url`"
    return None


def is_secretive(name: str) -> bool:
    """Whether a header by its name carries a secret, so that no argument may be its value."""
    return _SECRETIVE.search(name.lower()) is not None


def _headers(
    http: Mapping[str, Json], shape: Shape, args: Mapping[str, Json], key: str, *, with_body: bool
) -> Iterator[tuple[str, str]]:
    wanted: dict[str, tuple[str, str]] = {
        "user-agent": ("User-Agent", USER_AGENT),
        "accept": ("Accept", ACCEPT),
        "accept-encoding": ("Accept-Encoding", "gzip"),
    }
    if with_body and shape.body is not None:
        wanted["content-type"] = ("Content-Type", shape.body.content_type)
    for parameter in shape.headers:
        value = args.get(parameter.argument)
        if value is not None:
            words = value if isinstance(value, list) else [value]
            text = ",".join(_scalar(word, parameter.argument) for word in words)
            wanted[parameter.name.lower()] = (parameter.name, text)
    for name, value in http.get("headers", {}).items():
        wanted[name.lower()] = (name, str(value))
    if not with_body:
        wanted.pop("content-type", None)
    if "idempotencyHeader" in http:
        name = str(http["idempotencyHeader"])
        wanted[name.lower()] = (name, key)
    for low, (name, value) in wanted.items():
        refused = None if low == "accept-encoding" else refused_header(name)
        if refused is not None:
            raise DriverError(refused[0], where=name, mend=refused[1])
        if len(value) > MAX_HEADER or not _VALUE.fullmatch(value):
            message = f"the value of the header {name} is no line of at most {MAX_HEADER} printable ASCII characters"
            raise DriverError(message, where=name)
        yield name, value


def is_json(kind: str) -> bool:
    """Whether a content type says that it is JSON."""
    low = media_type(kind)
    return low == JSON_TYPE or low.endswith("+json")


def media_type(kind: str) -> str:
    """A content type without its parameters, in lower case."""
    return kind.partition(";")[0].strip().lower()


def _body(body: Body, args: Mapping[str, Json]) -> bytes | None:
    """The bytes of the body; None when there is none."""
    if body.whole is not None:
        value = args.get(body.whole)
        if body.whole not in args or (value is None and not body.required):
            return None
        return _sized(_whole(body, value))
    given: dict[str, Json] = {name: args[argument] for name, argument in body.fields if argument in args}
    if not given and not body.required:
        return None
    return _sized(_form(body, given) if media_type(body.content_type) == FORM_TYPE else _json(given, "body"))


def _whole(body: Body, value: Json) -> bytes:
    argument = body.whole or ""
    if is_json(body.content_type):
        return _json(value, argument)
    if media_type(body.content_type) == FORM_TYPE and isinstance(value, dict):
        return _form(body, value)
    if not isinstance(value, str):
        raise DriverError(f"argument {argument} is the body, of the type {body.content_type}, and has to be text")
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise DriverError(f"argument {argument} is not valid Unicode") from error


def _form(body: Body, fields: Mapping[str, Json]) -> bytes:
    pairs = [pair for name, value in fields.items() for pair in _pairs(Parameter(name, name), value)]
    return _encoded(pairs).encode()


def _json(value: Json, argument: str) -> bytes:
    try:
        return canonical(value)
    except NotCanonical as error:
        raise DriverError(f"argument {argument}: {error}") from error


def _sized(body: bytes) -> bytes:
    if len(body) > MAX_BODY:
        raise DriverError(f"the body is {len(body)} bytes, and at most {MAX_BODY} are sent", mend="send less at a time")
    return body
