from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_m9m.auth.identity import Identity
from flask_m9m.auth.schemes.authenticator import Authenticator
from flask_m9m.errors import AccessDenied, AuthenticationRequired, M9MError, RateLimited
from flask_m9m.guard.exchange import Exchange
from flask_m9m.guard.marks import (
    CacheableMark,
    CORSMark,
    HeadersMark,
    Mark,
    Opening,
    Requirement,
)
from flask_m9m.guard.policy import Level
from flask_m9m.guard.policy_compiler import PolicyCompiler
from flask_m9m.guard.response_headers import ResponseHeaders
from flask_m9m.http.address import Client
from flask_m9m.ratelimit.gcra import Hit, take
from flask_m9m.ratelimit.limit import RateLimit
from flask_m9m.testing import Clock, make_settings

APP = "https://app.example"
KEY_FIELD = "X-API-Key"
CREDENTIALS = "Authorization, Cookie, X-API-Key"
CHALLENGE = ("WWW-Authenticate", 'Bearer realm="m9m"')
ANN = Identity("ann", "bearer")

Fields = Sequence[tuple[str, str]]


class Bearer(Authenticator):
    scheme = "bearer"


BARE = {"security": {"headers": {"enabled": False}}}
"""Settings under which security headers do not get in the way of what a test looks at."""


class Answers:
    """Responses under some settings: their header fields, completed."""

    def __init__(self, settings: Any = None, *, legacy: bool = True) -> None:
        settings = make_settings(BARE if settings is None else settings)
        self._compiler = PolicyCompiler(settings, (Bearer(),))
        self._headers = ResponseHeaders(
            self._compiler.unrouted(),
            credential_fields=("Authorization", "Cookie", KEY_FIELD),
            challenges=lambda exchange: [CHALLENGE],
            legacy_limit_fields=legacy,
            clock=Clock(1_000_000.5),
        )

    def complete(
        self,
        *own: tuple[str, str],
        marks: Sequence[Mark] | None = (),
        status: str | None = None,
        secure: bool = True,
        origin: str | None = None,
        refusal: M9MError | None = None,
        **noted: Any,
    ) -> list[tuple[str, str]]:
        """Complete a response.

        Args:
            own: the response's own fields.
            marks: those of its route; `None` where no route was found.
            status: the response's; by default that of the refusal, or `200 OK`.
            secure: whether the request came over HTTPS.
            origin: the request's `Origin`.
            refusal: the guard's error.
            noted: the exchange's other attributes.
        """
        environ: Any = {"REQUEST_METHOD": "GET"}
        if origin is not None:
            environ["HTTP_ORIGIN"] = origin
        client = Client("192.0.2.1", "192.0.2.1", secure=secure)
        exchange = Exchange(object(), environ, client, "id-1")
        if marks is not None:
            exchange.policy = self._compiler.compile("report", [Level("view", marks)], "GET")
        if refusal is not None:
            exchange.refusal = refusal
            exchange.refusal_fields = list(refusal.headers)
            status = status or f"{refusal.code} Refused"
        for name, value in noted.items():
            assert hasattr(exchange, name)
            setattr(exchange, name, value)
        before = list(own)
        complete = self._headers.complete(exchange, status or "200 OK", own)
        assert list(own) == before
        return list(complete)


def under(name: str, fields: Fields) -> list[str]:
    return [value for field, value in fields if field.lower() == name.lower()]


def sorted_fields(fields: Fields) -> list[tuple[str, str]]:
    return sorted((name.lower(), value) for name, value in fields)


# What every response has


def test_a_response_keeps_its_fields_in_their_order_and_gets_ours_behind_them() -> None:
    own = (("Content-Type", "text/plain"), ("Set-Cookie", "a=b"), ("Set-Cookie", "c=d"))
    complete = Answers({}).complete(*own)
    assert tuple(complete[:3]) == own
    assert ("X-Request-ID", "id-1") in complete[3:]
    assert under("X-Content-Type-Options", complete) == ["nosniff"]


