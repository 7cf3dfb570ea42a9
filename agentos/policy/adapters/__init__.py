"""Policy engines. `embedded` is OPA inside the process; `opa` is the only module that touches its library."""
