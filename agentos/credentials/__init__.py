"""Credentials: references to secrets, leases of their values for one call, and masks for what comes back.

A value is fetched when a call that policy has allowed acts, handed to the driver at the last moment, and forgotten. It is in no
event, no argument, no error and no result.
"""
