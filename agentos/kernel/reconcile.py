"""What came of a call whose outcome was lost: told by a person, or by the tool itself.

A Tool may declare that its server can tell (`driver.mcp.reconcile`). Then the runtime asks it, once the loss is recorded: by the
same key that the call went out with, so that the server finds it in its own books. What it answers is recorded as
`syscall.reconciled` by `system/reconcile`, in the words of the server; while it does not know, the outcome stays unknown, and a
person finds out. A call that a fork inherited is another session's, under another key: nobody is asked about it.
"""

from __future__ import annotations

import logging
from typing import Final

from agentos.abi import event as ev
from agentos.abi.canonical import Json, NotCanonical, canonical
from agentos.abi.errors import DriverError, TooLarge
from agentos.abi.syscall import Result
from agentos.drivers.port import CallContext, Driver, Outcome, ToolSpec, can_reconcile
from agentos.kernel import hands, obligations
from agentos.kernel.journal import Journal
from agentos.kernel.port import Configuration
from agentos.kernel.provenance import outcome_labels
from agentos.kernel.workspace import Workspaces
from agentos.projections.session import Call, SessionState

log = logging.getLogger(__name__)

RECONCILER: Final = "system/reconcile"

MAX_REASON: Final = 4096
"""Most characters of a server's reason."""


class Reconciler:
    """Asks tools what came of lost calls."""

    def __init__(self, drivers: Driver, workspaces: Workspaces) -> None:
        self._drivers = drivers
        self._workspaces = workspaces

    async def settle(self, journal: Journal, configuration: Configuration) -> None:
        """Ask about every lost call of the session whose tool can tell, and record what is told. Raises LogUnavailable, Conflict.

        A tool that cannot be asked now, or does not know, changes nothing.
        """
        for name in sorted(journal.state.lost - journal.inherited):
            call = journal.state.calls[name]
            tool = configuration.tools.get(call.tool)
            if tool is not None and can_reconcile(tool):
                await self._ask(journal, configuration, call, tool)

    async def _ask(self, journal: Journal, configuration: Configuration, call: Call, tool: ToolSpec) -> None:
        folder = self._workspaces.path(journal.tenant, journal.session)
        profile = hands.asked_in(tool, journal.state.agent, configuration, call)
        own, lent = hands.secrets(tool, configuration), hands.lent(journal.state, configuration, call.call)
        place = CallContext(journal.tenant, journal.session, call.call, folder, profile, secrets=own, lent=lent)
        try:
            found = await self._drivers.reconcile(tool, call.args, place)
        except DriverError as error:
            # Not in its words, which are the tool's: the log of the runtime outlives an erasure.
            log.warning("session %s: what came of %s cannot be asked (%s)", journal.session, call.call, error.code)
            return
        if found is None:
            log.info("session %s: its tool does not know what came of %s", journal.session, call.call)
            return
        hidden = [one for one in obligations.binding(call, "redact", "mask") if one.fields["in"] == "result"]
        reason = obligations.withheld(hidden) if hidden else found.reason[:MAX_REASON]
        data: dict[str, Json] = {"call": call.call, "tool": call.tool, "outcome": str(found.outcome), "reason": reason}
        try:
            if found.outcome is Outcome.FINISHED:
                data["result"] = told_result(journal.state, call, configuration, found.result)
            canonical(data)
            await journal.record(
                ev.SYSCALL_RECONCILED,
                data,
                actor=RECONCILER,
                revision=configuration.revision,
                policy=configuration.policy_digest,
            )
        except (NotCanonical, TooLarge) as error:
            kind = type(error).__name__  # not its words, which may be the tool's
            log.warning("session %s: what its tool told of %s cannot be recorded (%s)", journal.session, call.call, kind)


def told_result(state: SessionState, call: Call, configuration: Configuration, text: str) -> dict[str, Json]:
    """The result of a lost call as it is told afterwards: with the labels that the tool would have put on it, and without what is
    to be withheld. Raises NotCanonical for text that cannot be recorded."""
    tool = configuration.tools.get(call.tool)
    labels = outcome_labels(tool, call.args, state.labelled) if tool is not None else ()
    in_result = [one for one in obligations.binding(call, "redact", "mask") if one.fields["in"] == "result"]
    result, _ = obligations.withhold(Result(text, labels=labels), in_result)
    return result.to_dict()
