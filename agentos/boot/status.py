"""What `agentos status` says: what the runtime is, what its guarantees rest on, and what is wrong with it at the moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentos import __version__
from agentos.abi.canonical import Json
from agentos.boot.log_report import log_report
from agentos.control.principal import Caller
from agentos.eventlog.adapters.streams import describe_streams

if TYPE_CHECKING:
    from agentos.boot.runtime import Runtime


async def status_of(runtime: Runtime, caller: Caller) -> Json:
    """The answer for the tenant of `caller` (`schemas/v1/status.json`). Raises LogUnavailable when the log cannot be asked."""
    served = runtime.tenants.get(caller.tenant)
    projected = await served.projector.status()
    behind = await served.projector.behind()
    signed = None if runtime.checkpoints is None else runtime.checkpoints.get(caller.tenant).prover.last
    report = log_report(await describe_streams(served.client), behind, None if signed is None else signed.checkpoint)
    warnings = [] if runtime.facts["sync_always"] else [f"sync: {runtime.facts['sync']}"]
    if projected.faults:
        warnings.append(f"{projected.faults} events of tenant {caller.tenant} could not be read: agentos audit rebuild")
    for model, state in (("read model", projected), ("text model", await served.wordsmith.status())):
        if state.problem is not None:
            warnings.append(f"{model}: {state.problem}")
        if state.rebuilds:
            warnings.append(f"{model}: broken and built anew, {state.rebuilds} since the start: {state.broken}")
    if runtime.checkpoints is not None:
        warnings += runtime.checkpoints.warnings(caller.tenant)
    if runtime.erasures is not None:
        warnings += await runtime.erasures.warnings(caller.tenant)
    if runtime.factory.version.startswith("none"):
        warnings.append(f"policy: {runtime.factory.version}; every syscall is denied")
    warnings += [f"policy: {trouble}" for trouble in runtime.engines.troubles()]
    if runtime.spawner.weak:
        warnings.append(f"harness: {runtime.spawner.weak}")
    if runtime.litestream is not None:
        warnings += runtime.litestream.warnings()
    return {
        "version": __version__,
        "home": str(runtime.home.root),
        "url": runtime.url,
        "log": runtime.facts["server"],
        "sync": runtime.facts["sync"],
        "sync_always": runtime.facts["sync_always"],
        "policy": runtime.factory.version,
        "tenant": caller.tenant,
        "tenants": sorted(runtime.configurations.tenants) if caller.fleet else [caller.tenant],
        "revision": runtime.configurations.current(caller.tenant).revision,
        "principal": caller.name,
        "roles": list(caller.roles),
        # How much others have at work is theirs to know.
        "sessions_running": runtime.sessions.running(None if caller.fleet else caller.tenant),
        "read_model_behind": sum(behind.values()),
        **report,
        **({"litestream": runtime.litestream.state} if runtime.litestream is not None else {}),
        "uptime_s": (runtime.timer.now_ms() - runtime.started_ms) // 1000,
        "warnings": warnings,
    }
