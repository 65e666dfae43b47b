"""m9m's own tokens, byte for byte as its Go code writes them, and ours by the rules of that code.

m9m signs with golang-jwt v5 under HS256. Its claims are a struct of `userId`, `email` and `role`
with the library's `RegisteredClaims` embedded, which are left out where they are empty.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import Any

import pytest
from flask import Flask

from flask_m9m import current_identity, require_auth
from flask_m9m.testing import Clock
from tests.conftest import MakeApp

SECRET = "m9m" * 12
NOW = 1_750_000_000
DAY = 86_400
HEADER = {"alg": "HS256", "typ": "JWT"}
TEXTS = ("userId", "email", "role", "iss", "sub", "jti")
DATES = ("exp", "nbf", "iat")

# Printed by a Go program with m9m's struct (go 1.27.3, golang-jwt 4.4.3).
WITH_SUBJECT = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."
    "eyJ1c2VySWQiOiJ1LTEiLCJlbWFpbCI6ImFubkBleGFtcGxlLmNvbSIsInJvbGUiOiJhZG1pbiIsImlzcyI6Im05bSIs"
    "InN1YiI6InUtMSIsImV4cCI6MTc1MDA4NjQwMCwibmJmIjoxNzUwMDAwMDAwLCJpYXQiOjE3NTAwMDAwMDB9."
    "plFmehxP_gGJrapkY7UnBDW9B7tFcTJttGAJBQEMNwU"
)
ESCAPED = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."
    "eyJ1c2VySWQiOiJ1LTEiLCJlbWFpbCI6ImFublx1MDAyNmJvYlx1MDAzY3hcdTAwM2VcIkBleMOkbXBsZS5jb21cdTIw"
    "Mjh_XHQiLCJyb2xlIjoiYWRtaW4iLCJpc3MiOiJtOW0iLCJleHAiOjE3NTAwODY0MDAsIm5iZiI6MTc1MDAwMDAwMCwi"
    "aWF0IjoxNzUwMDAwMDAwfQ."
    "JaRis6erN906DylGv8KideaWMEK-X4bny8BrW3rbqlk"
)
ODD_EMAIL = 'ann&bob<x>"@exämple.com\u2028\x7f\t'
# What the documentation of golang-jwt v5 says that ExampleNewWithClaims_customClaimsType prints.
DOCUMENTED = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."
    "eyJmb28iOiJiYXIiLCJpc3MiOiJ0ZXN0IiwiZXhwIjoxNTE2MjM5MDIyfQ."
    "xVuY2FZ_MRXMIEgVQ7J-TFtaucVFRXUzHm9LmV41goM"
)


def go_json(value: object) -> bytes:
    """Write JSON as Go's `json.Marshal` does."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode()


def raw_url(octets: bytes) -> str:
    return urlsafe_b64encode(octets).rstrip(b"=").decode()


def signature(signing_input: str, secret: str) -> bytes:
    return hmac.digest(secret.encode(), signing_input.encode(), hashlib.sha256)


def go_token(claims: object, secret: str = SECRET, header: object = HEADER) -> str:
    signing_input = f"{raw_url(go_json(header))}.{raw_url(go_json(claims))}"
    return f"{signing_input}.{raw_url(signature(signing_input, secret))}"


def m9m_claims(
    user_id: str = "u-1", email: str = "ann@example.com", role: str = "admin", sub: str = ""
) -> dict[str, Any]:
    claims: dict[str, Any] = {"userId": user_id, "email": email, "role": role, "iss": "m9m"}
    if sub:
        claims["sub"] = sub
    return {**claims, "exp": NOW + DAY, "nbf": NOW, "iat": NOW}


class GoError(Exception):
    """The Go code returns an error."""


@dataclass
class Struct:
    """m9m's claims as Go unmarshals them; what did not come keeps its zero value."""

    userId: str = ""
    email: str = ""
    role: str = ""
    iss: str = ""
    sub: str = ""
    jti: str = ""
    exp: float | None = None
    nbf: float | None = None
    iat: float | None = None


def unmarshal(claims: dict[str, Any]) -> Struct:
    """Fill the struct; Go finds a field by its name in any case, and is strict about types."""
    found = Struct()
    for name, value in claims.items():
        for field in (*TEXTS, *DATES):
            if field.lower() != name.lower():
                continue
            if type(value) not in ((str,) if field in TEXTS else (int, float)):
                raise GoError(f"cannot unmarshal {value!r} into {field}")
            setattr(found, field, value)
    return found


def go_verify(token: str, now: float, secret: str = SECRET, issuer: str = "m9m") -> Struct:
    """Verify as golang-jwt v5 does with HS256, exp and an issuer demanded, without leeway."""
    parts = token.split(".")
    if len(parts) != 3 or "=" in token:
        raise GoError("malformed")
    header, payload, signed = (urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in parts)
    if json.loads(header).get("alg") != "HS256":
        raise GoError("signing method is invalid")
    claims = unmarshal(json.loads(payload))
    if not hmac.compare_digest(signature(f"{parts[0]}.{parts[1]}", secret), signed):
        raise GoError("signature is invalid")
    if claims.exp is None or now >= claims.exp:
        raise GoError("exp is missing or past")
    if claims.nbf is not None and now < claims.nbf:
        raise GoError("not valid yet")
    if issuer and claims.iss != issuer:
        raise GoError("another issuer")
    return claims


@pytest.fixture(params=[None, "m9m"])
def app(request: pytest.FixtureRequest, make_app: MakeApp) -> Flask:
    """An app under m9m's secret, which asks nothing of issuers or issues as m9m."""
    return secured(make_app, issuer=request.param)


