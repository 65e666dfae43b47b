"""The demo's chapters on who calls, from where and how often."""

from __future__ import annotations

import json
import secrets
import time

from demo_client import Demo

from flask_m9m.auth.jwt.issuer import Issuer
from flask_m9m.auth.jwt.signing_keys import SigningKey, SigningKeyRing

SECURITY = (
    "Content-Security-Policy",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "X-XSS-Protection",
    "Referrer-Policy",
    "Permissions-Policy",
    "Cross-Origin-Opener-Policy",
    "Cross-Origin-Resource-Policy",
)
APP, EVIL = "https://app.example.com", "https://app.example.com.evil.net"


def preflight(origin: str, method: str, headers: str = "authorization") -> dict[str, str]:
    return {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": headers,
    }


def tell(demo: Demo, secret: str) -> None:
    ring = SigningKeyRing([SigningKey(secret.encode())])
    issuer = Issuer(ring, expiration=3600)
    long_ago = Issuer(ring, expiration=3600, clock=lambda: time.time() - 7200)
    stranger = Issuer(SigningKeyRing([SigningKey(secrets.token_bytes(32))]), expiration=3600)
    scopes = ("workflow:read", "workflow:run")
    ann = issuer.issue("ann", scopes=scopes)

    demo.chapter("Who are you?")
    demo.step("Anyone may ask for the health", "GET", "/health", expect=200)
    demo.step("No credentials", "GET", "/workflows", expect=401, code="AUTH_REQUIRED")
    demo.step("A good token", "GET", "/workflows", token=ann, expect=200)
    demo.step(
        "A token that has expired",
        "GET",
        "/workflows",
        token=long_ago.issue("ann", scopes=scopes),
        expect=401,
        code="INVALID_TOKEN",
    )
    demo.step(
        "A token that somebody else signed: the same answer",
        "GET",
        "/workflows",
        token=stranger.issue("ann", scopes=scopes),
        expect=401,
        code="INVALID_TOKEN",
    )

    demo.chapter("What may you do?")
    demo.step(
        "A scope is missing",
        "POST",
        "/workflows",
        token=ann,
        body={"name": "Mine"},
        expect=403,
        code="ACCESS_DENIED",
    )
    writer = issuer.issue("bob", scopes=("workflow:write",))
    demo.step(
        "The scope is there",
        "POST",
        "/workflows",
        token=writer,
        body={"name": "Mine"},
        expect=201,
    )
    demo.step(
        "A role is missing", "DELETE", "/workflows/1", token=ann, expect=403, code="ACCESS_DENIED"
    )

    demo.chapter("Where do you come from?")
    demo.step(
        "The app's own page asks first",
        "OPTIONS",
        "/workflows",
        headers=preflight(APP, "POST"),
        expect=204,
        also=lambda answer: answer.headers.get("Access-Control-Allow-Origin") == APP,
    )
    demo.step(
        "… and then reads the answer",
        "GET",
        "/workflows",
        token=ann,
        headers={"Origin": APP},
        expect=200,
        also=lambda answer: answer.headers.get("Access-Control-Allow-Origin") == APP,
    )
    demo.step(
        "A page that only looks like it",
        "OPTIONS",
        "/workflows",
        headers=preflight(EVIL, "POST"),
        expect=403,
        code="CORS_REFUSED",
    )
    demo.step(
        "… gets no permission to read either",
        "GET",
        "/health",
        headers={"Origin": EVIL},
        expect=200,
        also=lambda answer: "Access-Control-Allow-Origin" not in answer.headers,
    )

    demo.chapter("How often?")
    for number in (1, 2, 3):
        demo.step(
            f"Run {number} of a burst of 3", "POST", "/workflows/1/run", token=ann, expect=202
        )
    demo.step(
        "One too many",
        "POST",
        "/workflows/1/run",
        token=ann,
        expect=429,
        code="RATE_LIMITED",
        also=lambda answer: 1 <= int(answer.headers["Retry-After"]) <= 10,
    )
    runner = issuer.issue("bob", scopes=("workflow:run",))
    demo.step(
        "Somebody else has a budget of his own",
        "POST",
        "/workflows/1/run",
        token=runner,
        expect=202,
    )

    demo.chapter("What every answer carries")
    demo.step(
        "Even one that no view made",
        "GET",
        "/no/such/path",
        expect=404,
        show=SECURITY,
        also=lambda answer: all(name in answer.headers for name in SECURITY),
    )


def log_in(demo: Demo, password: str) -> None:
    """The whole way of a user: log in, make an API key, use it, revoke it, see it refused."""
    api = "/api/v1"
    demo.chapter("From a password to an API key, and back")
    wrong = {"username": "ann", "password": "a guess"}
    demo.step(
        "A wrong password",
        "POST",
        f"{api}/auth/login",
        body=wrong,
        expect=401,
        code="INVALID_CREDENTIALS",
    )
    right = {"username": "ann", "password": password}
    answer = demo.step("The right one", "POST", f"{api}/auth/login", body=right, expect=200)
    session = json.loads(answer.body)
    token = session["token"]
    demo.step("Its token opens the API", "GET", "/workflows", token=token, expect=200)
    more = {"name": "nightly", "scopes": ["workflow:write"]}
    demo.step(
        "Nobody gives a key what they do not have",
        "POST",
        f"{api}/api-keys",
        token=token,
        body=more,
        expect=403,
        code="ACCESS_DENIED",
    )
    wanted = {"name": "nightly", "scopes": ["workflow:read"]}
    answer = demo.step(
        "A key for a script", "POST", f"{api}/api-keys", token=token, body=wanted, expect=201
    )
    made = json.loads(answer.body)
    key = {"X-API-Key": made["key"]}
    demo.step("The script reads", "GET", "/workflows", headers=key, expect=200)
    demo.step(
        "… and does nothing else",
        "POST",
        "/workflows",
        headers=key,
        expect=403,
        code="ACCESS_DENIED",
    )
    demo.step(
        "The key's owner revokes it",
        "DELETE",
        f"{api}/api-keys/{made['id']}",
        token=token,
        expect=204,
    )
    demo.step(
        "The script is refused",
        "GET",
        "/workflows",
        headers=key,
        expect=401,
        code="INVALID_API_KEY",
    )
    spent = {"refreshToken": session["refreshToken"]}
    answer = demo.step(
        "A refresh token gives a new pair", "POST", f"{api}/auth/refresh", body=spent, expect=200
    )
    token = json.loads(answer.body)["token"]
    demo.step("… once", "POST", f"{api}/auth/refresh", body=spent, expect=409, code="CONFLICT")
    demo.step("Logging out", "POST", f"{api}/auth/logout", token=token, expect=204)
    demo.step(
        "… ends the session at once",
        "GET",
        "/workflows",
        token=token,
        expect=401,
        code="INVALID_TOKEN",
    )
