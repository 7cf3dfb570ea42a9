"""All sources together."""

from __future__ import annotations

from collections.abc import Mapping

from agentos.credentials.adapters.env import EnvSource
from agentos.credentials.adapters.file import FileSource
from agentos.credentials.adapters.keyring_store import KeyringSource
from agentos.credentials.adapters.vault import VaultSource
from agentos.credentials.source import Sources


def all_sources(environ: Mapping[str, str]) -> Sources:
    """Every source, by the names of `reference.SOURCES`; `environ` is the runtime's environment. None of them is asked yet."""
    return {"env": EnvSource(environ), "file": FileSource(), "keyring": KeyringSource(), "vault": VaultSource(environ)}
