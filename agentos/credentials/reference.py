"""References: where a Secret is kept, and where a tool wants it. Values of declarations; no credential is in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from agentos.abi.canonical import Json
from agentos.abi.resource import Resource

SOURCES: Final = ("env", "file", "keyring", "vault")


@dataclass(frozen=True, slots=True)
class SecretRef:
    """A Secret: `source` is one of SOURCES, `settings` its part of the spec (a text for env and file)."""

    name: str
    source: str
    settings: Json = field(hash=False)
    hosts: tuple[str, ...] = ()
    """The only hosts that it may be sent to in a header; patterns as in the declaration."""
    lease_s: int = 3600


@dataclass(frozen=True, slots=True)
class Credential:
    """What a tool is given: a secret, and exactly one of `env`, `file` and `header` that says where it goes."""

    secret: str
    env: str = ""
    file: str = ""
    header: str = ""
    format: str = "{}"
    """The value with `{}` where the secret stands."""

    def render(self, value: str) -> str:
        """What is handed over."""
        return self.format.replace("{}", value, 1)


def secret_ref(resource: Resource) -> SecretRef:
    """The SecretRef of a validated Secret."""
    spec = resource.spec
    source = next(name for name in SOURCES if name in spec)
    return SecretRef(resource.key.name, source, spec[source], tuple(spec.get("hosts", ())), spec.get("leaseSeconds", 3600))


def credential_of(body: Mapping[str, Json]) -> Credential:
    """One entry of a tool's `credentials`."""
    return Credential(body["secret"], body.get("env", ""), body.get("file", ""), body.get("header", ""), body.get("format", "{}"))
