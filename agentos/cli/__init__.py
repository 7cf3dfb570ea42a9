"""The command line: one file per verb group, each of which parses, asks, prints and gives the exit code.

`main` registers them (`agentos VERB --help` explains each), `command` asks the runtime, `render` lays answers out for people.
"""
