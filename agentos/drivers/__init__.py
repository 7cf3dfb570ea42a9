"""The hands: tools act here, models answer here, and nothing here decides whether they may.

>>> from agentos.drivers import input_schema
>>> input_schema("read")["required"]
['path']

`Drivers` and `Providers` are given to the kernel; `port.py` says what a new driver or provider must keep to. Each vendor's SDK
stays in its own file under `adapters/`, imported when it is first needed.
"""

from agentos.drivers.dispatch import Drivers, Providers, model_spec, tool_spec
from agentos.drivers.port import (
    CallContext,
    Driver,
    ModelProvider,
    ModelReply,
    ModelRequest,
    ModelSpec,
    ModelUnavailable,
    ReplyBroken,
    ToolSpec,
)
from agentos.drivers.primitives import PRIMITIVES, default_effect, input_schema

__all__ = [
    "PRIMITIVES",
    "CallContext",
    "Driver",
    "Drivers",
    "ModelProvider",
    "ModelReply",
    "ModelRequest",
    "ModelSpec",
    "ModelUnavailable",
    "Providers",
    "ReplyBroken",
    "ToolSpec",
    "default_effect",
    "input_schema",
    "model_spec",
    "tool_spec",
]
