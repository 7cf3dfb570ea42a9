"""The keyring, by the package itself: with a backend of its own kind, and without the package."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends import fail
from keyring.errors import KeyringError, KeyringLocked

from agentos.credentials.adapters.keyring_store import KeyringSource
from agentos.credentials.reference import SecretRef
from agentos.credentials.source import SourceFault

VALUE = "the-value-in-the-keyring"
REF = SecretRef("github", "keyring", {"service": "github", "username": "agentos"})


class InMemory(KeyringBackend):
    """A keyring as plug-ins of the package are."""

    priority = 1  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[tuple[str, str], str] = {}
        self.fails: Exception | None = None

    def get_password(self, service: str, username: str) -> str | None:
        if self.fails is not None:
            raise self.fails
        return self.entries.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.entries[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.entries[service, username]


@pytest.fixture
def backend() -> Iterator[InMemory]:
    before, mine = keyring.get_keyring(), InMemory()
    keyring.set_keyring(mine)
    yield mine
    keyring.set_keyring(before)


async def test_an_entry_is_read(backend: InMemory) -> None:
    """What was stored by the package is the value; another user name or service is another entry."""
    keyring.set_password("github", "agentos", VALUE)
    assert await KeyringSource().fetch(REF) == VALUE
    with pytest.raises(SourceFault, match="no entry of user name 'other'"):
        await KeyringSource().fetch(SecretRef("x", "keyring", {"service": "github", "username": "other"}))


@pytest.mark.parametrize(
    ("error", "words"),
    [(KeyringLocked(VALUE), "is locked"), (KeyringError(VALUE), "failed with KeyringError")],
)
async def test_failures_are_told_without_their_words(backend: InMemory, error: Exception, words: str) -> None:
    """What a backend says of its failure may be anything, so only its kind is told."""
    backend.fails = error
    with pytest.raises(SourceFault, match=words) as caught:
        await KeyringSource().fetch(REF)
    assert VALUE not in str(caught.value.to_dict())
    assert caught.value.__cause__ is None


async def test_a_host_without_a_keyring() -> None:
    """The package says when no backend of it works here."""
    before = keyring.get_keyring()
    keyring.set_keyring(fail.Keyring())
    try:
        with pytest.raises(SourceFault, match="has no keyring"):
            await KeyringSource().fetch(REF)
    finally:
        keyring.set_keyring(before)


def test_without_the_package() -> None:
    """A host without the extra says what to install, at the first use and not before."""
    program = """
import asyncio, sys
sys.modules["keyring"] = None
from agentos.credentials.adapters.sources import all_sources
from agentos.credentials.reference import SecretRef
from agentos.credentials.source import SourceFault
sources = all_sources({})
assert "httpx2" not in sys.modules
try:
    asyncio.run(sources["keyring"].fetch(SecretRef("x", "keyring", {"service": "a", "username": "b"})))
except SourceFault as error:
    print(error.message)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "the package keyring is not installed: run pip install 'agentos[keyring]'"
