"""Adapters of files: where versions are kept."""
