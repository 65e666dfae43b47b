"""Exchange: one request and its answer, as the guard sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .address import Client
from .audit import Circumstances
from .errors import M9MError
from .identity import Identity
from .marks import LimitMark, Mark
from .policy import RoutePolicy
from .ratelimit import Hit, Want

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from werkzeug.wrappers import Response

EXCHANGE = "m9m.exchange"
IDENTITY = "m9m.identity"
CLIENT_ADDRESS = "m9m.client_address"


ON_REQUEST = "m9m_exchange"
"""The attribute by which a request has its exchange."""

NOT_LOADED = object()


class Provisional(NamedTuple):
    """Tokens that the answer may give back.

    Attributes:
        mark: whose `count` decides.
        want: what was taken.
        hit: what came of it.
        taken: when, in seconds since the epoch.
    """

    mark: LimitMark
    want: Want
    hit: Hit
    taken: float


class Exchange:
    """One request and its answer, as the guard sees them.

    Attributes:
        owner: the guard that began the exchange; compared by identity, never called.
        origin: the request's `Origin`.
        accept: the request's `Accept`.
        client: where the request came from.
        request_id: its name in answers and logs.
        policy: what the route demands, once it is known.
        identity: who is calling, once that is proved, as the app enriches it.
        proved: the same as the credential says.
        enforced: the marks that have been enforced already.
        signed: whether it came by a signed URL that its route, or a view on the way, demands.
        hits: what the rate limits said, in the order in which they were asked.
        owed: what limits by caller want, those of the credential too, and was not taken yet.
        provisional: what was taken and the answer may give back.
        refusal: the guard's error, if it raised one.
        refusal_fields: what belongs on the head of the answer to it.
        answer: the guard's own answer, if it gave one.
        ended: whether that ended the request, so that nothing else may be made of it than what
            the app's handlers for refusals make.
        cors_headers: what a preflight is told; `None` for any other request.
        scripted: whether a script of a page asks, and not a person who could be prompted.
        nonce: of the answer's Content-Security-Policy, if the view asked for one.
        sealed_later: whether the WSGI wrapper is around to seal the answer.
        tried: the scheme of the credential that was judged, if one was.
        claimed: who presented it, as it says itself, where it was refused.
        noted: whether the audit trail knows already that a password was refused.
        method: the request's.
        spent: nanoseconds that the guard took, where somebody observes it.
        told: whether the observers have been told how it ended.
        user: what the app's user loader returned, once it has been asked.
    """

    policy: RoutePolicy | None = None
    identity: Identity | None = None
    proved: Identity | None = None
    enforced: frozenset[Mark] = frozenset()
    signed: bool = False
    hits: tuple[Hit, ...] = ()
    owed: tuple[Want, ...] = ()
    provisional: tuple[Provisional, ...] = ()
    refusal: M9MError | None = None
    refusal_fields: Sequence[tuple[str, str]] = ()
    answer: Response | None = None
    ended: bool = False
    cors_headers: Sequence[tuple[str, str]] | None = None
    scripted: bool = False
    nonce: str | None = None
    sealed_later: bool = False
    tried: str | None = None
    claimed: str | None = None
    noted: bool = False
    spent: int = 0
    told: bool = False
    user: Any = NOT_LOADED

    def __init__(
        self, owner: object, environ: WSGIEnvironment, client: Client, request_id: str
    ) -> None:
        # It does not hold the environ, which may hold it: both go when the request does.
        self.owner = owner
        self.method: str = environ["REQUEST_METHOD"]
        self.origin: str | None = environ.get("HTTP_ORIGIN")
        self.accept: str | None = environ.get("HTTP_ACCEPT")
        self.client = client
        self.request_id = request_id

    def circumstances(self) -> Circumstances:
        """Return what the audit trail says of the request."""
        proved, policy = self.proved, self.policy
        return Circumstances(
            self.request_id,
            None if proved is None else proved.subject,
            None if proved is None else proved.scheme,
            self.client.address,
            self.method,
            None if policy is None else policy.route,
        )
