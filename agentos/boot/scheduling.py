"""The scheduler in the runtime: what is declared put in force for those who wait, and the verb that shows them."""

from __future__ import annotations

from agentos.boot.configuration import Configurations
from agentos.control.principal import Handlers
from agentos.control.sched_verbs import SchedVerbs
from agentos.kernel.admission import Admissions


def arbitrate(admissions: Admissions, configurations: Configurations) -> None:
    """Have what waits arbitrated as the revision in force says, for every tenant."""
    for tenant in configurations.tenants:
        admissions.declare(tenant, configurations.current(tenant).arbitration)


def sched_handlers(admissions: Admissions, configurations: Configurations) -> Handlers:
    """The verbs about arbitration. A tenant is shown the endpoints that it has or was lent, and its own tools."""

    def visible(tenant: str) -> frozenset[str]:
        arbitration = configurations.current(tenant).arbitration
        models = {"/".join(endpoint.key) for endpoint in arbitration.endpoints.values()}
        return frozenset(models | {f"{tenant}/{name}" for name in arbitration.tool_limits})

    return SchedVerbs(admissions.snapshot, visible).handlers()
