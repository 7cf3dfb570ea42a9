"""Where values are kept: one module per kind of place; the keyring's package and the HTTP client are imported at first use."""
