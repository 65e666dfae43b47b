"""Observers: what is told of each exchange, once, as its answer goes out."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Protocol

from .exchange import Exchange
from .guard import FindRoute, Guard
from .policy import RoutePolicy
from .sealing import Headers

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

logger = logging.getLogger("flask_m9m")


class Observer(Protocol):
    """Whoever wants to know what became of requests; it neither waits nor raises."""

    def ended(self, exchange: Exchange, status: str) -> None:
        """Take note of an exchange: `refusal`, `tried`, `proved`, `hits` and `spent` say it all.

        Args:
            exchange: the exchange.
            status: its answer's, as WSGI writes it (`200 OK`).
        """
        ...

    def tried_out(self, limit: str) -> None:
        """Take note of a request that a limit with `shadow` would have refused."""
        ...


class ObservedGuard(Guard):
    """A guard with observers.

    Args:
        args: as for `Guard`.
        observers: whom it tells.
        options: as for `Guard`.
    """

    def __init__(self, *args: Any, observers: Collection[Observer], **options: Any) -> None:
        super().__init__(*args, **options)
        self._observers = tuple(observers)
        self._unobserved_seal, self.seal = self.seal, self._seal
        self.limits.trials.observers = [one.tried_out for one in self._observers]

    def _seal(self, exchange: Exchange, status: str, fields: Sequence[tuple[str, str]]) -> Headers:
        sealed = self._unobserved_seal(exchange, status, fields)
        self._tell(exchange, status)
        return sealed

    def _tell(self, exchange: Exchange, status: str) -> None:
        if exchange.told:  # the head may be written again, over one that was not sent
            return
        exchange.told = True
        for observer in self._observers:
            try:
                observer.ended(exchange, status)
            except Exception:
                logger.exception("an observer failed")


class TimedGuard(ObservedGuard):
    """A guard with observers that takes the time that it needs itself: `exchange.spent`."""

    def receive(
        self,
        exchange: Exchange,
        environ: WSGIEnvironment,
        policy: RoutePolicy,
        find_route: FindRoute,
    ) -> None:
        """Take a request in, before any credential is looked at."""
        begun = perf_counter_ns()
        try:
            super().receive(exchange, environ, policy, find_route)
        finally:
            exchange.spent += perf_counter_ns() - begun

    def authorize(self, exchange: Exchange, environ: WSGIEnvironment, policy: RoutePolicy) -> None:
        """Hold a request to what its route demands."""
        begun = perf_counter_ns()
        try:
            super().authorize(exchange, environ, policy)
        finally:
            exchange.spent += perf_counter_ns() - begun

    def _seal(self, exchange: Exchange, status: str, fields: Sequence[tuple[str, str]]) -> Headers:
        begun = perf_counter_ns()
        sealed = self._unobserved_seal(exchange, status, fields)
        exchange.spent += perf_counter_ns() - begun
        self._tell(exchange, status)
        return sealed
