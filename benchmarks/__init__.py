"""`make bench`: every figure against its floor, measured in turn (A B A B …) in the same run. Writes `docs/benchmarks.md`."""
