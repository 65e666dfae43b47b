"""Prometheus metrics: counts of the guard's decisions, summed over a machine's processes."""
