"""The verbs about standing agents: what is shown, and that a switch is on record before it is done."""

from __future__ import annotations

from typing import Any

import pytest

from agentos.abi import event as ev
from agentos.abi.errors import Conflict, LogUnavailable, NotFound, UsageError
from agentos.audit.audit_chain import Entry
from agentos.control.principal import Caller
from agentos.control.supervise_verbs import SuperviseVerbs
from agentos.kernel.standing import StandingSpec
from agentos.supervisor.supervise import Judged, Kept, Phase, Run, Switches, Unit

NOW = 1_763_700_000_000
ANN = Caller("ann", ("operator",), "acme", fleet=False)
RUN = Run("s-2", "running", NOW, NOW + 5_000, turned=True)
OVER = Run("s-1", "failed", NOW - 9_000, NOW - 1_000, by="system/kernel", code="driver.model")


class Keeper:
    """A supervisor of two agents; what is switched off in its chain it lets end."""

    def __init__(self, *, full: bool = False, hangs: bool = False, enabled: bool = True) -> None:
        self.kept: list[Entry] = []
        self.full, self.hangs, self.enabled = full, hangs, enabled
        self.looks = 0

    async def append(self, decide: Any, *, actor: str, revision: int) -> None:
        assert (actor, revision) == ("principal/ann", 12)
        if self.full:
            raise LogUnavailable("no room")
        self.kept += await decide(None)

    async def look(self, tenant: str) -> dict[str, Kept]:
        assert tenant == "acme"
        self.looks += 1
        stopped = any(not data["on"] for _, data in self.kept if data["what"] == "standing") and not self.hangs
        switches = Switches(self.enabled, stopped, why="" if self.enabled else "disabled by ann")
        runs, judged = (RUN, OVER), Judged(Phase.ACTIVE, run=RUN, starts=2, failures=0)
        if stopped:
            runs, judged = (OVER,), Judged(Phase.STOPPED, "stopped by ann")
        one = Unit("watcher", StandingSpec("watch", requires=("fetcher",)), runs, switches)
        other = Unit("fetcher", StandingSpec("fetch"), ())
        return {"watcher": Kept(one, judged), "fetcher": Kept(other, Judged(Phase.RESTARTING, next_ms=NOW + 500))}

    async def tail(self, _tenant: str, session: str, events: int) -> int:
        return {"s-2": 40}[session] + events

    async def number(self, _tenant: str, _session: str) -> int:
        return 7


def verbs(keeper: Keeper) -> SuperviseVerbs:
    return SuperviseVerbs(keeper, lambda _: keeper, lambda _: 12)  # type: ignore[arg-type,return-value]


async def test_they_are_listed_by_name() -> None:
    """One that has no session says when it is tried again."""
    rows = await verbs(Keeper()).list(ANN, {})
    assert [(row["agent"], row["phase"]) for row in rows] == [("fetcher", "restarting"), ("watcher", "active")]
    assert rows[0]["next"] == "2025-11-21T04:40:00.500Z"
    assert (rows[1]["session"], rows[1]["state"], rows[1]["since"]) == ("s-2", "running", "2025-11-21T04:40:00.000Z")


async def test_the_page_of_one_says_where_its_log_ends() -> None:
    """So that its last lines are asked for, and not the whole log; what it requires stands with its phase."""
    page = await verbs(Keeper()).get(ANN, {"agent": "watcher", "events": 3})
    assert (page["shown"], page["position"], page["number"]) == ("s-2", 43, 7)
    assert page["requires"] == [{"agent": "fetcher", "phase": "restarting"}]
    ended = {"created": "2025-11-21T04:39:51.000Z", "ended": "2025-11-21T04:39:59.000Z"}
    assert page["last"] == [{"session": "s-1", "state": "failed", **ended, "by": "system/kernel", "code": "driver.model"}]
    assert "position" not in await verbs(Keeper()).get(ANN, {"agent": "fetcher"})


@pytest.mark.parametrize(
    ("verb", "switched"),
    [
        ("start", [("standing", True)]),
        ("stop", [("standing", False)]),
        ("restart", [("standing", False), ("standing", True)]),
        ("enable", [("agent", True), ("standing", True)]),
        ("disable", [("agent", False)]),
    ],
)
async def test_each_switch_is_on_record(verb: str, switched: list[tuple[str, bool]]) -> None:
    """In the audit chain, by whom and why, before anything is done."""
    keeper = Keeper()
    await getattr(verbs(keeper), verb)(ANN, {"agent": "watcher", "reason": "so"})
    expected = [(ev.AUDIT_SWITCHED, {"what": what, "name": "watcher", "on": on, "reason": "so"}) for what, on in switched]
    assert keeper.kept == expected
    full = Keeper(full=True)
    with pytest.raises(LogUnavailable):
        await getattr(verbs(full), verb)(ANN, {"agent": "watcher", "reason": "so"})


async def test_one_that_is_disabled_now_is_stopped_as_well() -> None:
    """Both stand in the chain together."""
    keeper = Keeper()
    page = await verbs(keeper).disable(ANN, {"agent": "watcher", "reason": "so", "now": True})
    assert [(data["what"], data["on"]) for _, data in keeper.kept] == [("agent", False), ("standing", False)]
    assert page["phase"] == "stopped"


async def test_a_restart_waits_for_the_end_of_the_session() -> None:
    """One that does not end is followed by no other: it stays stopped, and whoever asked is told."""
    keeper = Keeper(hangs=True)
    with pytest.raises(Conflict, match="has not ended yet"):
        await verbs(keeper).restart(ANN, {"agent": "watcher", "reason": "so"})
    assert [data["on"] for _, data in keeper.kept] == [False]


async def test_what_is_disabled_is_not_started() -> None:
    """It has to be enabled first; nothing is recorded."""
    keeper = Keeper(enabled=False)
    for verb in ("start", "restart"):
        with pytest.raises(Conflict, match="disabled by ann"):
            await getattr(verbs(keeper), verb)(ANN, {"agent": "watcher", "reason": "so"})
    assert keeper.kept == []


@pytest.mark.parametrize("verb", ["get", "start", "stop", "restart", "enable", "disable"])
async def test_what_does_not_stand_is_not_found(verb: str) -> None:
    """The ones that do are named; odd names and odd parameters are refused."""
    params = {"agent": "ghost"} | ({} if verb == "get" else {"reason": "so"})
    keeper = Keeper()
    with pytest.raises(NotFound) as caught:
        await getattr(verbs(keeper), verb)(ANN, dict(params))
    assert "fetcher, watcher" in (caught.value.mend or "")
    with pytest.raises(NotFound):
        await getattr(verbs(keeper), verb)(ANN, params | {"agent": "../x"})
    with pytest.raises(UsageError):
        await getattr(verbs(keeper), verb)(ANN, params | {"more": 1})
    assert keeper.kept == []
