"""The checks of a tenant's Rego in a process of their own, which can be killed.

Checking compiles, and compiling evaluates: a rule that loops over a large range would hold a thread of the runtime for as long as
it likes, and no thread can be stopped. So whoever may ask for a plan could stop every tenant. A process that is late is killed.

    found = await lint_apart({"syscall": modules})

What was found clean is remembered by its digest: most plans change no policy.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final

from agentos.abi.canonical import digest_of
from agentos.abi.errors import EngineUnavailable, PolicyError
from agentos.policy.finding import Finding
from agentos.policy.lint import lint_tenant
from agentos.policy.port import Module

WITHIN_S: Final = 20.0
"""Seconds that the checks of one tenant may take; a thousand rules take about two."""

_KEPT: Final = 256
_INHERITED: Final = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "XDG_CACHE_HOME")
"""What the process needs of our environment; keys of models are none of its business."""


class Linter:
    """Runs the checks, two tenants' at a time; keeps the digests of what had no finding."""

    def __init__(self, *, within_s: float = WITHIN_S) -> None:
        self._within_s = within_s
        self._places = asyncio.Semaphore(2)
        self._clean: OrderedDict[str, None] = OrderedDict()

    async def lint(self, policies: Mapping[str, Sequence[Module]]) -> list[Finding]:
        """See `lint_tenant`. Raises PolicyError for checks that do not end in time, EngineUnavailable if none can be made."""
        asked = {target: [[module.path, module.source] for module in modules] for target, modules in policies.items() if modules}
        digest = digest_of(asked)
        if not asked or digest in self._clean:
            return []
        async with self._places:
            found = await self._apart(json.dumps(asked).encode())
        if not found:
            self._clean[digest] = None
            if len(self._clean) > _KEPT:
                self._clean.popitem(last=False)
        return found

    async def _apart(self, asked: bytes) -> list[Finding]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "agentos.policy.lint_apart",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={name: os.environ[name] for name in _INHERITED if name in os.environ},
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(self._within_s):
                answer, words = await process.communicate(asked)
        except TimeoutError as error:
            raise PolicyError(
                f"the policies could not be checked within {self._within_s:g} s",
                mend="look for a rule that loops over a large range",
            ) from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            said = words.decode("utf-8", "replace").strip().rpartition("\n")[2][:300]
            raise EngineUnavailable(f"the policies could not be checked: {said or f'exit {process.returncode}'}")
        return [Finding(**one) for one in json.loads(answer)]


def main() -> int:
    """Read `{target: [[path, source]]}` from standard input, write the findings to standard output."""
    asked = json.load(sys.stdin)
    policies = {target: [Module(path, source) for path, source in modules] for target, modules in asked.items()}
    json.dump([one.to_dict() for one in lint_tenant(policies)], sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
