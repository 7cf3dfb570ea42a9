"""Values in the keyring of the runtime's user, by the package `keyring`: an extra, imported when it is first needed."""

from __future__ import annotations

from agentos.credentials.reference import SecretRef
from agentos.credentials.source import Apart, SourceFault


class KeyringSource:
    """Reads `keyring: {service, username}`. A keyring may wait for somebody to unlock it, so it is asked in a thread apart."""

    def __init__(self) -> None:
        self._apart = Apart(4)

    async def fetch(self, ref: SecretRef) -> str:
        """The entry. Raises SourceFault, and whatever a backend raises that is not the package's own error."""
        service, username = str(ref.settings["service"]), str(ref.settings["username"])
        return await self._apart.run(lambda: _read(service, username))

    async def close(self) -> None:
        """Nothing is kept."""


def _read(service: str, username: str) -> str:
    try:
        import keyring
        from keyring.errors import KeyringError, KeyringLocked, NoKeyringError
    except ImportError:
        raise SourceFault("the package keyring is not installed: run pip install 'agentos[keyring]'") from None
    try:
        value = keyring.get_password(service, username)
    except NoKeyringError:
        raise SourceFault("this host has no keyring that the package keyring could use") from None
    except KeyringLocked:
        raise SourceFault("the keyring is locked") from None
    except KeyringError as error:
        raise SourceFault(f"the keyring failed with {type(error).__name__}") from None
    if not value:
        raise SourceFault(f"the keyring has no entry of user name {username!r} for the service {service!r}")
    return value