@pytest.mark.parametrize("marks", [None, (), (Opening(),), (Requirement(),)])
@pytest.mark.parametrize("status", ["200 OK", "404 NOT FOUND", "500 ", "304", "599 X"])
def test_every_response_has_each_security_header_once(marks: Any, status: str) -> None:
    own = [("x-frame-options", "SAMEORIGIN"), ("CONTENT-SECURITY-POLICY", "default-src *")]
    complete = Answers({}).complete(*own, marks=marks, status=status)
    names = [name.lower() for name, _ in complete]
    assert sorted(set(names)) == sorted(names)
    assert under("X-Frame-Options", complete) == ["SAMEORIGIN"]
    assert under("Content-Security-Policy", complete) == ["default-src *"]
    assert under("Referrer-Policy", complete) == ["no-referrer"]


def test_hsts_goes_over_https_alone_on_refusals_too() -> None:
    answers = Answers({})
    for refusal in (None, AccessDenied()):
        secure = answers.complete(refusal=refusal)
        plain = answers.complete(refusal=refusal, secure=False)
        assert len(under("Strict-Transport-Security", secure)) == 1
        assert under("Strict-Transport-Security", plain) == []
        assert under("X-Frame-Options", plain) == ["DENY"]


def test_a_routes_own_headers_hold_and_one_that_is_switched_off_stays_away() -> None:
    mark = HeadersMark({"x_frame_options": None, "referrer_policy": "origin"})
    complete = Answers({}).complete(marks=[mark])
    assert under("X-Frame-Options", complete) == []
    assert under("Referrer-Policy", complete) == ["origin"]


def test_the_request_id_is_the_one_in_the_logs_whatever_the_response_says() -> None:
    complete = Answers().complete(("x-request-id", "mine"), ("X-Request-Id", "other"))
    assert under("X-Request-ID", complete) == ["id-1"]


def test_a_nonce_that_the_view_used_is_in_the_policy_and_in_no_other_answer() -> None:
    answers = Answers({"security": {"headers": {"preset": "web"}}})
    with_nonce = under("Content-Security-Policy", answers.complete(nonce="N0"))
    assert "script-src 'self' 'nonce-N0'" in with_nonce[0]
    assert len(with_nonce) == 1
    assert "nonce" not in under("Content-Security-Policy", answers.complete())[0]
    own = ("Content-Security-Policy", "script-src 'nonce-mine'")
    assert under("Content-Security-Policy", answers.complete(own, nonce="N0")) == [own[1]]


def test_headers_that_are_switched_off_leave_a_nonce_and_a_refusal_alone() -> None:
    complete = Answers().complete(nonce="N0", refusal=AccessDenied())
    assert under("Content-Security-Policy", complete) == []
    assert ("X-Request-ID", "id-1") in complete


# Caching


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ([], ["no-store"]),
        (["max-age=60"], ["max-age=60, private"]),
        (["public, max-age=60"], ["max-age=60, private"]),
        (["public", "s-maxage=9, max-age=60"], ["max-age=60, private"]),
        (["private, max-age=60"], ["private, max-age=60"]),
        (["no-store"], ["no-store"]),
        (["NO-STORE, max-age=0"], ["NO-STORE, max-age=0"]),
        ([""], ["no-store"]),
        (["", "max-age=60"], ["max-age=60, private"]),
        ([",, ,"], ["private"]),
        (['max-age=60, x="'], ["no-store"]),
        (["immutable"], ["immutable, private"]),
    ],
)
def test_the_caching_of_an_authenticated_answer_is_its_callers_alone(
    own: list[str], expected: list[str]
) -> None:
    fields = [("Cache-control", value) for value in own]
    complete = Answers().complete(*fields, marks=[Requirement()], identity=ANN)
    assert under("Cache-Control", complete) == expected


