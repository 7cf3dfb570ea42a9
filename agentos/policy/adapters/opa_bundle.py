"""The bundle that an OPA server loads: modules and data of one engine, under a revision that names exactly them.

Every answer of a server carries the revision of the bundle that gave it, so an answer of other policies is recognised.
The same modules and data give the same bytes. Modules get short names inside (`m0000.rego`): no path of a tenant's file
reaches a file system, and OPA's messages are put back into the words of the caller by `Names`.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.errors import PolicyError
from agentos.policy import syntax
from agentos.policy.adapters import opa
from agentos.policy.port import Module

_SHORT: Final = re.compile(r"(?:\b[\w.-]+/)?\bm(\d{4,})\.rego\b")

ROOT_OF_THE_SERVER: Final = "system"
"""Where OPA keeps its own policy about who may ask; no module or data may stand there."""


@dataclass(frozen=True, slots=True)
class Names:
    """The modules' paths in the order of the bundle."""

    paths: tuple[str, ...]

    def restore(self, text: str) -> str:
        """OPA's `text` with the names inside of the bundle replaced by the paths that the caller knows."""
        return _SHORT.sub(lambda found: self.paths[int(found[1])] if int(found[1]) < len(self.paths) else found[0], text)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle ready to be written: `content` is a `.tar.gz`."""

    revision: str
    """`sha256:…` over paths and sources of the modules and over the data: what an engine is, wherever it runs."""

    content: bytes

    sha256: str
    """`sha256:…` of the exact bytes in `content`."""

    names: Names


def build_bundle(modules: Sequence[Module], data: Mapping[str, Json]) -> Bundle:
    """The bundle of one engine.

    Raises PolicyError with `where` as file:line for a module that cannot be read, or that stands in the server's own package;
    EngineUnavailable without the library that reads Rego.
    """
    opa.refuse(modules)
    facts = encoded(data)
    roots = {str(key) for key in data}
    for module in modules:
        top = syntax.package(opa.parse(module))[0]
        if top == ROOT_OF_THE_SERVER:
            raise PolicyError(
                f"package {top} is the policy server's own", where=f"{module.path}:1", mend="put the rules into another package"
            )
        roots.add(top)
    if ROOT_OF_THE_SERVER in data:
        raise PolicyError(f"the data for the policies may not have the key {ROOT_OF_THE_SERVER}")
    revision = _revision(modules, facts)
    manifest = {"revision": revision, "roots": sorted(roots), "rego_version": 1}
    files = {".manifest": json.dumps(manifest).encode(), "data.json": facts}
    files |= {f"m{number:04}.rego": module.source.encode() for number, module in enumerate(modules)}
    content = archive(files)
    sha256 = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return Bundle(revision, content, sha256, Names(tuple(module.path for module in modules)))


def revision_of(modules: Sequence[Module], data: Mapping[str, Json]) -> str:
    """The revision of the bundle of `modules` and `data`, whatever its files are called: `sha256:…`. Raises PolicyError."""
    return _revision(modules, encoded(data))


def _revision(modules: Sequence[Module], facts: bytes) -> str:
    digest = hashlib.sha256()
    for part in (*(part.encode() for module in modules for part in (module.path, module.source)), facts):
        digest.update(len(part).to_bytes(8, "big") + part)
    return f"sha256:{digest.hexdigest()}"


def archive(files: Mapping[str, bytes]) -> bytes:
    """A `.tar.gz` of `files` by name, the same for the same files."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name, body in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            tar.addfile(entry, io.BytesIO(body))
    return packed.getvalue()


def encoded(data: Mapping[str, Json]) -> bytes:
    """`data` as it stands in a bundle: JSON, keys in order. Raises PolicyError for what is no JSON."""
    try:
        return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise PolicyError(f"the data for the policies is not JSON: {error}") from error
