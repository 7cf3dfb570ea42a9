"""What `connect` reads from a credentials file."""

from __future__ import annotations

import pytest

from agentos.abi.errors import IdentityError
from agentos.eventlog.adapters.connection import _read
from agentos.eventlog.adapters.credentials import create_seed, write_seed


class Zeros:
    """Nothing random."""

    def token(self, size: int) -> bytes:
        return bytes(size)


def test_seed_files_and_creds_files_are_read(tmp_path):
    """A plain seed has no JWT; a creds file has both; a key is taken as it is."""
    key = create_seed(Zeros())
    write_seed(tmp_path / "plain.nk", key)
    creds = tmp_path / "user.creds"
    creds.write_text(
        "-----BEGIN NATS USER JWT-----\neyJ0eXAiOiJKV1QifQ.e30.c2ln\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{key.seed}\n------END USER NKEY SEED------\n"
    )
    creds.chmod(0o600)
    assert _read(key) == (key, None)
    assert _read(tmp_path / "plain.nk") == (key, None)
    assert _read(creds) == (key, "eyJ0eXAiOiJKV1QifQ.e30.c2ln")


def test_a_file_without_a_seed_is_said(tmp_path):
    """A file that holds no seed raises IdentityError with its path."""
    path = tmp_path / "notes.txt"
    path.write_text("nothing here\n")
    path.chmod(0o600)
    with pytest.raises(IdentityError) as caught:
        _read(path)
    assert caught.value.where == str(path)
