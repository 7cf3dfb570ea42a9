"""Adapters of this room: one vendor or mechanism each."""
