"""Asking policy: one input document in, one Decision out, and a denial with a sentence wherever there is no answer.

A Decider holds the engine of one tenant at one revision of its configuration. Answers about syscalls are kept (`answers`), for
all questions that the loaded modules cannot tell apart (`sameness`); a change of the configuration and an approval are decided
once each.
"""

from __future__ import annotations

import asyncio
import hashlib
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Protocol, runtime_checkable

from agentos.abi.canonical import Json, NotCanonical, canonical, digest_of
from agentos.abi.decision import Decision
from agentos.abi.errors import AgentOSError, PolicyError
from agentos.policy import syntax
from agentos.policy.adapters.opa import parse
from agentos.policy.answers import CACHE_SIZE, Answers, CacheStats
from agentos.policy.bundle import axioms, policy_digest
from agentos.policy.port import ADMISSION_SECONDS, CONTROL_SECONDS, DECISION_SECONDS, Module, PolicyEngineFactory
from agentos.policy.sameness import Sameness, reads

__all__ = ["ADMISSION", "APPROVAL", "CONTROL", "SYSCALL", "CacheStats", "ControlDecider", "Decider", "data_digest"]

SYSCALL: Final = "agentos.syscall.decision"
ADMISSION: Final = "agentos.admission.decision"
APPROVAL: Final = "agentos.approval.decision"
CONTROL: Final = "agentos.control.decision"

_TENANTS: Final = frozenset({"syscall", "admission", "approval"})
"""Targets for which a tenant may have rules of its own."""


@runtime_checkable
class _Moving(Protocol):
    """An engine that may come to answer from elsewhere than where it was loaded."""

    @property
    def version(self) -> str:
        """What answers now."""


class Decider:
    """Decides the syscalls, the approvals and the admissions of one tenant at one revision."""

    def __init__(self, answers: Answers, *, digest: str, data_digest: str, version: Callable[[], str], within: float) -> None:
        self.answers = answers
        """What asks the engine, and keeps its answers."""
        self.digest = digest
        """`sha256:…` of the modules in force: the `policydigest` of events."""
        self.data_digest = data_digest
        """`sha256:…` of the canonical form of the data that they decide on."""
        self._version = version
        self._within = within

    @classmethod
    async def load(
        cls,
        factory: PolicyEngineFactory,
        modules: Sequence[Module],
        data: Mapping[str, Json],
        *,
        cache_size: int = CACHE_SIZE,
        decision_seconds: float = DECISION_SECONDS,
    ) -> Decider:
        """Load `modules` (the axioms and a tenant's own) with the root document `data`.

        A syscall, and an approval, that is not decided after `decision_seconds` is denied.

        Raises PolicyError for Rego that does not load or that stands outside of `agentos.<target>.rules.<name>`, and for data
        that is no JSON; EngineUnavailable without an engine (`Decider.denying` then denies everything with that error's
        sentence).
        """
        # In a thread, because the decisions under the policy that is still in force go on meanwhile.
        kept, told = await asyncio.to_thread(_prepare, tuple(modules), data, cache_size)
        engine = await factory.load(modules, data)
        loaded_as = factory.version
        decider = cls(
            Answers(engine, kept, size=cache_size),
            digest=policy_digest(modules),
            data_digest=told,
            version=lambda: engine.version if isinstance(engine, _Moving) else loaded_as,
            within=decision_seconds,
        )
        # Turns in progress keep the decider of their revision: its threads end when the last of them lets go of it.
        weakref.finalize(decider, engine.close)
        return decider

    @classmethod
    def denying(cls, error: AgentOSError) -> Decider:
        """A decider that denies everything, because policy could not be loaded: `error` says why and how to mend it."""
        return cls(
            Answers.none(error),
            digest=policy_digest(()),
            data_digest=digest_of({}),
            version=lambda: "none",
            within=DECISION_SECONDS,
        )

    @property
    def engine(self) -> str:
        """Name and version of what answers now; `none` where nothing does."""
        return self._version()

    async def decide_syscall(self, document: Mapping[str, Json]) -> Decision:
        """Decide one syscall (`schemas/v1/policy-input.json`). Never raises for anything that policy does: it denies."""
        return await self.answers.decide(SYSCALL, document, self._within)

    async def approve(self, document: Mapping[str, Json]) -> Decision:
        """Decide whether a person's yes to a call counts (`schemas/v1/approval-input.json`). Asked each time."""
        return await self.answers.decide(APPROVAL, document, self._within)

    async def admit(self, document: Mapping[str, Json]) -> Decision:
        """Decide one change of the configuration (`schemas/v1/admission-input.json`). Asked each time."""
        return await self.answers.decide(ADMISSION, document, ADMISSION_SECONDS)

    def stats(self) -> CacheStats:
        """How the cache fared."""
        return self.answers.stats()

    def close(self) -> None:
        """Free the engine; deciding afterwards denies."""
        self.answers.close()


