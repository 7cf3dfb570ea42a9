"""Adapters: one file per driver or provider; the only place where their SDKs are imported."""
