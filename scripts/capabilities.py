"""Write what a policy may use of OPA: `python scripts/capabilities.py [OPA]` makes `policies/capabilities.json` anew.

It is what the pinned `opa` can do, without the builtins that lint and engines refuse (`agentos.policy.syntax.UNSTEADY`), and
without the network: `opa check --capabilities policies/capabilities.json` then refuses the same as `agentos policy check`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from agentos.policy.adapters.opa_program import find_opa
from agentos.policy.syntax import UNSTEADY

TARGET = Path(__file__).resolve().parents[1] / "policies" / "capabilities.json"


def capabilities(program: Path) -> str:
    """The text of the file, as the program `opa` says it."""
    done = subprocess.run([program, "capabilities", "--current"], capture_output=True, text=True, timeout=30, check=True)
    told = json.loads(done.stdout)
    told["builtins"] = [builtin for builtin in told["builtins"] if builtin["name"] not in UNSTEADY]
    told["allow_net"] = []
    return json.dumps(told, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    TARGET.write_text(capabilities(find_opa(Path(sys.argv[1]) if len(sys.argv) > 1 else None)), encoding="utf-8")
