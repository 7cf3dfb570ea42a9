"""Does a program keep to the syscall ABI? Plays the kernel on its pipe, in scripted situations, and reports.

`cases` lists what is tried, `stage` is the kernel's side of one case, `suite` runs them. What the cases hold a harness to is
written in `docs/abi.md`.
"""

from agentos.conformance.cases import Case, all_cases
from agentos.conformance.process import Surroundings
from agentos.conformance.suite import Outcome, Report, Verdict, check

__all__ = ["Case", "Outcome", "Report", "Surroundings", "Verdict", "all_cases", "check"]
