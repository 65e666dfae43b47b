"""Metrics: counts of what the guard did, summed over a machine's processes, for Prometheus."""
