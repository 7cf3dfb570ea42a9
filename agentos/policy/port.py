"""The policy engine as the rest of AgentOS sees it: load modules and data once, evaluate one document often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from agentos.abi.canonical import Json

DECISION_SECONDS: Final = 0.1
"""How long one syscall decision may take: a decision is 50-300 µs, so 100 ms is a policy gone wrong, not a busy machine."""

CONTROL_SECONDS: Final = 2.0
"""How long one command may wait for its decision: the shipped rules alone decide it, so a late answer is a busy machine."""

ADMISSION_SECONDS: Final = 5.0
"""How long one admission decision may take: its input carries every manifest of a tenant."""


class Place(StrEnum):
    """Where OPA decides: in the process, in servers that the runtime owns, or in servers that somebody else runs."""

    EMBEDDED = "embedded"
    MANAGED = "managed"
    REMOTE = "remote"


@dataclass(frozen=True, slots=True)
class Module:
    """One Rego file: `path` is what errors name, `source` the exact bytes that were loaded, as text."""

    path: str
    source: str


class PolicyEngine(Protocol):
    """A loaded, immutable set of modules and data. A new revision is a new engine."""

    async def evaluate(self, path: str, document: Mapping[str, Json], *, within: float = DECISION_SECONDS) -> Json:
        """The value of `data.<path>` for the input `document`; the evaluation itself may take `within` seconds.

        Raises EngineUnavailable when there is no answer: undefined, an error of evaluation, a deadline passed. The caller denies.
        """

    @property
    def answering(self) -> bool:
        """Whether a question would be taken now. False while its server is known to be down: no kept answer counts then."""

    def close(self) -> None:
        """Free the engine; evaluations under way end first."""


class PolicyEngineFactory(Protocol):
    """How engines are made: one adapter per kind of engine."""

    @property
    def version(self) -> str:
        """Name and version, such as `opa 1.20 (in process)`."""

    async def load(self, modules: Sequence[Module], data: Mapping[str, Json]) -> PolicyEngine:
        """Compile `modules` with `data` as the root document.

        Raises PolicyError (with `where` as file:line) for Rego that does not compile, EngineUnavailable without an engine.
        """
