"""Sandboxes: where the processes of tools work, and what of the machine they see.

`profile` is what a Sandbox declares, `port` what whoever starts a process is given. How a process is set apart is an adapter's:
namespaces and a system call filter (`bubblewrap`), a container, or not at all (`unsafe-none`), and then that is said each time.
"""
