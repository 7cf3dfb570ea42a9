"""Questions to the record, evidence for third parties, and its verification without a runtime.

`query` asks the read model, `evidence` exports signed packs from the log, `verify` checks a pack with a key from outside it. This
package is light on purpose: an auditor's machine loads `layout`, `verify` and the ABI, and nothing that runs agents.

>>> from agentos.audit import verify_pack
>>> from agentos.audit.keys import SigningKey
>>> report = verify_pack(b"no pack", SigningKey.from_seed(bytes(32)).public_pem)
>>> report.ok, report.faults[0].check
(False, 'container')
"""

from agentos.audit.verify import Check, Fault, Report, verify_pack

__all__ = ["Check", "Fault", "Report", "verify_pack"]