class ControlDecider:
    """Decides which principal may use which verb of the control door; the same for every tenant and revision."""

    def __init__(self, decider: Decider) -> None:
        self._decider = decider

    @classmethod
    async def load(cls, factory: PolicyEngineFactory) -> ControlDecider:
        """Load the shipped control policies. Raises PolicyError, EngineUnavailable."""
        return cls(await Decider.load(factory, axioms("control"), {"agentos": {}}))

    async def decide(self, document: Mapping[str, Json]) -> Decision:
        """Decide one command (`schemas/v1/control-input.json`)."""
        return await self._decider.answers.decide(CONTROL, document, CONTROL_SECONDS)

    def stats(self) -> CacheStats:
        """How the cache fared."""
        return self._decider.stats()

    def close(self) -> None:
        """Free the engine; deciding afterwards denies."""
        self._decider.close()


def data_digest(data: Mapping[str, Json]) -> str:
    """`digest_of(data)`, made piece by piece: facts of a large tenant would keep every other thread waiting meanwhile.

    Raises PolicyError for what has no canonical form.
    """
    summed = hashlib.sha256()
    try:
        for piece in _pieces(data, 4):
            summed.update(piece)
    except NotCanonical as error:
        raise PolicyError(f"the data for the policies is not JSON: {error}") from error
    return f"sha256:{summed.hexdigest()}"


def _pieces(value: Json, depth: int) -> Iterator[bytes]:
    """The canonical form of `value`, its objects taken apart `depth` levels deep."""
    if not depth or type(value) is not dict or not value or not all(type(key) is str for key in value):
        yield canonical(value)
        return
    before = b"{"
    for key in sorted(value, key=lambda key: key.encode("utf-16-be", "surrogatepass")):
        yield before + canonical(key) + b":"
        yield from _pieces(value[key], depth - 1)
        before = b","
    yield b"}"


def _prepare(modules: Sequence[Module], data: Mapping[str, Json], cache_size: int) -> tuple[dict[str, Sameness | None], str]:
    """What tells questions apart, for the entries whose answers are kept, and the digest of the data."""
    _keep_to_their_packages(modules)
    told = data_digest(data)
    kept: dict[str, Sameness | None] = {}
    for entry in (SYSCALL, CONTROL) if cache_size else ():
        read = reads(modules, entry)
        kept[entry] = Sameness(read, data) if read is not None else None
    return kept, told


def _keep_to_their_packages(modules: Sequence[Module]) -> None:
    """Refuse a tenant's module that would add to a shipped package: it could allow, or answer in its place.

    The last part of a shipped package is taken for every target: modes and scopes are kept by it.
    """
    shipped = set(axioms())
    reserved = {package[3] for module in shipped if len(package := syntax.package(parse(module))) == 4}
    owners: dict[tuple[str, ...], str] = {}
    for module in modules:
        if module in shipped:
            continue
        package = syntax.package(parse(module))
        own = len(package) == 4 and package[0] == "agentos" and package[1] in _TENANTS and package[2] == "rules"
        if not own or package[3] in reserved:
            raise PolicyError(
                f"package {'.'.join(package)} is not for a tenant's policy",
                where=f"{module.path}:1",
                mend="name it agentos.<syscall, admission or approval>.rules.<name>, with a name of its own",
            )
        # The path of a module begins with the name of its Policy. What one says in its package, another could take back there.
        policy = module.path.rpartition("/")[0].partition("/")[0]
        if owners.setdefault(package, policy) != policy:
            raise PolicyError(
                f"package {'.'.join(package)} belongs to policy {owners[package]}",
                where=f"{module.path}:1",
                mend="give the rules of each Policy a package of their own",
            )
