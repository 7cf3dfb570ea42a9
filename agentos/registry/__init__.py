"""Desired state: plan what has to change, apply it as one revision, go back to an earlier one.

>>> from agentos.abi import Key, Resource
>>> from agentos.registry import State
>>> from agentos.registry.plan import plan
>>> fast = Resource(Key("Model", "default", "fast"), {}, {}, {"provider": "scripted", "scripted": {"play": {}}})
>>> [str(change.action) for change in plan(State.empty(), [fast]).changes]
['create']
"""

from agentos.registry.apply import Allow, Applied, Applier, Proposal
from agentos.registry.plan import Action, Change, Plan
from agentos.registry.principal import Principal, Principals
from agentos.registry.revision import Revision
from agentos.registry.selector import Selector
from agentos.registry.state import Entry, State
from agentos.registry.store import Registry

__all__ = [
    "Action",
    "Allow",
    "Applied",
    "Applier",
    "Change",
    "Entry",
    "Plan",
    "Principal",
    "Principals",
    "Proposal",
    "Registry",
    "Revision",
    "Selector",
    "State",
]
