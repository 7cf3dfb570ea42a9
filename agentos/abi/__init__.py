"""The nouns all rooms agree on: pure values, standard library only.

>>> from agentos.abi import Head, verify_chain
>>> verify_chain("s-1", [])
Head(seq=0, hash='sha256:0000000000000000000000000000000000000000000000000000000000000000')
"""

from agentos.abi.canonical import Json, NotCanonical, canonical, digest, digest_of, parse_strict
from agentos.abi.chain import GENESIS, Head
from agentos.abi.chain import verify as verify_chain
from agentos.abi.decision import Decision, Verdict, parse_decision
from agentos.abi.event import Event
from agentos.abi.ids import Clock, Random, is_name, new_id
from agentos.abi.resource import Key, Resource
from agentos.abi.syscall import Result, Syscall, ToolEffect

__all__ = [
    "GENESIS",
    "Clock",
    "Decision",
    "Event",
    "Head",
    "Json",
    "Key",
    "NotCanonical",
    "Random",
    "Resource",
    "Result",
    "Syscall",
    "ToolEffect",
    "Verdict",
    "canonical",
    "digest",
    "digest_of",
    "is_name",
    "new_id",
    "parse_decision",
    "parse_strict",
    "verify_chain",
]