def test_an_authenticated_answer_that_only_expires_is_private() -> None:
    own = ("expires", "Fri, 01 Jan 2100 00:00:00 GMT")
    complete = Answers().complete(own, marks=[Requirement()], identity=ANN)
    assert under("Cache-Control", complete) == ["private"]
    assert under("Expires", complete) == [own[1]]


@pytest.mark.parametrize(
    "name", ["CDN-Cache-Control", "Cloudflare-CDN-Cache-Control", "surrogate-control"]
)
def test_a_shared_cache_is_told_nothing_else_about_an_authenticated_answer(name: str) -> None:
    own = (name, "public, max-age=60")
    answers = Answers()
    complete = answers.complete(own, marks=[Requirement()], identity=ANN)
    assert (under(name, complete), under("Cache-Control", complete)) == ([], ["no-store"])
    assert under(name, answers.complete(own)) == [own[1]]
    marks = [Requirement(), CacheableMark()]
    assert under(name, answers.complete(own, marks=marks, identity=ANN)) == [own[1]]


def test_a_signed_urls_answer_is_its_callers_alone_too() -> None:
    answers = Answers()
    assert under("Cache-Control", answers.complete(signed=True)) == ["no-store"]
    own = ("Cache-Control", "public")
    assert under("Cache-Control", answers.complete(own, signed=True)) == ["private"]


@pytest.mark.parametrize("noted", [{"identity": ANN}, {"signed": True}])
def test_a_cacheable_answer_says_itself_how_it_is_cached(noted: dict[str, Any]) -> None:
    answers, marks = Answers(), [Requirement(), CacheableMark()]
    own = ("Cache-Control", "public, max-age=60")
    assert under("Cache-Control", answers.complete(own, marks=marks, **noted)) == [own[1]]
    assert under("Cache-Control", answers.complete(marks=marks, **noted)) == []


def test_an_open_answer_says_itself_how_it_is_cached() -> None:
    answers = Answers()
    assert under("Cache-Control", answers.complete()) == []
    own = [("Cache-Control", "public"), ("Cache-Control", "max-age=60")]
    assert under("Cache-Control", answers.complete(*own)) == ["public", "max-age=60"]


@pytest.mark.parametrize("marks", [[], [CacheableMark()]])
@pytest.mark.parametrize("status", ["401 UNAUTHORIZED", "403", "429 Slow down"])
def test_no_refusal_is_stored_even_if_the_app_made_it(status: str, marks: list[Mark]) -> None:
    own = [("Cache-Control", "public, max-age=60"), ("Cache-Control", "private"), ("Expires", "0")]
    complete = Answers().complete(*own, status=status, marks=marks)
    assert under("Cache-Control", complete) == ["no-store"]


@pytest.mark.parametrize("status", ["200 OK", "302 FOUND", "404 NOT FOUND"])
def test_a_refusal_is_not_stored_under_whatever_status_the_app_answers_it(status: str) -> None:
    own = ("Cache-Control", "public")
    assert under("Cache-Control", Answers().complete(own, status=status)) == ["public"]
    assert under("Cache-Control", refused_as(status, own)) == ["no-store"]


def refused_as(status: str, *own: tuple[str, str]) -> list[tuple[str, str]]:
    """Complete a response that the app's handler made of a refusal."""
    refusal = AuthenticationRequired()
    refusal.headers = [CHALLENGE, ("WWW-Authenticate", "ApiKey")]
    return Answers().complete(*own, refusal=refusal, status=status)


# Challenges and other fields of errors


def test_a_refusal_brings_its_fields_where_the_app_kept_its_status() -> None:
    assert under("WWW-Authenticate", refused_as("401 X")) == [CHALLENGE[1], "ApiKey"]
    assert under("WWW-Authenticate", refused_as("200 OK")) == []
    assert under("WWW-Authenticate", refused_as("403 FORBIDDEN")) == []


