"""Files of workspaces and spaces: opened without ever following a link, and every change of them kept.

`confine` opens what a path names below a folder, `walk` goes through all that is there, `guard` lets whoever waits stop a
blocking piece of work. Nothing here knows of tools, sessions or policy.
"""
