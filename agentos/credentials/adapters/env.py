"""Values in the environment of the runtime."""

from __future__ import annotations

from collections.abc import Mapping

from agentos.credentials.reference import SecretRef
from agentos.credentials.source import SourceFault


class EnvSource:
    """Reads `env: NAME` from `environ`."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    async def fetch(self, ref: SecretRef) -> str:
        """The variable as it is. Raises SourceFault."""
        return variable(self._environ, str(ref.settings))

    async def close(self) -> None:
        """Nothing is kept."""


def variable(environ: Mapping[str, str], name: str) -> str:
    """The value of a variable that is set, and not to nothing. Raises SourceFault."""
    value = environ.get(name)
    if not value:
        raise SourceFault(f"the variable {name} of the runtime's environment is {'not set' if value is None else 'empty'}")
    return value