def secured(make_app: MakeApp, **jwt: Any) -> Flask:
    app = make_app({"security": {"jwt": {"secret": SECRET, **jwt}}})

    @app.get("/me")
    @require_auth
    def me() -> dict[str, Any]:
        return {
            "subject": current_identity.subject,
            "scheme": current_identity.scheme,
            "roles": sorted(current_identity.roles),
            "email": current_identity.claims["email"],
        }

    @app.get("/admin")
    @require_auth(roles="admin")
    def admin() -> str:
        return "admin"

    return app


def ask(app: Flask, token: str, path: str = "/me") -> Any:
    return app.test_client().get(path, headers={"Authorization": f"Bearer {token}"})


def test_tokens_are_built_here_as_go_builds_them() -> None:
    assert go_token(m9m_claims(sub="u-1")) == WITH_SUBJECT
    assert go_token(m9m_claims(email=ODD_EMAIL)) == ESCAPED
    documented = {"foo": "bar", "iss": "test", "exp": 1_516_239_022}
    assert go_token(documented, "AllYourBase") == DOCUMENTED


@pytest.mark.parametrize(
    ("token", "email"), [(WITH_SUBJECT, "ann@example.com"), (ESCAPED, ODD_EMAIL)]
)
def test_what_go_wrote_is_accepted(app: Flask, token: str, email: str) -> None:
    assert ask(app, token).get_json() == {
        "subject": "u-1",
        "scheme": "bearer",
        "roles": ["admin"],
        "email": email,
    }


def test_the_subject_is_sub_and_else_the_user_id(app: Flask) -> None:
    assert ask(app, go_token(m9m_claims(sub="s-1"))).get_json()["subject"] == "s-1"
    assert ask(app, go_token(m9m_claims("u-2"))).get_json()["subject"] == "u-2"
    assert ask(app, go_token(m9m_claims(user_id=""))).status_code == 401


def test_m9ms_role_opens_what_asks_for_it(app: Flask) -> None:
    assert ask(app, go_token(m9m_claims()), "/admin").status_code == 200
    assert ask(app, go_token(m9m_claims(role="member")), "/admin").status_code == 403
    assert ask(app, go_token(m9m_claims(role=""))).get_json()["roles"] == []


def test_m9ms_tokens_hold_until_they_expire(app: Flask, clock: Clock) -> None:
    clock.advance(DAY - 1)
    assert ask(app, WITH_SUBJECT).status_code == 200
    clock.advance(1)
    assert ask(app, WITH_SUBJECT).status_code == 401


def test_m9ms_tokens_hold_under_its_secret_and_issuer_alone(make_app: MakeApp) -> None:
    assert ask(secured(make_app), go_token(m9m_claims(), "another" * 6)).status_code == 401
    assert ask(secured(make_app, issuer="another"), WITH_SUBJECT).status_code == 401
    assert ask(secured(make_app, accept_untyped=False), WITH_SUBJECT).status_code == 401


@pytest.mark.parametrize(
    ("claims", "secret", "header"),
    [
        (m9m_claims(), "another" * 6, HEADER),
        (m9m_claims(), SECRET, {"alg": "none", "typ": "JWT"}),
        (m9m_claims(), SECRET, {"alg": "HS512", "typ": "JWT"}),
        ({"iss": "m9m", "sub": "ann"}, SECRET, HEADER),
        ({**m9m_claims(), "exp": NOW}, SECRET, HEADER),
        ({**m9m_claims(), "nbf": NOW + 1}, SECRET, HEADER),
        ({**m9m_claims(), "iss": "another"}, SECRET, HEADER),
        ({**m9m_claims(), "iat": "now"}, SECRET, HEADER),
        ({**m9m_claims(), "role": ["admin"]}, SECRET, HEADER),
        ({**m9m_claims(), "USERID": 7}, SECRET, HEADER),
    ],
)
def test_gos_rules_as_written_here_refuse(claims: object, secret: str, header: object) -> None:
    assert go_verify(WITH_SUBJECT, NOW) == Struct(**m9m_claims(sub="u-1"))
    with pytest.raises(GoError):
        go_verify(go_token(claims, secret, header), NOW)


@pytest.mark.parametrize(
    "rights",
    [
        {},
        {"scopes": ["a", "b"], "roles": ["admin", "ops"], "fresh": True},
        {"claims": {"email": "änn<&>@example.com", "tenant": {"id": [7, None]}}},
        {"expires_in": 0.5},
    ],
)
def test_a_token_of_ours_holds_by_gos_rules(make_app: MakeApp, rights: dict[str, Any]) -> None:
    app = secured(make_app, issuer="m9m")
    token = app.extensions["m9m"].identities.tokens.issue("ann", **rights)
    claims = go_verify(token, NOW)
    life = 1 if "expires_in" in rights else DAY
    assert (claims.iss, claims.sub) == ("m9m", "ann")
    assert (claims.exp, claims.nbf, claims.iat) == (NOW + life, NOW, NOW)
    assert claims.email == rights.get("claims", {}).get("email", "")
    assert claims.jti
    with pytest.raises(GoError):
        go_verify(token, NOW + life)


def test_m9m_finds_whom_a_token_of_ours_speaks_for(make_app: MakeApp) -> None:
    app = secured(make_app, issuer="m9m")
    token = app.extensions["m9m"].identities.tokens.issue("u-1", roles=["admin"])
    claims = go_verify(token, NOW)
    assert (claims.userId, claims.role) == ("u-1", "admin")
