"""Benchmarks: programs of their own, started by `make bench-…`. The product imports nothing from here."""
