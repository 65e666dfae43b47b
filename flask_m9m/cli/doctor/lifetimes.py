"""Checks of token and session lifetimes, and of the attributes of Flask's session cookie."""

from __future__ import annotations

from collections.abc import Iterator

from .findings import Finding, Kind, Severity
from .subject import Subject, finds

TOKEN = Kind(
    "token-lifetime-long",
    Severity.MEDIUM,
    "access tokens are valid for more than a day",
    "access tokens are valid for more than a day: a stolen token works until it expires, or until "
    "somebody notices and revokes it (ASVS 7.3.1, 9.2.1)",
    'security: {jwt: {expiration: "1h"}}, and have clients use refresh tokens',
)
SESSION = Kind(
    "session-lifetime-long",
    Severity.LOW,
    "a session can be renewed for more than 30 days without logging in again",
    "a session, even if stolen, can be renewed for more than 30 days; NIST SP 800-63B asks users "
    "to log in again after 30 days at the latest (ASVS 7.1.1, 7.3.2)",
    'security: {jwt: {refresh_max_age: "30d"}}',
)
COOKIE = Kind(
    "session-cookie",
    Severity.LOW,
    "Flask's session cookie lacks a security attribute",
    "<reason>",
    'app.config["<name>"] = <value>',
)

_DAY = 86_400.0
_ATTRIBUTES = (
    ("SESSION_COOKIE_SECURE", True, "the cookie is sent over plain HTTP too (ASVS 3.3.1)"),
    ("SESSION_COOKIE_HTTPONLY", True, "scripts in a page can read the cookie (ASVS 3.3.4)"),
    ("SESSION_COOKIE_SAMESITE", "Lax", "requests from other sites carry the cookie (ASVS 3.3.2)"),
)


@finds(TOKEN, SESSION)
def token_lifetimes(subject: Subject) -> Iterator[Finding]:
    """Compare the lifetimes of tokens and sessions with their recommended limits."""
    jwt = subject.settings.security.jwt
    if jwt.enabled is False or (jwt.secret is None and not subject.settings.development.enabled):
        return
    if jwt.expiration > _DAY:
        yield TOKEN.at(subject.at("security.jwt.expiration"))
    if jwt.refresh_max_age > 30 * _DAY:
        yield SESSION.at(subject.at("security.jwt.refresh_max_age"))


@finds(COOKIE)
def session_cookie(subject: Subject) -> Iterator[Finding]:
    """Examine the attributes of the session cookie, if the app can sign any."""
    app = subject.app
    if not app.secret_key:
        return
    for name, good, reason in _ATTRIBUTES:
        value = app.config.get(name)
        strict = isinstance(value, str) and value.lower() in ("lax", "strict")
        if not (strict if name.endswith("SAMESITE") else value):
            yield COOKIE.at(f"app.config: {name}", name=name, value=repr(good), reason=reason)


CHECKS = (token_lifetimes, session_cookie)
