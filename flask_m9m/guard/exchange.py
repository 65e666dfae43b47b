"""Exchange: one request and its response, as the guard sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..audit.events import Circumstances
from ..auth.identity import Identity
from ..errors import M9MError
from ..http.address import Client
from ..ratelimit.gcra import Hit
from ..ratelimit.store import Want
from .marks import LimitMark, Mark
from .policy import RoutePolicy

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from werkzeug.wrappers import Response

EXCHANGE = "m9m.exchange"
IDENTITY = "m9m.identity"
CLIENT_ADDRESS = "m9m.client_address"

ON_REQUEST = "m9m_exchange"
"""The attribute of a Flask request that holds its exchange."""

NOT_LOADED = object()
"""The value of `Exchange.user` before the app's user loader is called."""


class Observer(Protocol):
    """Notes exchanges; must not block or raise.

    Attributes:
        timed: whether it reads `Exchange.guard_nanoseconds`.
    """

    @property
    def timed(self) -> bool: ...

    def note_exchange(self, exchange: Exchange, status: str) -> None:
        """Note an exchange, once, as its response goes out.

        Args:
            exchange: the exchange: `refusal`, `scheme`, `proved_identity`, `hits` and
                `guard_nanoseconds` tell how it ended.
            status: the response's status, as WSGI writes it (`200 OK`).
        """
        ...

    def note_shadow_refusal(self, limit: str) -> None:
        """Note a request that the `shadow` limit of this name would have refused."""
        ...


class Provisional(NamedTuple):
    """Tokens that a limit refunds if it does not count the response.

    Attributes:
        mark: its `count` decides.
        want: the tokens taken.
        hit: the limit's result.
        taken: when they began to be taken, in seconds of a monotonic clock.
    """

    mark: LimitMark
    want: Want
    hit: Hit
    taken: float


class Exchange:
    """One request and its response, as the guard sees them.

    Attributes:
        owner: the guard that began the exchange; compared by identity, never called.
        method: the request's method.
        origin: the request's `Origin`.
        accept: the request's `Accept`.
        client: the client's address, and the scheme and host that trusted proxies report.
        request_id: the request's id in responses and logs.
        excess: the refusal of a request that had more parts than anybody sends.
        policy: the route's policy, once it is known.
        rule: the rule of that route; compared by identity.
        admitted: whether steps 1 to 5 were taken before the route was known, for a mounted app.
        scheme: the scheme of the credential that was verified or rejected.
        claimed_subject: the subject a rejected credential names, unverified.
        proved_identity: the caller, as the credential proves it.
        identity: the caller, as the app's identity loader enriches it.
        enforced: the marks that have been enforced already.
        signed: whether a signed URL was demanded and verified.
        hits: the rate limits' results, in the order in which they were checked.
        wants: tokens still to be taken, for per-caller and per-credential limits.
        provisional: tokens that a limit refunds if it does not count the response.
        refusal: the guard's error, if it refused the request.
        refusal_fields: the header fields of that error.
        answer: the guard's own response, if it made one.
        ended: whether that response ended the request: only the app's handlers for refusals may
            change it then.
        cors_headers: the header fields of a preflight's response; `None` for other requests.
        scripted: whether a script sent the request, so that no challenge may open a dialog.
        nonce: the nonce of the response's Content-Security-Policy, if the view used one.
        wrapped: whether the WSGI wrapper will complete the response's header fields.
        failure_audited: whether the audit trail already has the rejected password.
        observed: whether the observers have noted the exchange.
        guard_nanoseconds: the time that the guard took, where an observer reads it.
        user: the object that the app's user loader returned, once it was called.
    """

    excess: M9MError | None = None
    policy: RoutePolicy | None = None
    rule: object = None
    admitted: bool = False
    scheme: str | None = None
    claimed_subject: str | None = None
    proved_identity: Identity | None = None
    identity: Identity | None = None
    enforced: frozenset[Mark] = frozenset()
    signed: bool = False
    hits: tuple[Hit, ...] = ()
    wants: tuple[Want, ...] = ()
    provisional: tuple[Provisional, ...] = ()
    refusal: M9MError | None = None
    refusal_fields: Sequence[tuple[str, str]] = ()
    answer: Response | None = None
    ended: bool = False
    cors_headers: Sequence[tuple[str, str]] | None = None
    scripted: bool = False
    nonce: str | None = None
    wrapped: bool = False
    failure_audited: bool = False
    observed: bool = False
    guard_nanoseconds: int = 0
    user: Any = NOT_LOADED

    def __init__(
        self, owner: object, environ: WSGIEnvironment, client: Client, request_id: str
    ) -> None:
        # No reference to the environ, which may refer to the exchange: without a reference cycle
        # both are freed with the request.
        self.owner = owner
        self.method: str = environ["REQUEST_METHOD"]
        self.origin: str | None = environ.get("HTTP_ORIGIN")
        self.accept: str | None = environ.get("HTTP_ACCEPT")
        self.client = client
        self.request_id = request_id

    def change_method(self, method: str) -> None:
        """Note that the app dispatches another method; limits that did not count the first may."""
        uncounted = [
            mark
            for mark in self.enforced
            if isinstance(mark, LimitMark) and not mark.counts(self.method)
        ]
        self.enforced = self.enforced.difference(uncounted)
        self.method = method

    def circumstances(self) -> Circumstances:
        """Describe the request for the audit trail."""
        proved, policy = self.proved_identity, self.policy
        return Circumstances(
            self.request_id,
            None if proved is None else proved.subject,
            None if proved is None else proved.scheme,
            self.client.address,
            self.method,
            None if policy is None else policy.route,
        )