def test_a_handlers_own_challenge_replaces_all_of_ours() -> None:
    own = [("www-authenticate", "Negotiate"), ("Www-Authenticate", 'Digest realm="x"')]
    assert under("WWW-Authenticate", refused_as("401 X", *own)) == ["Negotiate", 'Digest realm="x"']


def test_a_401_that_the_app_made_itself_gets_the_challenges_of_the_schemes() -> None:
    answers = Answers()
    assert under("WWW-Authenticate", answers.complete(status="401 X")) == [CHALLENGE[1]]
    own = ("WWW-Authenticate", "Negotiate")
    assert under("WWW-Authenticate", answers.complete(own, status="401 X")) == ["Negotiate"]
    for status in ("403 X", "407 X", "200 OK", "429 X"):
        assert under("WWW-Authenticate", answers.complete(status=status)) == []


def test_retry_after_comes_with_the_refusal_unless_the_handler_says_another() -> None:
    refusal = RateLimited()
    refusal.headers = [("Retry-After", "7")]
    answers = Answers()
    assert under("Retry-After", answers.complete(refusal=refusal)) == ["7"]
    assert under("Retry-After", answers.complete(("retry-after", "9"), refusal=refusal)) == ["9"]


# Vary


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ([], "Authorization, Cookie, X-API-Key"),
        (["Accept-Encoding"], "Accept-Encoding, Authorization, Cookie, X-API-Key"),
        (["cookie", "Accept"], "cookie, Accept, Authorization, X-API-Key"),
        (["x-api-key,COOKIE , authorization"], "x-api-key, COOKIE, authorization"),
        (["*"], "*"),
        (["Accept", "a, *"], "*"),
        ([""], "Authorization, Cookie, X-API-Key"),
        ([",,\t,"], "Authorization, Cookie, X-API-Key"),
    ],
)
def test_an_authenticated_routes_answer_varies_on_credentials_and_on_what_it_says_itself(
    own: list[str], expected: str
) -> None:
    fields = [("vary", value) for value in own]
    for noted in ({}, {"identity": ANN}):
        complete = Answers().complete(*fields, marks=[Requirement()], **noted)
        assert under("Vary", complete) == [expected]


def test_an_identity_past_the_policy_makes_the_answer_vary_on_credentials() -> None:
    complete = Answers().complete(marks=[Opening()], identity=ANN)
    assert under("Vary", complete) == [CREDENTIALS]
    assert under("Vary", Answers().complete(marks=[Opening()])) == []


def test_an_errors_format_varies_on_accept() -> None:
    assert under("Vary", Answers().complete(refusal=AccessDenied())) == ["Accept"]
    closed = Answers().complete(marks=[Requirement()], refusal=AccessDenied())
    assert under("Vary", closed) == [f"{CREDENTIALS}, Accept"]
    known = Answers().complete(("Vary", "Accept"), refusal=AccessDenied(), identity=ANN)
    assert under("Vary", known) == [f"Accept, {CREDENTIALS}"]


def test_vary_fields_are_left_alone_where_the_answer_depends_on_nothing_of_ours() -> None:
    own = [("Vary", "a"), ("vary", "A, b")]
    assert under("Vary", Answers().complete(*own)) == ["a", "A, b"]


# CORS

WITH_CORS = {
    "security": {
        "headers": {"enabled": False},
        "cors": {"allowed_origins": [APP], "expose_headers": [], "allow_credentials": True},
    }
}
ALLOWED = [("access-control-allow-credentials", "true"), ("access-control-allow-origin", APP)]


@pytest.mark.parametrize("marks", [None, [], [Requirement()]])
@pytest.mark.parametrize(
    ("origin", "expected"),
    [(APP, ALLOWED), (f"{APP}.evil.example", []), ("null", []), ("", []), (None, [])],
)
def test_an_origin_gets_its_cors_fields_and_every_answer_varies_on_it(
    origin: str | None, expected: Any, marks: Any
) -> None:
    complete = Answers(WITH_CORS).complete(marks=marks, origin=origin)
    assert [field for field in sorted_fields(complete) if "access-control" in field[0]] == expected
    assert under("Vary", complete)[0].split(", ")[0] == "Origin"


