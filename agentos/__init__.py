"""AgentOS: a declarative, policy driven runtime for fleets of AI agents.

The rooms (packages), from the bottom up: `abi` (the nouns), `eventlog`, `projections`, `policy` and
`drivers`, `manifests`, `registry`, `kernel`, `harness` and `audit`, `control`, `boot`, `cli`.
A room imports only rooms below it; `ARCHITECTURE.md` draws them and import-linter checks them.
"""

__version__ = "0.1.0"
