"""Quotas: how much the files of a tenant may take up, over its workspaces, its shared spaces and what is kept of their versions.

    with quotas.room("acme", Amount(bytes=120, files=1)):      # refused here, before anything is written
        ...                                                     # write
        quotas.grew("acme", "session/s-1", Amount(120, 1))      # what came of it

What each place takes up is kept in memory: measured once, when a tenant is first asked about, and kept by whoever changes or
looks at files. So the answer costs no walk. What is being written counts from the moment at which there is found to be room for
it; two writers cannot both have the last of it. A process asks nobody: what it left is found by looking, and after that nothing
more is written until there is room again.

Files are counted by name: folders and links too, as an inode is what runs out. Not for any one thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Final

from agentos.abi.errors import DriverError


class QuotaExceeded(DriverError):
    """The files of the tenant would take up, or take up, more than they may."""

    code: ClassVar[str] = "quota.exceeded"


@dataclass(frozen=True, slots=True)
class Amount:
    """Bytes, and names of files, folders and links."""

    bytes: int = 0
    files: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.bytes + other.bytes, self.files + other.files)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.bytes - other.bytes, self.files - other.files)

    def within(self, most: Amount) -> bool:
        """Whether neither is more than in `most`."""
        return self.bytes <= most.bytes and self.files <= most.files


STORAGE: Final = Amount(10 * 1024**3, 1_000_000)
"""What a tenant may have that says nothing else."""

NOTHING: Final = Amount()


class Quotas:
    """What the tenants have and may have. `measure` gives all places of a tenant with what they take up; it may block."""

    def __init__(self, limits: Callable[[str], Amount], measure: Callable[[str], Mapping[str, Amount]]) -> None:
        self._limits = limits
        self._measure = measure
        self._lock = threading.RLock()
        self._held: dict[str, dict[str, Amount]] = {}
        self._sums: dict[str, Amount] = {}
        self._coming: dict[str, Amount] = {}
        self._hidden: set[tuple[str, str]] = set()

    def used(self, tenant: str) -> Amount:
        """What the files of a tenant take up now."""
        with self._lock:
            self._known(tenant)
            return self._sums[tenant]

    @contextmanager
    def room(self, tenant: str, more: Amount = NOTHING) -> Iterator[Callable[[Amount], None]]:
        """Have room for `more` until the block ends, and for whatever is asked for by what is given. Raises QuotaExceeded.

        What was written has to be told of within the block (`grew`, `holds`): then it counts by itself.
        """
        taken = NOTHING

        def take(amount: Amount) -> None:
            nonlocal taken
            with self._lock:
                self._known(tenant)
                wanted = self._sums[tenant] + self._coming.get(tenant, NOTHING) + amount
                most = self._limits(tenant)
                if (amount.bytes > 0 and wanted.bytes > most.bytes) or (amount.files > 0 and wanted.files > most.files):
                    raise self._refusal(tenant, most, "has no room for more")
                self._coming[tenant] = self._coming.get(tenant, NOTHING) + amount
                taken = taken + amount

        try:
            take(more)
            yield take
        finally:
            with self._lock:
                self._coming[tenant] = self._coming.get(tenant, NOTHING) - taken

    def require(self, tenant: str, place: str) -> None:
        """Whether files may be written by whom nobody can stop while he does. Raises QuotaExceeded."""
        with self._lock:
            self._known(tenant)
            most = self._limits(tenant)
            if not self._sums[tenant].within(most):
                raise self._refusal(tenant, most, "has more files than it may")
            if (tenant, place) in self._hidden:
                raise QuotaExceeded(
                    "there are folders that nobody can look into, so what is in them cannot be told",
                    where=place,
                    mend="begin another session; the workspace of this one is removed when it is erased",
                )

    def holds(self, tenant: str, place: str, amount: Amount, *, hidden: bool = False) -> None:
        """From now on `place` is known to take up so much. `hidden`: there are folders in it that could not be looked into."""
        with self._lock:
            held = self._known(tenant)
            self._sums[tenant] = self._sums[tenant] + amount - held.get(place, NOTHING)
            if amount == NOTHING:
                held.pop(place, None)
            else:
                held[place] = amount
            (self._hidden.add if hidden else self._hidden.discard)((tenant, place))

    def grew(self, tenant: str, place: str, more: Amount) -> None:
        """`place` takes up so much more, or less, than it was known to."""
        with self._lock:
            now = self._known(tenant).get(place, NOTHING) + more
            self.holds(tenant, place, Amount(max(0, now.bytes), max(0, now.files)), hidden=(tenant, place) in self._hidden)

    def _known(self, tenant: str) -> dict[str, Amount]:
        if tenant not in self._held:
            # Whoever asks meanwhile waits: an answer without the sum would be a way around it.
            held = dict(self._measure(tenant))
            self._held[tenant] = held
            self._sums[tenant] = Amount(sum(one.bytes for one in held.values()), sum(one.files for one in held.values()))
        return self._held[tenant]

    def _refusal(self, tenant: str, most: Amount, what: str) -> QuotaExceeded:
        used = self._sums[tenant]
        return QuotaExceeded(
            f"tenant {tenant} {what}: it has {used.bytes} of {most.bytes} bytes and {used.files} of {most.files} files",
            mend="take changes back, or have sessions erased; Tenant.spec.limits.storageMiB and files say how much it may have",
        )