@pytest.mark.parametrize("origin", [APP, "https://evil.example", None])
def test_cors_fields_that_a_view_sets_are_the_policys_alone(origin: str | None) -> None:
    own = [
        ("access-control-allow-origin", "*"),
        ("Access-Control-Allow-Origin", "https://evil.example"),
        ("ACCESS-CONTROL-ALLOW-CREDENTIALS", "true"),
        ("Access-Control-Allow-Methods", "DELETE"),
        ("Access-Control-Allow-Headers", "X-Secret"),
        ("Access-Control-Expose-Headers", "X-Secret"),
        ("Access-Control-Max-Age", "999"),
        ("Access-Control-Allow-Private-Network", "true"),
    ]
    complete = Answers(WITH_CORS).complete(*own, origin=origin)
    found = [field for field in sorted_fields(complete) if "access-control" in field[0]]
    assert found == (ALLOWED if origin == APP else [])


def test_where_cors_is_off_the_view_answers_for_itself() -> None:
    own = ("Access-Control-Allow-Origin", "*")
    mark = CORSMark({"enabled": False})
    complete = Answers(WITH_CORS).complete(own, marks=[mark], origin=APP)
    assert under(own[0], complete) == ["*"]
    assert under("Vary", complete) == []


def test_a_preflights_answer_has_its_own_cors_fields_and_varies_on_what_it_asks() -> None:
    given_fields = (("Access-Control-Allow-Origin", APP), ("Access-Control-Allow-Methods", "GET"))
    complete = Answers(WITH_CORS).complete(
        ("Access-Control-Allow-Origin", "*"),
        status="204 NO CONTENT",
        origin=APP,
        cors_headers=given_fields,
    )
    assert [field for field in complete if field[0].startswith("Access")] == list(given_fields)
    assert under("Vary", complete) == [
        "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
    ]


def test_a_refused_preflight_has_no_cors_field_at_all() -> None:
    complete = Answers(WITH_CORS).complete(
        ("Access-Control-Allow-Origin", "*"),
        refusal=AccessDenied(),
        origin=APP,
        cors_headers=(),
    )
    assert [name for name, _ in complete if name.startswith("Access")] == []
    assert under("Cache-Control", complete) == ["no-store"]
    assert under("Vary", complete)[0].split(", ") == [
        "Origin",
        "Access-Control-Request-Method",
        "Access-Control-Request-Headers",
        "Accept",
    ]


# Rate limits


def hit_of(count: int, *, burst: int, taken: int, name: str = "default") -> Hit:
    """Return the answer to the last of so many requests in one instant."""
    limit = RateLimit(count, 60, burst, name)
    tat, hit = 0, None
    for _ in range(taken):
        tat, hit = take(limit, tat, 0)
    assert hit is not None
    return hit


def test_one_limit_is_told_in_the_standard_and_the_legacy_fields() -> None:
    hit = hit_of(60, burst=10, taken=3)
    expected = [
        ("ratelimit", '"default";r=7;t=1'),
        ("ratelimit-policy", '"default";q=60;w=60'),
        ("x-ratelimit-limit", "60"),
        ("x-ratelimit-remaining", "7"),
        ("x-ratelimit-reset", "1000003"),
        ("x-request-id", "id-1"),
    ]
    assert sorted_fields(Answers().complete(hits=(hit,))) == expected
    without = sorted_fields(Answers(legacy=False).complete(hits=(hit,)))
    assert without == [field for field in expected if not field[0].startswith("x-ratelimit")]


