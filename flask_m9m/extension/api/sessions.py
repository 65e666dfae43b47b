"""Session routes (`…/auth/login`, `refresh`, `logout`, `sessions`): begin and end sessions."""

from __future__ import annotations

import logging
from typing import Any

from flask import Blueprint, Response, jsonify, request
from pydantic import Field

from ...audit.events import EventName
from ...auth.identities import Identities
from ...auth.identity import Identity
from ...auth.names import has_control, name_of
from ...auth.schemes.cookie import ACCESS, REFRESH, cookie_of
from ...auth.sessions import TokenPair
from ...auth.sign_in import SignedIn
from ...errors import (
    AuthenticationRequired,
    Conflict,
    InvalidCredentials,
    InvalidToken,
    M9MError,
    NotFound,
    ValidationError,
)
from ...http import csrf
from ..app_state import current_exchange, current_state
from ..decorators import public, require_auth
from .bodies import Body, iso_time, read_body

logger = logging.getLogger("flask_m9m")

blueprint = Blueprint("m9m_sessions", __name__)


class Login(Body):
    """A username and password; with `cookies` the tokens come in cookies and not in the body."""

    username: str = Field(min_length=1, max_length=1_020)
    password: str = Field(min_length=1, max_length=4_096)
    cookies: bool = False


class Refresh(Body):
    """A refresh token; none if the request has it in its cookie."""

    refresh_token: str | None = Field(default=None, min_length=1, max_length=8_192)


@blueprint.post("/login")
@public
def login() -> Response:
    """Verify a username and password, and begin a session."""
    sent, services = read_body(Login), _services()
    if sent.cookies:
        if not services.cookies.enabled:
            message = "must be false: session cookies are switched off"
            raise ValidationError([{"field": "cookies", "message": message}])
        _refuse_cross_site()
    name = name_of(sent.username)
    if name is None or has_control(sent.password):
        raise InvalidCredentials
    identity, is_user, _, version = _sign_in(services, name, sent.password)
    try:
        pair = services.tokens.issue_pair(
            identity.subject,
            # The scopes and roles of a stored user are read again at each refresh.
            scopes=None if is_user else identity.scopes,
            roles=None if is_user else identity.roles,
            version=version,
        )
    except ValueError as error:
        # The user was just disabled or got another password, or the app's verifier returned
        # unusable values.
        logger.warning("login: cannot begin a session for %a: %s", identity.subject[:64], error)
        raise InvalidCredentials from None
    return _token_response(services, pair, cookies=sent.cookies)


def _sign_in(services: Identities, name: str, password: str) -> SignedIn:
    """Verify a name and password, and record the attempt in the audit trail."""
    exchange, trail = current_exchange("login"), current_state("login").trail
    try:
        signed_in = services.sign_in(name, password, exchange.client, login=True)
    except M9MError as error:
        exchange.failure_audited = True
        failed = EventName.AUTHENTICATION_FAILED
        event = trail.event(failed, name, outcome=error.error_code)
        trail.record_event(event._replace(scheme="password"), exchange.client.key)
        raise
    event = trail.event(EventName.AUTHENTICATED, signed_in.identity.subject)
    trail.record_event(event._replace(scheme="password"))
    return signed_in


@blueprint.post("/refresh")
@public
def refresh() -> Response:
    """Exchange a refresh token for a new pair of tokens."""
    services, cookies = _services(), False
    token = None
    if "Transfer-Encoding" in request.headers or request.content_length:
        token = read_body(Refresh).refresh_token
    try:
        if token is None:
            token, cookies = _from_cookie(services), True
        pair = services.tokens.refresh(token)
    except InvalidToken as error:
        client = current_exchange("refresh").client
        raise (services.lockout.count_forged(client) if error.guess else None) or error from None
    return _token_response(services, pair, cookies=cookies)


@blueprint.post("/logout")
@require_auth(schemes=["bearer", "cookie"])
def logout() -> Response:
    """Revoke the session of the access token; a token without a session is revoked alone."""
    services, answer, proved = _services(), Response(status=204), _proved()
    sid = proved.claims.get("sid")
    if isinstance(sid, str):
        services.tokens.revoke_session(sid)
    elif proved.credential_id is not None:
        services.tokens.revoke(request.headers["Authorization"].split()[-1])
    else:
        raise Conflict("this token has no jti claim, and so cannot be revoked")
    _clear_cookies(services, answer)
    return answer


@blueprint.get("/sessions")
@require_auth(schemes=["bearer", "cookie"])
def list_sessions() -> Response:
    """List the caller's sessions that go on, the newest first."""
    proved = _proved()
    current = proved.claims.get("sid")
    rows = [
        {
            "id": session.sid,
            "createdAt": iso_time(session.created_at),
            "refreshedAt": iso_time(session.refreshed_at),
            "endsAt": iso_time(session.ends_at),
            "current": session.sid == current,
        }
        for session in _services().tokens.sessions(proved.subject)
    ]
    return jsonify({"data": rows, "total": len(rows)})


@blueprint.delete("/sessions")
@require_auth(schemes=["bearer", "cookie"])
def end_all_sessions() -> Response:
    """End all the caller's sessions, and revoke all tokens; API keys stay."""
    services, answer = _services(), Response(status=204)
    services.tokens.revoke_subject(_proved().subject)
    _clear_cookies(services, answer)
    return answer


@blueprint.delete("/sessions/<sid>")
@require_auth(schemes=["bearer", "cookie"])
def end_session(sid: str) -> Response:
    """End one of the caller's sessions, and revoke its tokens."""
    if not _services().tokens.revoke_session(sid, _proved().subject):
        raise NotFound
    return Response(status=204)


def _proved() -> Identity:
    proved = current_exchange("sessions").proved_identity
    assert proved is not None  # noqa: S101  # the route is protected
    return proved


def _clear_cookies(services: Identities, answer: Response) -> None:
    if cookie_of(request.environ, ACCESS) is not None and services.cookies.enabled:
        answer.headers.extend(services.cookies.clearing_fields())


def _from_cookie(services: Identities) -> str:
    """Read the refresh token from its cookie, and refuse cross-site requests.

    Raises:
        AuthenticationRequired: there is no refresh token.
        InvalidToken: the token is not valid.
        CSRFFailed: another site may have sent the request.
    """
    token = cookie_of(request.environ, REFRESH) if services.cookies.enabled else None
    if token is None:
        raise AuthenticationRequired
    sid = services.tokens.session_of(token)
    _refuse_cross_site()
    services.cookies.check_csrf(request.environ, sid)
    return token


def _refuse_cross_site() -> None:
    exchange = current_exchange("cookies")
    cors = None if exchange.policy is None else exchange.policy.cors
    csrf.check(request.environ, exchange.client, cors)


def _token_response(services: Identities, pair: TokenPair, *, cookies: bool) -> Response:
    fields = _cookie_fields(services, pair) if cookies else []
    identity = services.tokens.verify(pair.access_token)
    body: dict[str, Any] = {
        "expiresAt": iso_time(pair.expires_at),
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
        raise Conflict("the scopes and roles of this user are too long for cookies") from None


def _services() -> Identities:
    return current_state("the REST API").identities
