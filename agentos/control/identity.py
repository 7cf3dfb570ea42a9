"""Identity files: how a principal proves who it is. One JSON file, mode 0600, with the NKey seed in it.

    {"principal": "alice", "tenant": "*", "seed": "SU…"}

A file that others can read is refused, as ssh does.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from agentos.abi.errors import IdentityError
from agentos.abi.ids import is_name


@dataclass(frozen=True, slots=True)
class Identity:
    """A principal's name and its secret; the secret is in no repr."""

    principal: str
    tenant: str
    seed: str = field(repr=False)

    def save(self, path: Path) -> None:
        """Write the file, readable by its owner only. Raises IdentityError if it exists already."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        body = json.dumps({"principal": self.principal, "tenant": self.tenant, "seed": self.seed}, indent=2) + "\n"
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise IdentityError(
                f"{path} exists already", mend="name another file with --out, or move the old one away"
            ) from error
        with os.fdopen(handle, "w") as file:
            file.write(body)


def load_identity(path: Path) -> Identity:
    """Read an identity file. Raises IdentityError, never showing the seed."""
    try:
        mode = path.stat().st_mode
        if mode & 0o077:
            raise IdentityError(f"{path} can be read by others (mode {mode & 0o777:o})", mend=f"chmod 600 {path}")
        body = json.loads(path.read_text())
        principal, tenant, seed = body["principal"], body["tenant"], body["seed"]
    except FileNotFoundError as error:
        raise IdentityError(
            f"no identity file {path}",
            mend="start a runtime with `agentos up` (it creates the first operator), or name a file with --identity",
        ) from error
    except OSError as error:
        raise IdentityError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise IdentityError(f"{path} is not an identity file", mend="ask an operator for a new one") from error
    if not (isinstance(principal, str) and is_name(principal) and isinstance(tenant, str) and isinstance(seed, str)):
        raise IdentityError(f"{path} is not an identity file", mend="ask an operator for a new one")
    return Identity(principal, tenant, seed)
