"""The guard: the one pipeline that every request and every answer passes, free of frameworks.

A binding makes an `Exchange` for each request, calls `Guard.receive` (steps 1 to 4: address,
networks, preflight, rate limit by address) before anything else can end the request,
`Guard.authorize` (steps 5 to 7: authentication, rate limits by identity and route,
authorisation) before the view, and `Guard.seal` (step 9) on the head of whatever answer
comes out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from werkzeug.wrappers import Response
from werkzeug.wsgi import get_current_url, get_host

from .address import AddressResolver, Networks, ProxyHeader, is_host
from .auth import Authenticator, Identities, challenges, csrf
from .cors import is_preflight
from .errors import (
    AccessDenied,
    AddressNotAllowed,
    Answered,
    AuthenticationRequired,
    CORSRefused,
    ErrorFormat,
    HTTPSRequired,
    InvalidCredentials,
    InvalidRequest,
    InvalidSignature,
    LimitsUnavailable,
    M9MError,
)
from .exchange import IDENTITY, Exchange
from .identity import Identity
from .limits import Limits, client_key, limited
from .marks import Mark
from .policy import Access, PolicyCompiler, RouteLimit, RoutePolicy
from .ratelimit import LimitStore, StoreFailure, Want
from .request_ids import REQUEST_ID, request_id_of
from .sealing import Seal, Sealing
from .settings import Settings
from .sightings import Sightings
from .signing import Links

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

logger = logging.getLogger("flask_m9m")

FindRoute = Callable[[str], tuple[RoutePolicy, Collection[str] | None]]
"""Given a method, return the policy of the route that would answer it at this path, and the
methods that the path supports; `None` where no route answers there."""


class Guard:
    """One app's rules, compiled.

    Args:
        settings: the app's.
        identities: what knows who calls.
        store: where rate limits are counted.
        sightings: notes forwarding fields of peers that are not trusted.
        response_class: what answers are made of.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        settings: Settings,
        identities: Identities,
        store: LimitStore,
        sightings: Sightings,
        *,
        response_class: type[Response] = Response,
        clock: Callable[[], float] = time.time,
    ) -> None:
        server, security = settings.server, settings.security
        self.settings = settings
        self._response_class = response_class
        self._https = server.https
        self.links = Links(security.jwt, clock)
        self.resolver = AddressResolver(
            server.trusted_proxies,
            header=ProxyHeader(server.proxy_headers),
            ipv6_prefix=settings.performance.rate_limit.ipv6_prefix,
            trust_forwarded_host=server.trust_forwarded_host,
        )
        self.store = store
        self.sightings = sightings
        self._declared = identities.declared
        self._load = identities.load
        self._lockout = identities.lockout
        self.authenticators = identities.authenticators
        self._any_ambient = any(one.ambient for one in self.authenticators)
        self.policies = PolicyCompiler(settings, self.authenticators)
        networks = server.allowed_networks
        self._networks = Networks(networks) if networks else None
        self._realm = security.basic_auth.realm
        self._error_format = security.errors.format
        limiting = settings.performance.rate_limit
        self.limits = Limits(limiting, store, clock)
        general, by_address = self.limits.general, limiting.key == "address"
        self._address_limit = general if by_address and not limiting.shadow else None
        self._identity_limit = None if by_address else general
        self._shadow_address_limit = general if by_address and limiting.shadow else None
        self._shadow = limiting.shadow
        self.seal: Sealing = Seal(
            self.policies.unrouted(),
            credential_fields=("Authorization", "Cookie", security.api_keys.header),
            challenges=partial(self._challenges, AuthenticationRequired(), self.authenticators),
            legacy_limit_fields=limiting.legacy_headers,
            clock=clock,
        )

    def prepare(self) -> None:
        """Before the first request: look at what it will need.

        Raises:
            SettingsError: it is not safe to use.
        """
        if self.limits.general is not None:
            self.store.prepare([self.limits.general])

    def begin(self, environ: WSGIEnvironment) -> Exchange:
        """Begin the exchange of a request, whatever went on with this environ before."""
        client = self.resolver.resolve(environ)
        self.sightings.look(environ, client)
        request_id = environ[REQUEST_ID] = request_id_of(environ, client.forwarded)
        exchange = Exchange(self, environ, client, request_id)
        if self._any_ambient:
            exchange.scripted = environ.get("HTTP_SEC_FETCH_MODE", "navigate") != "navigate"
        return exchange

    # Steps 1 to 4

    def receive(
        self,
        exchange: Exchange,
        environ: WSGIEnvironment,
        policy: RoutePolicy,
        find_route: FindRoute,
    ) -> None:
        """Take a request in, before any credential is looked at.

        Args:
            exchange: the request's.
            environ: the request.
            policy: what the route that answers it demands.
            find_route: asked only for a preflight.

        Raises:
            M9MError: the request ends here.
        """
        exchange.policy = policy
        client = exchange.client
        if self._networks is not None and not self._networks.contains(client.address):
            self.refuse(exchange, AddressNotAllowed())
        if self._https != "off" and not client.secure:
            self._insist_on_https(exchange, environ)
        if environ["REQUEST_METHOD"].upper() == "OPTIONS" and is_preflight(environ):
            self._answer_preflight(exchange, environ, find_route)
        if self._address_limit is not None and not policy.unlimited:
            try:
                hit = self.store.hit(self._address_limit, client.key)
            except StoreFailure:
                hit = None
            if hit is None:  # refused out here, so that no error holds the frames of another
                self.refuse(exchange, LimitsUnavailable())
            exchange.hits = (hit,)
            if not hit.admitted:
                self.refuse(exchange, limited(hit))
        elif self._shadow_address_limit is not None and not policy.unlimited:
            self.limits.try_out(Want(self._shadow_address_limit, client.key))

    def _insist_on_https(self, exchange: Exchange, environ: WSGIEnvironment) -> NoReturn:
        redirect = self._https == "redirect"
        if not redirect or environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            self.refuse(exchange, HTTPSRequired())
        host = exchange.client.host or get_host(environ)
        if not is_host(host):
            self.refuse(exchange, HTTPSRequired())
        path = get_current_url(environ).split("/", 3)[3]
        headers = {"Location": f"https://{host}/{path}", "Cache-Control": "no-store"}
        self._answer(exchange, self._response_class(status=308, headers=headers))

    def _answer(self, exchange: Exchange, answer: Response) -> NoReturn:
        """End a request with an answer that is no refusal."""
        exchange.answer = answer
        raise Answered(answer)

    def _answer_preflight(
        self, exchange: Exchange, environ: WSGIEnvironment, find_route: FindRoute
    ) -> None:
        method = environ["HTTP_ACCESS_CONTROL_REQUEST_METHOD"]
        policy, route_methods = find_route(method)
        if policy.cors is None:
            return  # an OPTIONS like any other
        exchange.policy = policy
        exchange.cors_headers = ()
        try:
            exchange.cors_headers = policy.cors.preflight(
                environ["HTTP_ORIGIN"],
                method,
                environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS"),
                route_methods,
            )
        except CORSRefused as refusal:
            self.refuse(exchange, refusal)
        answer = self._response_class(status=204)
        del answer.headers["Content-Type"]
        self._answer(exchange, answer)

    # Steps 5 to 7

    def authorize(self, exchange: Exchange, environ: WSGIEnvironment, policy: RoutePolicy) -> None:
        """Hold a request to what its route demands.

        Raises:
            M9MError: the request ends here.
        """
        general = self._identity_limit is not None and not policy.unlimited
        try:
            identity = self._identify(exchange, environ, policy)
        except M9MError:
            if general:
                self._owe_general(exchange)
                self._take(exchange)
            raise
        if general:
            self._owe_general(exchange)
        if policy.demanding:
            self._hold(exchange, environ, policy, identity)
        else:
            if exchange.owed:
                self._take(exchange)
            exchange.enforced = policy.marks

    def enforce(self, exchange: Exchange, environ: WSGIEnvironment, mark: Mark, view: str) -> None:
        """Hold a request to one mark, where the way to the view led past its route's policy."""
        if mark not in exchange.enforced:
            route = exchange.policy.route if exchange.policy is not None else ""
            method = environ["REQUEST_METHOD"].upper()
            policy = self.policies.for_mark(mark, f"{route}>{view}", method)
            identity = self._identify(exchange, environ, policy)
            self._hold(exchange, environ, policy, identity)

    def _hold(
        self,
        exchange: Exchange,
        environ: WSGIEnvironment,
        policy: RoutePolicy,
        identity: Identity | None,
    ) -> None:
        if policy.limits or exchange.owed:
            self._take(exchange, policy.limits)
        for requirement in policy.requirements:
            error = requirement.unmet_by(identity)
            if error is not None:
                self.refuse(exchange, error)
        for signature in policy.signatures:
            if not self.links.admits(environ, signature.purpose):
                self.refuse(exchange, InvalidSignature())
            exchange.signed = True
        exchange.enforced |= policy.marks

    def _identify(
        self, exchange: Exchange, environ: WSGIEnvironment, policy: RoutePolicy
    ) -> Identity | None:
        if not policy.authenticators:
            return None
        known = exchange.identity
        if known is not None and any(one.scheme == known.scheme for one in policy.authenticators):
            return known
        presented = 0
        for one in policy.authenticators:
            found = None if one.fallback and presented else one.find(environ)
            if found is not None:
                presented += 1
                authenticator, credential = one, found
        if presented != 1:
            self._without_one(exchange, environ, policy, several=presented > 1)
            return None
        exchange.tried = authenticator.scheme
        try:
            identity, loaded = authenticator.authenticate(credential, exchange.client)
            if authenticator.ambient:
                cors = exchange.policy.cors if exchange.policy is not None else policy.cors
                csrf.check(environ, exchange.client, cors)
            if loaded is None:
                asked = self._declared.identity_loader is not None
                loaded = self._load(identity) if asked else identity
        except M9MError as error:
            exchange.claimed = authenticator.claimed(credential)
            other = self._lockout.forged(exchange.client) if error.guess else None
            self.refuse(exchange, other or error, policy.authenticators)
        exchange.proved = identity
        exchange.identity = environ[IDENTITY] = loaded
        own = authenticator.limits(identity)
        if own:
            exchange.owed += tuple(Want(limit, client) for limit, client in own)
        return loaded

    def _without_one(
        self, exchange: Exchange, environ: WSGIEnvironment, policy: RoutePolicy, *, several: bool
    ) -> None:
        """Refuse a request that has no credential, or several, unless it may have none."""
        if several:
            self.refuse(exchange, InvalidRequest())
        if "HTTP_AUTHORIZATION" in environ:
            self.refuse(exchange, InvalidCredentials(), policy.authenticators)
        if policy.access is not Access.OPTIONAL:
            self.refuse(exchange, AuthenticationRequired(), policy.authenticators)

    def _owe_general(self, exchange: Exchange) -> None:
        """Have the general limit that counts callers taken first, or only try it out."""
        assert self._identity_limit is not None  # noqa: S101
        want = Want(self._identity_limit, client_key(exchange, "identity"))
        if self._shadow:
            self.limits.try_out(want)
        else:
            exchange.owed = (want, *exchange.owed)

    def _take(self, exchange: Exchange, route_limits: Sequence[RouteLimit] = ()) -> None:
        error = self.limits.take(exchange, route_limits)
        if error is not None:
            self.refuse(exchange, error)

    # Refusals

    def refuse(
        self,
        exchange: Exchange,
        error: M9MError,
        authenticators: Sequence[Authenticator] | None = None,
    ) -> NoReturn:
        """End a request with an error, rendered and with its challenges."""
        self.render(exchange, error, authenticators)
        raise error from None

    def render(
        self,
        exchange: Exchange,
        error: M9MError,
        authenticators: Sequence[Authenticator] | None = None,
    ) -> Response:
        """Give an error its challenges and its body, in the format that the client reads."""
        exchange.refusal = error
        exchange.refusal_fields = error.headers
        asked = authenticators or self.authenticators
        if isinstance(error, AccessDenied):
            scheme = exchange.identity.scheme if exchange.identity is not None else None
            asked = [one for one in asked if one.scheme == scheme]
        if error.code == 401 or isinstance(error, AccessDenied):
            own = self._challenges(error, asked, exchange)
            exchange.refusal_fields = [*error.headers, *own]
        error_format = ErrorFormat.negotiate(self._error_format, exchange.accept or "")
        answer = exchange.answer = error.render(
            error_format, self._response_class, exchange.request_id
        )
        return answer

    def _challenges(
        self, error: M9MError, asked: Sequence[Authenticator], exchange: Exchange
    ) -> list[tuple[str, str]]:
        """Return the challenges of an error; a script gets none that makes a browser ask."""
        if exchange.scripted:
            asked = [one for one in asked if not one.ambient] or asked
        return challenges(asked, self._realm, error)
