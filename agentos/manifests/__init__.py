"""Manifests: YAML with positions, JSON Schema, references. What comes out is sound; what is not is told with file, line and mend.

>>> from agentos.manifests import load
>>> loaded = load(["-"], stdin=b"{apiVersion: agentos/v1, kind: Tenant, metadata: {name: acme}}")
>>> loaded.resources[0].spec["limits"]
{'sessions': 100}
>>> print(load(["-"], stdin=b"{apiVersion: agentos/v1, kind: Tenent, metadata: {name: acme}}").faults[0])
-:1:32: kind: unknown kind "Tenent"; did you mean Tenant?
"""

from agentos.manifests.agreement import CheckPlay
from agentos.manifests.compose import Limits
from agentos.manifests.fault import Fault
from agentos.manifests.load import Loaded, check_references, load, validate_resource
from agentos.manifests.position import Position
from agentos.manifests.rego import CheckPolicies, Finding

__all__ = [
    "CheckPlay",
    "CheckPolicies",
    "Fault",
    "Finding",
    "Limits",
    "Loaded",
    "Position",
    "check_references",
    "load",
    "validate_resource",
]
