"""Benchmarks of daplake. `benches/run.py` is the command; docs/development/benchmarks.md explains the results."""
