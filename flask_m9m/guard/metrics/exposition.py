"""Exposition: the metrics' names, help texts and labels, in the Prometheus text format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from . import metrics as m

CONTENT_TYPE = CONTENT_TYPE_LATEST

_FAMILIES = {
    m.REQUESTS: ("m9m_requests", "Requests by outcome.", ("outcome", "code", "status")),
    m.AUTHENTICATIONS: (
        "m9m_authentications",
        "Credentials verified or rejected, by scheme and result.",
        ("scheme", "result"),
    ),
    m.RATE_LIMITED: ("m9m_rate_limited", "Requests that a rate limit refused.", ("limit",)),
    m.SHADOW_LIMITED: (
        "m9m_rate_limit_shadow",
        "Requests that a shadow limit would have refused.",
        ("limit",),
    ),
    m.LOCKOUTS: ("m9m_lockouts", "Requests refused after too many wrong credentials.", ()),
    m.STORE_FAILURES: (
        "m9m_store_failures",
        "Failures of the stores of rate_limits and attempts; requests refused because the "
        "database failed.",
        ("store",),
    ),
}


def expose(totals: Mapping[str, int]) -> bytes:
    """Write all counts in the Prometheus text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(totals))
    return generate_latest(registry)


class _Collected(Collector):
    def __init__(self, totals: Mapping[str, int]) -> None:
        self._totals = totals

    def collect(self) -> Iterator[Metric]:
        families = {
            name: CounterMetricFamily(title, text, labels=labels)
            for name, (title, text, labels) in _FAMILIES.items()
        }
        families[m.LOCKOUTS].add_metric((), self._totals.get(m.LOCKOUTS, 0))
        for key, value in sorted(self._totals.items()):
            name, *labels = key.split(m.SEPARATOR)
            family = families.get(name)
            if family is not None and labels and len(labels) == len(_FAMILIES[name][2]):
                family.add_metric(labels, value)
        yield from families.values()
        yield self._histogram()

    def _histogram(self) -> Metric:
        buckets, count = [], 0
        titles = [*(str(bound / 1e9) for bound in m.BOUNDS), "+Inf"]
        for key, title in zip(m.BUCKETS, titles, strict=True):
            count += self._totals.get(key, 0)
            buckets.append((title, count))
        spent = self._totals.get(m.GUARD_SUM, 0) / 1e9
        text = "Time spent in the guard on each request."
        return HistogramMetricFamily("m9m_guard_seconds", text, buckets=buckets, sum_value=spent)
