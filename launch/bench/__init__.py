"""Benchmarks, and the comparison of two versions' outputs."""
