"""Figures of the benchmarks, each held against its reference implementation (`benchmarks/metrics.py`)."""
