"""Soaks: what no test has the time for, and `scripts/soak` runs in full."""
