"""Guard: the security pipeline of every request and response, independent of frameworks.

A binding begins an `Exchange` for each request. It calls `Guard.receive` (steps 1 to 4: address,
networks, preflight, rate limit by address) before anything else can end the request. It calls
`Guard.authorize` (steps 5 to 7: authentication, rate limits, authorisation) before the view, and
`Guard.finish` (step 9: response headers) on every response. If `Guard.timed` is set, it adds the
time of `receive` and `authorize` to `Exchange.guard_nanoseconds`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from time import perf_counter_ns
from typing import TYPE_CHECKING, NoReturn

from werkzeug.wrappers import Response
from werkzeug.wsgi import get_host

from ..auth.identities import Identities
from ..auth.identity import Identity
from ..auth.signed_links import Links
from ..errors import (
    AddressNotAllowed,
    Answered,
    AuthenticationRequired,
    CORSRefused,
    HTTPSRequired,
    InvalidCredentials,
    InvalidRequest,
    LimitsUnavailable,
    M9MError,
)
from ..http import csrf
from ..http.address import AddressResolver, Networks, ProxyHeader, is_host
from ..http.excess import USUAL_LENGTH, cut_excess, target_of
from ..ratelimit.store import LimitStore, StoreFailure, Want
from ..settings.models import Settings
from . import forgery
from .exchange import IDENTITY, Exchange, Observer
from .ignored_forwarding import IgnoredForwardingLog
from .limiter import Limiter, client_key, limited
from .marks import Mark
from .policy import Access, RouteLimit, RoutePolicy
from .policy_compiler import PolicyCompiler
from .preflight import FindRoute, answer_to
from .refusals import Refusals
from .request_ids import REQUEST_ID, request_id_of
from .response_headers import ResponseHeaders

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from ..http.headers import HeaderFields

logger = logging.getLogger("flask_m9m")


class Guard:
    """The security pipeline of one app, compiled from its settings.

    Args:
        settings: the app's settings.
        identities: the app's authentication.
        store: counts requests for rate limits.
        ignored_forwarding: records forwarding fields from peers that are not trusted.
        observers: note each exchange when its response is sent, and each request that a `shadow`
            limit would have refused.
        response_class: the class of the guard's own responses.
        clock: seconds since the epoch.
        monotonic: seconds of a clock that never goes back.

    Attributes:
        timed: whether an observer reads `Exchange.guard_nanoseconds`.
    """

    def __init__(
        self,
        settings: Settings,
        identities: Identities,
        store: LimitStore,
        ignored_forwarding: IgnoredForwardingLog,
        *,
        observers: Collection[Observer] = (),
        response_class: type[Response] = Response,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        server, security = settings.server, settings.security
        self.settings = settings
        self._response_class = response_class
        self._https = server.https
        self.links = Links(security.jwt, clock)
        self.resolver = _make_resolver(settings)
        self.store = store
        self.ignored_forwarding = ignored_forwarding
        self._callbacks = identities.callbacks
        self._load = identities.load
        self._lockout = identities.lockout
        self.authenticators = identities.authenticators
        self._any_ambient = any(scheme.ambient for scheme in self.authenticators)
        self.policies = PolicyCompiler(settings, self.authenticators)
        networks = server.allowed_networks
        self._networks = Networks(networks) if networks else None
        self._refusals = Refusals(
            self.authenticators, security.basic_auth.realm, security.errors.format, response_class
        )
        limiting = settings.performance.rate_limit
        self._observers = tuple(observers)
        self.timed = any(observer.timed for observer in self._observers)
        notes = [observer.note_shadow_refusal for observer in self._observers]
        self.limits = Limiter(limiting, store, monotonic, observers=notes)
        general, by_address = self.limits.general, limiting.key == "address"
        self._address_limit = general if by_address and not limiting.shadow else None
        self._identity_limit = None if by_address else general
        self._shadow_address_limit = general if by_address and limiting.shadow else None
        self._shadow = limiting.shadow
        self._response_headers = ResponseHeaders(
            self.policies.unrouted(),
            credential_fields=("Authorization", "Cookie", security.api_keys.header),
            challenges=self._refusals.challenges,
            legacy_limit_fields=limiting.legacy_headers,
            clock=clock,
        )

    def prepare(self) -> None:
        """Check the limit store before the first request.

        Raises:
            SettingsError: the store is not safe to use.
        """
        if self.limits.general is not None:
            self.store.prepare([self.limits.general])

    def begin(self, environ: WSGIEnvironment) -> Exchange:
        """Begin a new exchange for a request, even if its environ was used before."""
        client = self.resolver.resolve(environ)
        self.ignored_forwarding.check(environ, client)
        request_id = environ[REQUEST_ID] = request_id_of(environ, client.forwarded)
        exchange = Exchange(self, environ, client, request_id)
        get, host = environ.get, environ.get("HTTP_HOST", "")
        parsed = len(host) + len(get("HTTP_COOKIE", "")) + len(get("PATH_INFO", ""))
        if parsed + len(get("HTTP_CONNECTION", "")) > USUAL_LENGTH or host[:1] == "[":
            exchange.excess = cut_excess(environ)
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
        """Take steps 1 to 4, before any credential is read.

        Args:
            exchange: the request's exchange.
            environ: the request.
            policy: the policy of the request's route.
            find_route: finds the policy that a preflight asks about.

        Raises:
            M9MError: the refusal; `Answered` for a redirect or the response to a preflight.
        """
        exchange.policy = policy
        client = exchange.client
        if self._networks is not None and not self._networks.admit(client):
            self.refuse(exchange, AddressNotAllowed())
        if self._https != "off" and not client.secure:
            self._require_https(exchange, environ)
        if environ["REQUEST_METHOD"].upper() == "OPTIONS":
            self.answer_preflight(exchange, environ, find_route)
        if self._address_limit is not None and not policy.unlimited:
            try:
                hit = self.store.hit(self._address_limit, client.key)
            except StoreFailure:
                hit = None
            if hit is None:  # in `except`, the refusal would keep the failure's frames alive
                self.refuse(exchange, LimitsUnavailable())
            exchange.hits = (hit,)
            if not hit.admitted:
                self.refuse(exchange, limited(hit))
        elif self._shadow_address_limit is not None and not policy.unlimited:
            self.limits.take_shadow(Want(self._shadow_address_limit, client.key))
        if exchange.excess is not None:
            self.refuse(exchange, exchange.excess)

    def _require_https(self, exchange: Exchange, environ: WSGIEnvironment) -> NoReturn:
        """Redirect a GET or HEAD request to HTTPS if the settings say so; refuse any other."""
        redirect = self._https == "redirect"
        if not redirect or environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            self.refuse(exchange, HTTPSRequired())
        if exchange.excess is not None:
            self.refuse(exchange, exchange.excess)
        host = exchange.client.host or get_host(environ)
        if not is_host(host):
            self.refuse(exchange, HTTPSRequired())
        target = target_of(environ)
        if isinstance(target, M9MError):
            self.refuse(exchange, target)
        headers = {"Location": f"https://{host}{target}", "Cache-Control": "no-store"}
        self._answer(exchange, self._response_class(status=308, headers=headers))

    def _answer(self, exchange: Exchange, answer: Response) -> NoReturn:
        """End a request with a response that is not an error."""
        exchange.answer = answer
        raise Answered(answer)

    def answer_preflight(
        self, exchange: Exchange, environ: WSGIEnvironment, find_route: FindRoute
    ) -> None:
        """Take step 3: answer a preflight; return for other requests, and where CORS is off."""
        try:
            answer = answer_to(exchange, environ, find_route, self._response_class)
        except CORSRefused as refusal:
            self.refuse(exchange, refusal)
        if answer is not None:
            self._answer(exchange, answer)

    # Steps 5 to 7

    def authorize(self, exchange: Exchange, environ: WSGIEnvironment, policy: RoutePolicy) -> None:
        """Take steps 5 to 7: authentication, rate limits, authorisation.

        Raises:
            M9MError: the refusal.
        """
        general = self._identity_limit is not None and not policy.unlimited
        try:
            self._identify(exchange, environ, policy)
        except M9MError:
            if general:
                self._add_general_limit(exchange)
                self._take_tokens(exchange)
            raise
        if general:
            self._add_general_limit(exchange)
        if policy.demanding:
            self._admit(exchange, environ, policy)
        else:
            if exchange.wants:
                self._take_tokens(exchange)
            exchange.enforced = policy.marks

    def enforce(self, exchange: Exchange, environ: WSGIEnvironment, mark: Mark, view: str) -> None:
        """Enforce a mark on a request whose route's policy did not include the mark."""
        if mark not in exchange.enforced:
            route = "" if exchange.policy is None else exchange.policy.route
            policy = self.policies.for_mark(mark, f"{route}>{view}", exchange.method.upper())
            self._identify(exchange, environ, policy)
            self._admit(exchange, environ, policy)

    def authorize_again(
        self, exchange: Exchange, environ: WSGIEnvironment, policy: RoutePolicy
    ) -> None:
        """Take steps 5 to 7 for another route too; marks that both have are enforced once."""
        exchange.policy = policy
        self._identify(exchange, environ, policy)
        enforced = exchange.enforced
        limits = [limit for limit in policy.limits if limit.mark not in enforced]
        self._admit(exchange, environ, replace(policy, limits=tuple(limits)))

    def _admit(self, exchange: Exchange, environ: WSGIEnvironment, policy: RoutePolicy) -> None:
        """Take the tokens of a policy's limits, and check its demands."""
        if policy.limits or exchange.wants:
            self._take_tokens(exchange, policy.limits)
        for demand in policy.demands:
            error = demand.unmet_by(exchange, environ, self.links)
            if error is not None:
                self.refuse(exchange, error)
        exchange.enforced |= policy.marks

    def _identify(self, exchange: Exchange, environ: WSGIEnvironment, policy: RoutePolicy) -> None:
        if not policy.authenticators:
            return
        if exchange.identity is not None:
            self._check_known(exchange, exchange.identity, policy)
            return
        presented = 0
        for accepted in policy.authenticators:
            found = None if accepted.fallback and presented else accepted.find(environ)
            if found is not None:
                presented += 1
                authenticator, credential = accepted, found
        if presented != 1:
            self._check_credential_count(exchange, environ, policy, several=presented > 1)
            return
        exchange.scheme = authenticator.scheme
        try:
            identity, loaded = authenticator.authenticate(credential, exchange.client)
            if authenticator.ambient:
                forgery.check(exchange, environ, authenticator, identity)
            if loaded is None:
                has_loader = self._callbacks.identity_loader is not None
                loaded = self._load(identity) if has_loader else identity
        except M9MError as error:
            exchange.claimed_subject = authenticator.claimed_subject(credential)
            lockout = self._lockout.count_forged(exchange.client) if error.guess else None
            self._refusals.refuse(exchange, lockout or error, policy.authenticators)
        exchange.proved_identity = identity
        exchange.identity = environ[IDENTITY] = loaded
        limits = authenticator.limits(identity)
        if limits:
            exchange.wants += tuple(Want(limit, key) for limit, key in limits)

    def check_dispatched(self, exchange: Exchange, environ: WSGIEnvironment, method: str) -> None:
        """Check a caller again for forgery where the app dispatches another method.

        Raises:
            CSRFFailed: a page of another site may have sent the request.
        """
        environ[csrf.DISPATCHED_METHOD] = method
        try:
            forgery.recheck(exchange, environ, self.authenticators)
        except M9MError as error:
            self.refuse(exchange, error)

    def _check_known(self, exchange: Exchange, known: Identity, policy: RoutePolicy) -> None:
        """Refuse a caller of another scheme: a second credential does not replace the caller."""
        if all(accepted.scheme != known.scheme for accepted in policy.authenticators):
            self._refusals.refuse(exchange, AuthenticationRequired(), policy.authenticators)

    def _check_credential_count(
        self, exchange: Exchange, environ: WSGIEnvironment, policy: RoutePolicy, *, several: bool
    ) -> None:
        """Refuse a request with several credentials, or with none where the policy needs one."""
        if several:
            self.refuse(exchange, InvalidRequest())
        if "HTTP_AUTHORIZATION" in environ:
            self._refusals.refuse(exchange, InvalidCredentials(), policy.authenticators)
        if policy.access is not Access.OPTIONAL:
            self._refusals.refuse(exchange, AuthenticationRequired(), policy.authenticators)

    def _add_general_limit(self, exchange: Exchange) -> None:
        """Add the general limit by identity to the exchange's wants; take a `shadow` one now."""
        assert self._identity_limit is not None  # noqa: S101
        want = Want(self._identity_limit, client_key(exchange, "identity"))
        if self._shadow:
            self.limits.take_shadow(want)
        else:
            exchange.wants = (want, *exchange.wants)

    def _take_tokens(self, exchange: Exchange, route_limits: Sequence[RouteLimit] = ()) -> None:
        error = self.limits.take(exchange, route_limits)
        if error is not None:
            self.refuse(exchange, error)

    # Step 9

    def finish(
        self, exchange: Exchange, status: str, fields: Sequence[tuple[str, str]]
    ) -> HeaderFields:
        """Complete the header fields of a response, and notify the observers.

        Args:
            exchange: the request's exchange.
            status: the response's status, as WSGI writes it (`200 OK`).
            fields: the header fields that the app set.

        Returns:
            All header fields of the response.
        """
        started = perf_counter_ns() if self.timed else 0
        complete = self._response_headers.complete(exchange, status, fields)
        if not exchange.observed:  # the app may replace a response that was not sent yet
            exchange.observed = True
            if started:
                exchange.guard_nanoseconds += perf_counter_ns() - started
            for observer in self._observers:
                try:
                    observer.note_exchange(exchange, status)
                except Exception:
                    logger.exception("an observer failed to note a request")
        return complete

    # Refusals

    def refuse(self, exchange: Exchange, error: M9MError) -> NoReturn:
        """End a request with an error, whose response goes to the exchange."""
        self._refusals.refuse(exchange, error)

    def render(self, exchange: Exchange, error: M9MError) -> Response:
        """Make an error's response, without raising the error."""
        return self._refusals.render(exchange, error)


def _make_resolver(settings: Settings) -> AddressResolver:
    server = settings.server
    return AddressResolver(
        server.trusted_proxies,
        header=ProxyHeader(server.proxy_headers),
        ipv6_prefix=settings.performance.rate_limit.ipv6_prefix,
        trust_forwarded_host=server.trust_forwarded_host,
    )
