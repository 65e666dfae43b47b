"""Metrics: what the guard did, counted by all processes of a machine, for Prometheus."""

from .counts import Counts
from .metrics import Metrics, make_metrics

__all__ = ["Counts", "Metrics", "make_metrics"]
