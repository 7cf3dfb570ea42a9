"""The way out: HTTP of tools, asked about, pinned to the address that was looked at, and never to a private network by itself.

`asking` is what a request looks like to whoever decides about it. Nothing here decides: the kernel does, by policy.
"""
