"""Bundles as other tools make them: reading one that may be hostile, verifying its signature, writing one that any OPA loads.

What is read is exactly what is verified and used: one parser, the bytes of one file in memory, nothing unpacked on disk. A
bundle may hold Rego, its manifest, a signature and data; links, devices, paths that climb or come twice, and whatever unpacks
to more than it may are refused. (OPA itself writes names with a leading slash, `/policies/egress.rego`: the top of the bundle.)
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

from agentos.abi.canonical import Json, NotCanonical, parse_strict
from agentos.abi.errors import PolicyError
from agentos.policy.adapters.opa_bundle import archive, encoded, revision_of
from agentos.policy.port import Module

MAX_PACKED: Final = 16 << 20
"""Most bytes of a bundle as a file."""

MAX_UNPACKED: Final = 64 << 20
"""Most bytes of a bundle unpacked."""

MAX_FILES: Final = 2000

MAX_NAME: Final = 512
"""Longest path inside of a bundle in characters."""

MANIFEST: Final = ".manifest"
SIGNATURES: Final = ".signatures.json"

_MADE_FOR_OTHERS: Final = {"policy.wasm": "compiled to wasm", "plan.json": "compiled to a plan", "patch.json": "a difference"}
_HASHES: Final = {"SHA-256": hashlib.sha256, "SHA-384": hashlib.sha384, "SHA-512": hashlib.sha512}


@dataclass(frozen=True, slots=True)
class BundleFile:
    """A bundle that was read. `modules` stand in the order of their paths, without a leading slash."""

    sha256: str
    """`sha256:…` of the file's bytes."""

    modules: tuple[Module, ...]
    manifest: Mapping[str, Json] = field(hash=False)
    data: Mapping[str, Json] = field(hash=False)
    files: Mapping[str, bytes] = field(hash=False, repr=False)

    @property
    def revision(self) -> str:
        """What its maker calls it, or empty."""
        return str(self.manifest.get("revision", ""))


def read_bundle(content: bytes, where: str) -> BundleFile:
    """The bundle in `content`, the bytes of the file `where`. Raises PolicyError for anything that is no bundle of Rego."""
    files = _unpacked(content, where)
    manifest = _object(files.get(MANIFEST, b"{}"), f"{where}: {MANIFEST}")
    versions = [manifest.get("rego_version", 1), *_values(manifest.get("file_rego_versions", {}))]
    if any(version != 1 for version in versions):
        raise PolicyError("the bundle is written in Rego v0", where=where, mend="opa fmt --rego-v1, then build it again")
    modules: list[Module] = []
    data: dict[str, Json] = {}
    for name in sorted(files):
        if name in {MANIFEST, SIGNATURES}:
            continue
        if name.endswith(".rego"):
            try:
                modules.append(Module(name, files[name].decode("utf-8")))
            except UnicodeDecodeError as error:
                raise PolicyError(f"not UTF-8 at byte {error.start}", where=f"{where}: {name}") from error
        elif PurePosixPath(name).name == "data.json":
            _graft(data, PurePosixPath(name).parent.parts, _object(files[name], f"{where}: {name}"), f"{where}: {name}")
        else:
            made = _MADE_FOR_OTHERS.get(PurePosixPath(name).name)
            raise PolicyError(
                f"the bundle is {made}" if made else "neither Rego nor data.json",
                where=f"{where}: {name}",
                mend="build it with the target rego: opa build -b FOLDER",
            )
    return BundleFile(f"sha256:{hashlib.sha256(content).hexdigest()}", tuple(modules), manifest, data, files)


def write_bundle(modules: Sequence[Module], data: Mapping[str, Json], metadata: Mapping[str, Json]) -> tuple[str, bytes]:
    """The revision and the bytes of a bundle of `modules` and `data`, the same for the same.

    Modules keep their paths as far as they are paths. The revision is the one that `opa_bundle.build_bundle` would give: a remote
    server that loads this file answers for that engine. Raises PolicyError for what is no JSON.
    """
    revision = revision_of(modules, data)
    packages = sorted({"agentos", *data})
    manifest = {"metadata": dict(metadata), "rego_version": 1, "revision": revision, "roots": packages}
    files = {MANIFEST: encoded(manifest), "data.json": encoded(data)}
    for number, module in enumerate(modules):
        fits = _fault(module.path) is None and module.path.endswith(".rego") and module.path not in files
        files[module.path if fits else f"modules/m{number:04}.rego"] = module.source.encode()
    return revision, archive(dict(sorted(files.items())))


def verify(bundle: BundleFile, key: bytes, *, scope: str = "", where: str) -> str:
    """Check `.signatures.json` as OPA does, with a public key (PEM); who signed, or empty. Raises PolicyError.

    Every file of the bundle must be named by the signature with its hash, and every file that it names must be there.
    """
    import jwt

    algorithms = _algorithms(key, where)
    signatures = _object(bundle.files.get(SIGNATURES, b"{}"), f"{where}: {SIGNATURES}").get("signatures")
    if not isinstance(signatures, list) or len(signatures) != 1 or not isinstance(signatures[0], str):
        raise _unsigned("the bundle has no signature" if not signatures else "the bundle has not one signature", where)
    try:
        claims = jwt.decode(signatures[0], key.decode("ascii"), algorithms=algorithms, options={"verify_aud": False})
    except jwt.PyJWTError as error:
        raise _unsigned(f"the signature is not of this key: {error}", where) from error
    if claims.get("scope", "") != scope:
        raise _unsigned(f"the signature is for the scope {str(claims.get('scope', ''))!r}, not {scope!r}", where)
    listed = claims.get("files")
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise _unsigned("the signature names no files", where)
    named = {str(one.get("name")): one for one in listed}
    there = bundle.files.keys() - {SIGNATURES}
    for name in sorted(there ^ named.keys()):
        raise _unsigned(f"{name} is not in the {'signature' if name in there else 'bundle'}", where)
    for name, one in named.items():
        hashed = _HASHES.get(str(one.get("algorithm")))
        if hashed is None:
            raise _unsigned(f"{name} is hashed with {one.get('algorithm')!r}", where)
        if hashed(_hashable(name, bundle.files[name])).hexdigest() != one.get("hash"):
            raise _unsigned(f"{name} was changed after it was signed", where)
    return str(claims.get("iss", ""))