def test_several_limits_are_listed_in_order_and_the_tightest_is_the_legacy_one() -> None:
    loose, tight = hit_of(60, burst=60, taken=1), hit_of(5, burst=5, taken=4, name="export")
    for hits in ((loose, tight), (tight, loose)):
        complete = Answers().complete(hits=hits)
        assert under("RateLimit-Policy", complete) == [
            ", ".join(hit.limit.policy_item for hit in hits)
        ]
        assert under("RateLimit", complete) == [", ".join(hit.item for hit in hits)]
        assert under("X-RateLimit-Limit", complete) == ["5"]
        assert under("X-RateLimit-Remaining", complete) == ["1"]


def test_the_limit_that_refused_is_the_tightest_whatever_the_others_have_left() -> None:
    empty, refusing = hit_of(5, burst=5, taken=5), hit_of(60, burst=3, taken=4, name="export")
    assert (empty.admitted, refusing.admitted) == (True, False)
    refusing.remaining = 2  # it had two tokens, and the request cost three
    for hits in ((empty, refusing), (refusing, empty)):
        assert under("X-RateLimit-Limit", Answers().complete(hits=hits)) == ["60"]


def test_an_answers_own_limit_fields_are_kept() -> None:
    own = [("ratelimit", '"mine";r=1'), ("X-Ratelimit-Remaining", "1")]
    complete = Answers().complete(*own, hits=(hit_of(60, burst=10, taken=3),))
    assert under("RateLimit", complete) == ['"mine";r=1']
    assert under("X-RateLimit-Remaining", complete) == ["1"]
    assert under("X-RateLimit-Limit", complete) == ["60"]


# Any fields at all

NAMES = st.sampled_from(
    [
        *("Vary", "vary", "Cache-Control", "CACHE-CONTROL", "Expires", "X-Request-ID"),
        *("Access-Control-Allow-Origin", "WWW-Authenticate", "Retry-After", "RateLimit"),
        *("Content-Security-Policy", "X-Frame-Options", "Set-Cookie", "", "\xff", "a:b"),
    ]
)
VALUES = st.text(st.characters(max_codepoint=255), max_size=30) | st.sampled_from(
    ["public", "s-maxage=9", "private", "no-store", "*", "Origin", '"', "max-age=60"]
)


@given(
    st.lists(st.tuples(NAMES, VALUES), max_size=6),
    st.sampled_from(["200 OK", "401 X", "403 X", "429 X", "500 X"]),
    st.sampled_from([None, ANN]),
    st.booleans(),
)
def test_whatever_fields_a_response_has_no_shared_cache_may_keep_what_is_one_callers(
    own: list[tuple[str, str]], status: str, identity: Identity | None, refused: bool
) -> None:
    settings = {"security": {"cors": {"allowed_origins": [APP]}}}
    complete = Answers(settings).complete(
        *own,
        marks=[Requirement()],
        identity=identity,
        origin=APP,
        refusal=AccessDenied() if refused else None,
        status=status,
    )
    caching = [
        directive.strip().lower()
        for value in under("Cache-Control", complete)
        for directive in value.split(",")
    ]
    if refused or status[:3] in ("401", "403", "429"):
        assert caching == ["no-store"]
    elif identity is not None:
        assert len(under("Cache-Control", complete)) == 1
        assert "private" in caching or "no-store" in caching
        assert not {"public", "s-maxage=9"}.intersection(caching)
    [vary] = under("Vary", complete)
    varied = {name.strip(" \t").lower() for name in vary.split(",")}
    assert "*" in varied or varied.issuperset({"origin", "authorization", "cookie", "x-api-key"})
    assert under("Access-Control-Allow-Origin", complete) == [APP]
    assert under("X-Request-ID", complete) == ["id-1"]
    assert under("Set-Cookie", complete) == under("Set-Cookie", own)
    for name in ("Content-Security-Policy", "X-Frame-Options"):
        assert under(name, complete) == under(name, own) or len(under(name, complete)) == 1
