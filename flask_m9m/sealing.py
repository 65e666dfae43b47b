"""Sealing: step 9, what every answer carries, whoever made it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .cors import PREFLIGHT_VARY, RESPONSE_FIELDS
from .exchange import Exchange
from .headers import merge_vary, private_cache_control
from .policy import RoutePolicy
from .ratelimit import Hit

Headers = list[tuple[str, str]]


class Seal:
    """Puts on an answer's head what belongs there.

    Args:
        unrouted: the policy of answers that no route made.
        credential_fields: the request fields that credentials come in.
        challenges: what a 401 that is not the guard's is given (RFC 9110 §15.5.2).
        legacy_limit_fields: whether `X-RateLimit-*` stand beside the standard fields.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        unrouted: RoutePolicy,
        *,
        credential_fields: Sequence[str],
        challenges: Headers,
        legacy_limit_fields: bool,
        clock: Callable[[], float],
    ) -> None:
        self._unrouted = unrouted
        self._credential_fields = tuple(credential_fields)
        self._challenges = challenges
        self._legacy_limit_fields = legacy_limit_fields
        self._clock = clock

    def __call__(
        self, exchange: Exchange, status: str, fields: Sequence[tuple[str, str]]
    ) -> Headers:
        """Return an answer's header fields with everything that belongs on them.

        What the app set itself is kept, except CORS fields, which are the policy's alone, and
        caching that would hand one caller's answer to another.

        Args:
            exchange: the request.
            status: its answer's, as WSGI writes it (`200 OK`).
            fields: the answer's own.
        """
        policy = exchange.policy or self._unrouted
        present = {name.lower() for name, _ in fields}
        sealed = list(fields)
        _seal_cors(exchange, policy, present, sealed)
        if policy.headers is not None:
            security: Sequence[tuple[str, str]]
            security = policy.headers.secure if exchange.client.secure else policy.headers.plain
            if exchange.nonce is not None:
                security = policy.headers.with_nonce(security, exchange.nonce)
            if present.isdisjoint(policy.headers.names):
                sealed += security
            else:
                sealed += [field for field in security if field[0].lower() not in present]
        if exchange.hits and "ratelimit" not in present:
            sealed += self._limit_fields(exchange.hits)
        if exchange.refusal is not None or status.startswith("401"):
            self._restore(exchange, status, present, sealed)
        self._seal_caching(exchange, policy, status, present, sealed)
        return sealed

    def _limit_fields(self, hits: Sequence[Hit]) -> Headers:
        fields = [
            ("RateLimit-Policy", ", ".join([hit.limit.policy_item for hit in hits])),
            ("RateLimit", ", ".join([hit.item for hit in hits])),
        ]
        if self._legacy_limit_fields:
            tightest = min(hits, key=_tightness) if len(hits) > 1 else hits[0]
            fields += [
                ("X-RateLimit-Limit", str(tightest.limit.count)),
                ("X-RateLimit-Remaining", str(tightest.remaining)),
                ("X-RateLimit-Reset", str(int(self._clock()) + tightest.full_after)),
            ]
        return fields

    def _restore(self, exchange: Exchange, status: str, present: set[str], sealed: Headers) -> None:
        """Put back what an error handler dropped from a refusal; challenge every 401."""
        refusal = exchange.refusal
        if refusal is not None and status.startswith(str(refusal.code)):
            sealed += [field for field in refusal.headers if field[0].lower() not in present]
        elif status.startswith("401") and "www-authenticate" not in present:
            sealed += self._challenges

    def _seal_caching(
        self,
        exchange: Exchange,
        policy: RoutePolicy,
        status: str,
        present: set[str],
        sealed: Headers,
    ) -> None:
        vary: Sequence[str] = policy.vary
        if exchange.identity is not None and not policy.authenticators:
            vary = (*vary, *self._credential_fields)
        if exchange.cors_headers is not None:
            vary = (*vary, *PREFLIGHT_VARY)
        if vary:
            if "vary" in present:
                _replace(sealed, "Vary", merge_vary(_values(sealed, "vary"), vary))
            else:
                sealed.append(("Vary", ", ".join(vary)))
        if status[:3] in ("401", "403", "429") or exchange.refusal is not None:
            _replace(sealed, "Cache-Control", "no-store")
        elif exchange.identity is not None and not policy.cacheable:
            own = _values(sealed, "cache-control") if "cache-control" in present else []
            if "expires" in present and not own:
                own = ["private"]
            caching = private_cache_control(", ".join(own) or None)
            if own:
                _replace(sealed, "Cache-Control", caching)
            else:
                sealed.append(("Cache-Control", caching))


def _seal_cors(exchange: Exchange, policy: RoutePolicy, present: set[str], sealed: Headers) -> None:
    if policy.cors is None:
        return
    if not present.isdisjoint(RESPONSE_FIELDS):
        sealed[:] = [field for field in sealed if field[0].lower() not in RESPONSE_FIELDS]
    if exchange.cors_headers is None:
        sealed += policy.cors.response_headers(exchange.environ.get("HTTP_ORIGIN"))
    else:
        sealed += exchange.cors_headers


def _tightness(hit: Hit) -> tuple[bool, int]:
    return hit.admitted, hit.remaining


def _values(fields: Headers, name: str) -> list[str]:
    return [value for field, value in fields if field.lower() == name]


def _replace(fields: Headers, name: str, value: str) -> None:
    lower = name.lower()
    fields[:] = [field for field in fields if field[0].lower() != lower]
    fields.append((name, value))
