"""`POST …/auth/login`, `refresh` and `logout`."""

from __future__ import annotations

import logging
from typing import Any

from flask import Blueprint, Response, jsonify, request
from pydantic import Field

from ...audit.events import EventName
from ...auth.identities import Identities
from ...auth.identity import Identity
from ...auth.names import is_control, name_of, normalize
from ...auth.schemes.cookie import ACCESS, REFRESH, cookie_of
from ...auth.sessions import TokenPair
from ...errors import (
    AuthenticationRequired,
    Conflict,
    InvalidCredentials,
    InvalidToken,
    M9MError,
    ValidationError,
)
from ...http import csrf
from ..app_state import current_exchange, current_state
from ..decorators import public, require_auth
from .bodies import Body, moment, read

logger = logging.getLogger("flask_m9m")

blueprint = Blueprint("m9m_sessions", __name__)


class Login(Body):
    """A name and a password; `cookies` asks for the tokens in cookies, and not in the answer."""

    username: str = Field(min_length=1, max_length=1_020)
    password: str = Field(min_length=1, max_length=4_096)
    cookies: bool = False


class Refresh(Body):
    """A refresh token; where it came in its cookie, nothing."""

    refresh_token: str | None = Field(default=None, min_length=1, max_length=8_192)


@blueprint.post("/login")
@public
def login() -> Response:
    """Begin a session."""
    sent, services = read(Login), _services()
    if sent.cookies:
        if not services.cookies.enabled:
            raise ValidationError([{"field": "cookies", "message": "they are switched off"}])
        _check_site()
    name = name_of(sent.username)
    if name is None or any(is_control(one) for one in sent.password):
        raise InvalidCredentials
    identity, is_user = _signed_in(services, name, normalize(sent.password))
    try:
        pair = services.tokens.issue_pair(
            identity.subject,
            # The rights of a user of the table are read anew with each refresh.
            scopes=None if is_user else identity.scopes,
            roles=None if is_user else identity.roles,
        )
    except ValueError as error:  # disabled a moment ago, or what the app's verifier named
        logger.warning("login: no session for %a: %s", identity.subject[:64], error)
        raise InvalidCredentials from None
    return _answer(services, pair, cookies=sent.cookies)


def _signed_in(services: Identities, name: str, password: str) -> tuple[Identity, bool]:
    """Return who signs in, and whether that is a user of the table; the audit trail is told."""
    exchange, trail = current_exchange("login"), current_state("login").trail
    try:
        identity, is_user, _ = services.sign_in(name, password, exchange.client)
    except M9MError as error:
        exchange.failure_audited = True
        failed = EventName.AUTHENTICATION_FAILED
        event = trail.event(failed, name, outcome=error.error_code)
        trail.record_event(event._replace(scheme="password"))
        raise
    event = trail.event(EventName.AUTHENTICATED, identity.subject)
    trail.record_event(event._replace(scheme="password"))
    return identity, is_user


@blueprint.post("/refresh")
@public
def refresh() -> Response:
    """Go on with a session: spend its refresh token on a new pair."""
    services, cookies = _services(), False
    token = None
    if request.content_length or "Transfer-Encoding" in request.headers:
        token = read(Refresh).refresh_token
    try:
        if token is None:
            token, cookies = _from_cookie(services), True
        pair = services.tokens.refresh(token)
    except InvalidToken as error:
        client = current_exchange("refresh").client
        raise (services.lockout.forged(client) if error.guess else None) or error from None
    return _answer(services, pair, cookies=cookies)


@blueprint.post("/logout")
@require_auth(schemes=["bearer", "cookie"])
def logout() -> Response:
    """End the session of an access token; a token of no session ends alone."""
    services, answer = _services(), Response(status=204)
    proved = current_exchange("logout").proved_identity
    assert proved is not None  # noqa: S101  # the route is protected
    sid = proved.claims.get("sid")
    if isinstance(sid, str):
        services.tokens.revoke_session(sid)
    elif proved.credential_id is not None:
        services.tokens.revoke(request.headers["Authorization"].split()[-1])
    else:
        raise Conflict("this token has no jti, and cannot be revoked alone")
    if cookie_of(request.environ, ACCESS) is not None and services.cookies.enabled:
        answer.headers.extend(services.cookies.clearing_fields())
    return answer


def _from_cookie(services: Identities) -> str:
    """Return the refresh token in its cookie, if a page of ours had it sent.

    Raises:
        AuthenticationRequired: there is none.
        InvalidToken: it is none of ours.
        CSRFFailed: no page of ours had it sent.
    """
    token = cookie_of(request.environ, REFRESH) if services.cookies.enabled else None
    if token is None:
        raise AuthenticationRequired
    sid = services.tokens.session_of(token)
    _check_site()
    services.cookies.check_csrf(request.environ, sid)
    return token


def _check_site() -> None:
    exchange = current_exchange("cookies")
    cors = None if exchange.policy is None else exchange.policy.cors
    csrf.check(request.environ, exchange.client, cors)


def _answer(services: Identities, pair: TokenPair, *, cookies: bool) -> Response:
    fields = _cookie_fields(services, pair) if cookies else []
    identity = services.tokens.verify(pair.access_token)
    body: dict[str, Any] = {
        "expiresAt": moment(pair.expires_at),
        "user": {
            "username": identity.subject,
            "scopes": sorted(identity.scopes),
            "roles": sorted(identity.roles),
        },
    }
    if cookies:
        body["csrfToken"] = services.cookies.csrf_token(pair.sid)
    else:
        body |= {"token": pair.access_token, "refreshToken": pair.refresh_token}
    answer = jsonify(body)
    answer.headers.extend(fields)
    answer.headers["Cache-Control"] = "no-store"  # RFC 6749 §5.1
    return answer


def _cookie_fields(services: Identities, pair: TokenPair) -> list[tuple[str, str]]:
    try:
        return services.cookies.fields(pair)
    except ValueError as error:
        services.tokens.revoke_session(pair.sid)
        logger.error("login of %a: %s", pair.subject[:64], error)
        raise Conflict("the rights of this user do not fit into cookies") from None


def _services() -> Identities:
    return current_state("the REST API").identities
