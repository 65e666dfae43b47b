"""Audit observer: records authentications, refused requests and rate limits in the audit trail."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

from ..audit.events import SUCCESS, Event, EventName
from ..audit.trail import AuditTrail
from ..errors import (
    AccessDenied,
    AddressNotAllowed,
    AuthenticationRequired,
    CORSRefused,
    CSRFFailed,
    FreshTokenRequired,
    HTTPSRequired,
    InvalidApiKey,
    InvalidCredentials,
    InvalidRequest,
    InvalidSignature,
    InvalidToken,
    RateLimited,
    ServiceUnavailable,
    TooManyAttempts,
)
from .exchange import Exchange

_FAILED, _DENIED = EventName.AUTHENTICATION_FAILED, EventName.ACCESS_DENIED
_BY_CODE = MappingProxyType(
    {
        InvalidRequest.error_code: _FAILED,
        InvalidToken.error_code: _FAILED,
        InvalidApiKey.error_code: _FAILED,
        InvalidCredentials.error_code: _FAILED,
        TooManyAttempts.error_code: _FAILED,
        AuthenticationRequired.error_code: _DENIED,
        FreshTokenRequired.error_code: _DENIED,
        AccessDenied.error_code: _DENIED,
        AddressNotAllowed.error_code: _DENIED,
        CORSRefused.error_code: _DENIED,
        CSRFFailed.error_code: _DENIED,
        HTTPSRequired.error_code: _DENIED,
        InvalidSignature.error_code: _DENIED,
        RateLimited.error_code: EventName.RATE_LIMITED,
    }
)


class AuditObserver:
    """Records the audit events of requests: authentications and refusals.

    Args:
        trail: records the events.
        clock: seconds since the epoch.
    """

    timed = False

    def __init__(self, trail: AuditTrail, clock: Callable[[], float]) -> None:
        self._trail = trail
        self._repeats = trail.repeats
        self._clock = clock

    def note_exchange(self, exchange: Exchange, status: str) -> None:
        """Record an exchange's authentication and its refusal, if any."""
        if self._repeats.pending:
            self._trail.record_due()
        proved, refusal = exchange.proved_identity, exchange.refusal
        if proved is not None:
            self._record(EventName.AUTHENTICATED, SUCCESS, exchange)
        if refusal is None:
            return
        code = refusal.error_code
        name = _BY_CODE.get(code)
        if name is None and code == ServiceUnavailable.error_code:
            # The credential could not be verified, so it authenticated nobody.
            name = _FAILED if exchange.scheme is not None and proved is None else None
        if name is not None and not (name is _FAILED and exchange.failure_audited):
            self._record(name, code, exchange)

    def note_shadow_refusal(self, limit: str) -> None:
        """Do nothing: shadow limits have no audit event."""

    def _record(self, name: EventName, outcome: str, exchange: Exchange) -> None:
        if not self._trail.is_heard(name):
            return
        proved, policy = exchange.proved_identity, exchange.policy
        self._trail.record_event(
            Event(
                name,
                self._clock(),
                outcome,
                exchange.request_id,
                exchange.claimed_subject if proved is None else proved.subject,
                exchange.scheme if proved is None else proved.scheme,
                exchange.client.address,
                exchange.method,
                None if policy is None else policy.route,
                None if proved is None else proved.credential_id,
            ),
            exchange.client.key,
        )
