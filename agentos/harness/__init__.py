"""The brain: a process that proposes syscalls over the ABI and holds no privilege.

Run by the kernel as `python -I -m agentos.harness`; it speaks newline-delimited JSON-RPC on its standard input and output and
imports nothing of AgentOS but `agentos.abi`.
"""