def _unsigned(what: str, where: str) -> PolicyError:
    return PolicyError(what, where=where, mend="get the bundle from who signs it, and the key from where they publish it")


def _algorithms(key: bytes, where: str) -> list[str]:
    """What a key may have signed with: told from the key, never from the signature."""
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        public = load_pem_public_key(key)
    except ValueError as error:
        raise PolicyError(
            "the verification key is no public key in PEM", mend="openssl pkey -in KEY -pubout, and give that file"
        ) from error
    if isinstance(public, rsa.RSAPublicKey) and public.key_size >= 2048:
        return ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]
    if isinstance(public, ec.EllipticCurvePublicKey):
        return ["ES256", "ES384", "ES512"]
    raise PolicyError(f"the verification key cannot have signed {where}", mend="RSA of 2048 bits or more, or an elliptic curve")


def _hashable(name: str, content: bytes) -> bytes:
    """What OPA hashes: the bytes of a file; of JSON the value, its keys in order and no space between."""
    if PurePosixPath(name).name not in {MANIFEST, "data.json"}:
        return content
    # Numbers as they are written, text as Go writes it.
    value = json.loads(content, parse_int=_Number, parse_float=_Number)
    return _go(value).encode()


class _Number(str):
    __slots__ = ()


def _go(value: Json) -> str:
    match value:
        case dict():
            return "{" + ",".join(f"{_go(key)}:{_go(value[key])}" for key in sorted(value)) + "}"
        case list():
            return "[" + ",".join(map(_go, value)) + "]"
        case _Number():
            return str(value)
        case _:
            text = json.dumps(value, ensure_ascii=False)
            return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _unpacked(content: bytes, where: str) -> dict[str, bytes]:
    if len(content) > MAX_PACKED:
        raise PolicyError(f"the bundle is larger than {MAX_PACKED >> 20} MiB", where=where)
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as packed:
            raw = packed.read(MAX_UNPACKED + 1)
        if len(raw) > MAX_UNPACKED:
            raise PolicyError(f"the bundle unpacks to more than {MAX_UNPACKED >> 20} MiB", where=where)
        with tarfile.open(fileobj=io.BytesIO(raw), mode="r:") as tar:
            files = _members(tar, where)
            # What cannot be read as a header ends the reading in silence; behind the end there are only zeros.
            if raw[tar.offset :].strip(b"\0"):
                raise PolicyError("the bundle is damaged: something stands behind its end", where=where)
    except (OSError, EOFError, zlib.error, tarfile.TarError, UnicodeDecodeError, ValueError) as error:
        raise PolicyError(f"this is no bundle: {error}", where=where, mend="opa build -b FOLDER makes one") from error
    return files


def _members(tar: tarfile.TarFile, where: str) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for count, member in enumerate(tar, start=1):
        name = member.name.removeprefix("./").removeprefix("/")
        if member.isdir():
            continue
        fault = "the bundle holds too many files" if count > MAX_FILES else _fault(name)
        if fault is None and not (member.isreg() and member.sparse is None):
            fault = "only files belong into a bundle, and this is a link or a device"
        if fault is None and name in files:
            fault = "the bundle holds this file twice"
        if fault is not None:
            raise PolicyError(fault, where=f"{where}: {ascii(member.name)[1:-1][:MAX_NAME]}")
        body = tar.extractfile(member)
        files[name] = body.read() if body is not None else b""
        if len(files[name]) != member.size:
            raise PolicyError("the bundle is cut off", where=f"{where}: {name}")
    return files


def _fault(name: str) -> str | None:
    """What makes a path no path inside of a bundle, or None."""
    if len(name) > MAX_NAME:
        return f"the path is longer than {MAX_NAME} characters"
    if not name.isprintable() or "\\" in name:
        return "the path holds characters that a path should not"
    if any(part in {"", ".", ".."} for part in name.split("/")):
        return "the path leads out of the bundle, or is none"
    return None


def _object(content: bytes, where: str) -> dict[str, Json]:
    try:
        value = parse_strict(content)
    except NotCanonical as error:
        raise PolicyError(f"not JSON of one meaning: {error}", where=where) from error
    if not isinstance(value, dict):
        raise PolicyError("not a JSON object", where=where)
    return value


def _values(value: Json) -> list[Json]:
    return list(value.values()) if isinstance(value, dict) else [value]


def _graft(data: dict[str, Json], place: Sequence[str], value: dict[str, Json], where: str) -> None:
    for part in reversed(place):
        value = {part: value}
    for key, below in value.items():
        if key in data:
            raise PolicyError(f"two files give data.{key}", where=where, mend="merge them into one data.json")
        data[key] = below
