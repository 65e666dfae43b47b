"""Response headers: security, CORS, rate-limit, caching and `Vary` fields of every response."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..http.cors import PREFLIGHT_VARY, RESPONSE_FIELDS
from ..http.headers import HeaderFields, merge_vary, private_cache_control
from ..ratelimit.gcra import Hit
from .exchange import Exchange
from .policy import ERROR_VARY, SHARED_CACHE_FIELDS, RoutePolicy
from .request_ids import HEADER

_NO_STORE = ("Cache-Control", "no-store")
_REPLACED = frozenset(("vary", "cache-control", HEADER.lower()))
_NEVER_STORED = frozenset(("401", "403", "429"))


class ResponseHeaders:
    """Completes the header fields of responses (step 9).

    Args:
        unrouted: the policy of requests that match no route.
        credential_fields: the request fields that carry credentials.
        challenges: makes the challenges of a 401 from the app (RFC 9110 §15.5.2).
        legacy_limit_fields: whether to add `X-RateLimit-*` beside the standard fields.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        unrouted: RoutePolicy,
        *,
        credential_fields: Sequence[str],
        challenges: Callable[[Exchange], HeaderFields],
        legacy_limit_fields: bool,
        clock: Callable[[], float],
    ) -> None:
        self._unrouted = unrouted
        self._credential_fields = tuple(credential_fields)
        self._challenges = challenges
        self._legacy_limit_fields = legacy_limit_fields
        self._clock = clock

    def complete(
        self, exchange: Exchange, status: str, fields: Sequence[tuple[str, str]]
    ) -> HeaderFields:
        """Add the guard's header fields to a response's own.

        The app's own fields are kept, with three exceptions: CORS fields, which the policy alone
        sets; the request's id, which has to match the logs; and caching that would hand one
        caller's response to another.

        Args:
            exchange: the request's exchange.
            status: the response's status, as WSGI writes it (`200 OK`).
            fields: the header fields that the app set.

        Returns:
            All header fields of the response.
        """
        policy = exchange.policy or self._unrouted
        never_stored = exchange.refusal is not None or status[:3] in _NEVER_STORED
        complete = [*fields, (HEADER, exchange.request_id)]
        if exchange.cors_headers is not None:
            complete += exchange.cors_headers
        elif policy.cors is not None:
            complete += policy.cors.response_headers(exchange.origin)
        # Whether this response depends on more request fields than its route's others.
        identity = exchange.identity
        varies_more = exchange.cors_headers is not None or (
            identity is not None and not policy.authenticators
        )
        if never_stored or varies_more or exchange.nonce is not None:
            complete += self._unusual(exchange, policy, status, varies_more)
        else:
            complete += policy.secure_fields if exchange.client.secure else policy.plain_fields
        if exchange.hits:
            self._add_limits(complete, exchange.hits)
        if never_stored or ((identity is not None or exchange.signed) and not policy.cacheable):
            complete.append(_NO_STORE)
        contested = policy.contested
        for name, _ in fields:
            if name.lower() in contested:
                ours = complete[len(fields) :]
                return _merge(fields, ours, policy.cors is not None, never_stored)
        return complete

    def _unusual(
        self, exchange: Exchange, policy: RoutePolicy, status: str, varies_more: bool
    ) -> HeaderFields:
        """Make security headers, challenges and `Vary` where they differ from the policy's."""
        unusual: HeaderFields = []
        if policy.headers is not None:
            security = policy.headers.secure if exchange.client.secure else policy.headers.plain
            nonce = exchange.nonce
            unusual += security if nonce is None else policy.headers.with_nonce(security, nonce)
        refusal = exchange.refusal
        if refusal is not None and status.startswith(str(refusal.code)):
            unusual += exchange.refusal_fields
        elif status.startswith("401"):
            unusual += self._challenges(exchange)
        if varies_more:
            unusual.append(("Vary", merge_vary(self._vary(exchange, policy))))
        else:
            unusual += policy.vary_fields if refusal is None else policy.refusal_vary_fields
        return unusual

    def _add_limits(self, complete: HeaderFields, hits: Sequence[Hit]) -> None:
        tightest = hits[0]
        if len(hits) == 1:
            complete += (tightest.limit.policy_field, ("RateLimit", tightest.item))
        else:
            tightest = min(hits, key=_tightness)
            complete += (
                ("RateLimit-Policy", ", ".join([hit.limit.policy_item for hit in hits])),
                ("RateLimit", ", ".join([hit.item for hit in hits])),
            )
        if self._legacy_limit_fields:
            complete += (
                tightest.limit.legacy_field,
                ("X-RateLimit-Remaining", str(tightest.remaining)),
                ("X-RateLimit-Reset", str(int(self._clock()) + tightest.full_after)),
            )

    def _vary(self, exchange: Exchange, policy: RoutePolicy) -> list[str]:
        """List the request fields on which this response depends."""
        vary = list(policy.vary)
        if exchange.identity is not None:
            vary += self._credential_fields
        if exchange.cors_headers is not None:
            vary += PREFLIGHT_VARY
        if exchange.refusal is not None:
            vary += ERROR_VARY
        return vary


def _merge(
    fields: Sequence[tuple[str, str]], ours: HeaderFields, cors: bool, never_stored: bool
) -> HeaderFields:
    """Merge a response's own fields with the guard's where both have the same name."""
    replaced = _REPLACED.intersection(name.lower() for name, _ in ours)
    if cors:
        replaced |= RESPONSE_FIELDS
    if "cache-control" in replaced:
        replaced |= SHARED_CACHE_FIELDS
    merged = [field for field in fields if field[0].lower() not in replaced]
    present = {name.lower() for name, _ in merged}
    for name, value in ours:
        lower = name.lower()
        if lower in present:
            continue
        if lower == "vary":
            value = merge_vary([*_values(fields, lower), value])
        elif lower == "cache-control" and not never_stored:
            own = ", ".join(_values(fields, lower))
            value = private_cache_control(own or ("private" if "expires" in present else None))
        merged.append((name, value))
    return merged


def _tightness(hit: Hit) -> tuple[bool, int]:
    return hit.admitted, hit.remaining


def _values(fields: Sequence[tuple[str, str]], name: str) -> list[str]:
    return [value for field, value in fields if field.lower() == name]
