"""Access tokens: what is issued, and what is believed."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import jwt
import pytest

from flask_m9m.auth.jwt.claims import ClaimRules
from flask_m9m.auth.jwt.issuer import Issuer
from flask_m9m.auth.jwt.signing_keys import SigningKey, SigningKeyRing
from flask_m9m.auth.jwt.verifier import Verifier
from flask_m9m.errors import InvalidToken
from flask_m9m.testing import Clock

SECRET = bytes(range(32))
RING = SigningKeyRing([SigningKey(SECRET)])
NOW = 1_750_000_000
HEADER = b'{"alg":"HS256"}'


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


def verifier(clock: Clock, **rules: Any) -> Verifier:
    return Verifier(RING, ClaimRules(**rules), clock=clock)


def issuer(clock: Clock, **options: Any) -> Issuer:
    return Issuer(RING, expiration=3600, clock=clock, **options)


def encode(claims: dict[str, Any], typ: str | None = "at+jwt") -> str:
    return jwt.encode({"sub": "ann", "exp": NOW + 60, **claims}, SECRET, headers={"typ": typ})


def reason(token: str, verifier: Verifier) -> str:
    with pytest.raises(InvalidToken) as caught:
        verifier.verify(token)
    assert caught.value.description == "invalid or expired token"
    return caught.value.reason


def test_a_token_carries_what_it_was_issued_with(clock: Clock) -> None:
    rules = {"issuer": "https://idp", "audience": "app"}
    token = issuer(clock, **rules).issue(
        "ann", ["a", "b"], ["admin"], {"tenant": {"id": [7]}}, expires_in=90, fresh=True
    )
    assert jwt.get_unverified_header(token) == {
        "alg": "HS256",
        "kid": RING.current.kid,
        "typ": "at+jwt",
    }
    claims = jwt.decode(token, options={"verify_signature": False})
    jti = claims.pop("jti")
    assert len(jti) == 22
    assert claims == {
        "iss": "https://idp",
        "aud": "app",
        "sub": "ann",
        "iat": NOW,
        "nbf": NOW,
        "exp": NOW + 90,
        "scope": "a b",
        "roles": ["admin"],
        "fresh": True,
        "tenant": {"id": [7]},
    }
    identity = verifier(clock, **rules).verify(token)
    assert (identity.subject, identity.scheme) == ("ann", "bearer")
    assert identity.scopes == {"a", "b"}
    assert identity.roles == {"admin"}
    assert identity.credential_id == jti
    assert identity.expires_at == NOW + 90


def test_no_two_tokens_have_one_id(clock: Clock) -> None:
    ids = {verifier(clock).verify(issuer(clock).issue("ann")).credential_id for _ in range(100)}
    assert len(ids) == 100


def test_an_identity_is_frozen_all_through(clock: Clock) -> None:
    identity = verifier(clock).verify(issuer(clock).issue("ann", claims={"a": {"b": [1, {}]}}))
    with pytest.raises(AttributeError):
        identity.subject = "bob"  # type: ignore[misc]
    for change in (
        lambda: identity.claims.update(sub="bob"),
        lambda: identity.claims["a"].pop("b"),
        lambda: identity.claims["a"]["b"].append(2),
        lambda: identity.claims["a"]["b"][1].setdefault("c", 1),
        lambda: identity.claims.__ior__({"sub": "bob"}),
    ):
        with pytest.raises((TypeError, AttributeError)):
            change()
    assert "ann" not in repr(identity.claims.get("nothing"))


@pytest.mark.parametrize(
    "arguments",
    [
        {"subject": ""},
        {"subject": None},
        {"subject": "\ud800"},
        {"subject": "a", "scopes": ["a b"]},
        {"subject": "a", "scopes": ['a"']},
        {"subject": "a", "roles": [""]},
        {"subject": "a", "claims": {"sub": "b"}},
        {"subject": "a", "claims": {"role": "admin"}},
        {"subject": "a", "claims": {"scope": "x"}},
        {"subject": "a", "claims": {"exp": 9}},
        {"subject": "a", "expires_in": 0},
        {"subject": "a", "expires_in": -1},
        {"subject": "a", "expires_in": float("nan")},
        {"subject": "a", "expires_in": float("inf")},
        {"subject": "a", "claims": {"x": "y" * 9000}},
    ],
)
def test_what_cannot_go_into_a_token_is_refused(clock: Clock, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        issuer(clock).issue(**arguments)


def test_scopes_as_one_text_do_not_become_letters(clock: Clock) -> None:
    token = issuer(clock).issue("ann", "workflow:read workflow:write", "admin")
    identity = verifier(clock).verify(token)
    assert identity.scopes == {"workflow:read", "workflow:write"}
    assert identity.roles == {"admin"}


DATES = [
    ({"exp": NOW}, False),
    ({"exp": NOW + 1}, True),
    ({"exp": NOW + 0.5}, True),
    ({"exp": NOW - 1}, False),
    ({"exp": -1}, False),
    ({"exp": str(NOW + 60)}, False),
    ({"exp": True}, False),
    ({"exp": None}, False),
    ({"exp": [NOW + 60]}, False),
    ({"exp": 10**30}, False),
    ({"exp": 253_402_300_799}, True),
    ({"exp": 253_402_300_800}, False),
    ({"nbf": NOW + 5}, True),
    ({"nbf": NOW + 6}, False),
    ({"iat": NOW + 5}, True),
    ({"iat": NOW + 6}, False),
    ({"nbf": "now"}, False),
    ({"iat": None}, False),
    ({"iat": False}, False),
    ({"nbf": -(10**30)}, False),
]


@pytest.mark.parametrize(("claims", "good"), DATES)
def test_dates_are_judged_to_the_second(clock: Clock, claims: dict[str, Any], good: bool) -> None:
    token = encode_raw({"sub": "ann", "exp": NOW + 60, **claims})
    if good:
        assert verifier(clock).verify(token).subject == "ann"
    else:
        assert reason(token, verifier(clock))


def encode_raw(claims: dict[str, Any]) -> str:
    from flask_m9m.auth.jwt.jws import sign

    return sign(claims, RING.current, "at+jwt")


def test_leeway_widens_both_ends_and_expiry_gets_no_grace_beyond_it(clock: Clock) -> None:
    lenient = verifier(clock, leeway=30)
    assert lenient.verify(encode({"exp": NOW - 29}))
    assert reason(encode({"exp": NOW - 30}), lenient) == "the token has expired"
    assert lenient.verify(encode({"nbf": NOW + 35}))
    assert reason(encode({"nbf": NOW + 36}), lenient) == "the token is not valid yet"


def test_a_token_without_an_end_is_refused(clock: Clock) -> None:
    assert "exp" in reason(jwt.encode({"sub": "ann"}, SECRET), verifier(clock))


@pytest.mark.parametrize(
    ("typ", "good", "good_typed"),
    [
        ("at+jwt", True, True),
        ("AT+JWT", True, True),
        ("application/at+jwt", True, True),
        ("JWT", True, False),
        ("jwt", True, False),
        (None, True, False),
        ("", True, False),
        ("rt+jwt", False, False),
        ("m9m-refresh+jwt", False, False),
        ("application/jwt", False, False),
        ("at+jwt ", False, False),
    ],
)
def test_only_access_tokens_pass(
    clock: Clock, typ: str | None, good: bool, good_typed: bool
) -> None:
    token = encode({}, typ)  # an empty typ is left out by the library that writes it
    for accept_untyped, expected in ((True, good), (False, good_typed)):
        judge = verifier(clock, accept_untyped=accept_untyped)
        if expected:
            assert judge.verify(token).subject == "ann"
        else:
            assert "typ" in reason(token, judge)


@pytest.mark.parametrize(
    ("claims", "good"),
    [
        ({"type": "access"}, True),
        ({"typ": "Bearer"}, True),
        ({"token_use": "access"}, True),
        ({"type": "refresh"}, False),  # Flask-JWT-Extended
        ({"token_type": "refresh"}, False),  # simplejwt
        ({"token_use": "id"}, False),
        ({"typ": "ID"}, False),
        ({"typ": None}, False),
        ({"type": ["access"]}, False),
        ({"nonce": "n"}, False),  # OpenID Connect
        ({"at_hash": "h"}, False),
    ],
)
def test_another_librarys_refresh_and_id_tokens_are_refused(
    clock: Clock, claims: dict[str, Any], good: bool
) -> None:
    token = encode(claims, "JWT")
    if good:
        assert verifier(clock).verify(token).subject == "ann"
    else:
        assert reason(token, verifier(clock))


@pytest.mark.parametrize(
    ("claims", "good"),
    [
        ({"iss": "https://idp", "aud": "app"}, True),
        ({"iss": "https://idp", "aud": ["x", "app"]}, True),
        ({"iss": "https://idp"}, False),
        ({"aud": "app"}, False),
        ({"iss": "https://idp.evil", "aud": "app"}, False),
        ({"iss": "https://id", "aud": "app"}, False),
        ({"iss": ["https://idp"], "aud": "app"}, False),
        ({"iss": "https://idp", "aud": "ap"}, False),
        ({"iss": "https://idp", "aud": "apps"}, False),
        ({"iss": "https://idp", "aud": ["ap", "p"]}, False),
        ({"iss": "https://idp", "aud": ["app", 7]}, False),
        ({"iss": "https://idp", "aud": {"app": 1}}, False),
        ({"iss": "https://idp", "aud": []}, False),
    ],
)
def test_issuer_and_audience_are_compared_in_full(
    clock: Clock, claims: dict[str, Any], good: bool
) -> None:
    judge = verifier(clock, issuer="https://idp", audience="app")
    token = encode_raw({"sub": "ann", "exp": NOW + 60, **claims})
    if good:
        assert judge.verify(token).subject == "ann"
    else:
        assert reason(token, judge)


@pytest.mark.parametrize("audience", ["app", ["app"], [], None, ""])
def test_an_audience_nobody_asked_for_is_refused(clock: Clock, audience: object) -> None:
    token = encode_raw({"sub": "ann", "exp": NOW + 60, "aud": audience})
    assert "aud" in reason(token, verifier(clock))


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": 7},
        {"sub": None},
        {"sub": ""},
        {"sub": ["ann"]},
        {"jti": 7},
        {"jti": None},
        {"scope": ["a"]},
        {"scope": 7},
        {"roles": "admin"},
        {"roles": [7]},
        {"roles": {"admin": True}},
        {"role": ["admin"]},
        {"iss": 7},
    ],
)
def test_claims_of_the_wrong_kind_are_refused(clock: Clock, claims: dict[str, Any]) -> None:
    assert reason(encode_raw({"sub": "ann", "exp": NOW + 60, **claims}), verifier(clock))


def test_m9ms_own_tokens_are_accepted(clock: Clock) -> None:
    claims = {
        "userId": "u-1",
        "email": "ann@example.com",
        "role": "admin",
        "iss": "m9m",
        "iat": NOW,
        "exp": NOW + 60,
    }
    identity = verifier(clock).verify(jwt.encode(claims, SECRET))
    assert identity.subject == "u-1"
    assert identity.roles == {"admin"}
    assert identity.claims["email"] == "ann@example.com"
    both = jwt.encode({**claims, "sub": "s-1"}, SECRET)
    assert verifier(clock).verify(both).subject == "s-1"


def test_a_token_without_a_key_id_is_tried_against_every_secret(clock: Clock) -> None:
    old, new = SigningKey(b"o" * 32), SigningKey(b"n" * 32)
    judge = Verifier(SigningKeyRing([new, old]), clock=clock)
    claims = {"sub": "ann", "exp": NOW + 60}
    for secret in (b"o" * 32, b"n" * 32):
        assert judge.verify(jwt.encode(claims, secret)).subject == "ann"
        named = jwt.encode(claims, secret, headers={"kid": old.kid})
        if secret == b"o" * 32:
            assert judge.verify(named).subject == "ann"
        else:
            assert reason(named, judge)


def test_a_cached_token_is_judged_by_the_clock_each_time(clock: Clock) -> None:
    judge, token = verifier(clock), issuer(clock).issue("ann", expires_in=60)
    assert judge.verify(token) is judge.verify(token)
    clock.advance(59)
    assert judge.verify(token)
    clock.advance(1)
    assert reason(token, judge) == "the token has expired"
    clock.advance(-7200)
    assert reason(token, judge) == "the token is not valid yet"


def test_the_cache_is_bounded_and_keeps_no_token(clock: Clock) -> None:
    judge = Verifier(RING, clock=clock, capacity=10)
    tokens = [issuer(clock).issue(f"u-{n}") for n in range(50)]
    for token in tokens:
        judge.verify(token)
    assert len(judge._known) == 10
    assert all(len(digest) == 32 for digest in judge._known._entries)
    assert [judge.verify(token).subject for token in tokens] == [f"u-{n}" for n in range(50)]


def test_bad_tokens_do_not_fill_the_cache(clock: Clock) -> None:
    judge = verifier(clock)
    for number in range(50):
        reason(jwt.encode({"sub": f"u-{number}", "exp": NOW + 60}, b"x" * 32), judge)
    assert len(judge._known) == 0


def test_threads_share_the_cache(clock: Clock) -> None:
    judge = Verifier(RING, clock=clock, capacity=5)
    tokens = [issuer(clock).issue(f"u-{n}") for n in range(20)]
    failed: list[BaseException] = []

    def hammer() -> None:
        try:
            for _ in range(100):
                for number, token in enumerate(tokens):
                    assert judge.verify(token).subject == f"u-{number}"
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=hammer) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(judge._known) <= 5


@pytest.mark.parametrize("depth", [10, 300, 600, 900, 1400])
def test_claims_nested_deep_are_taken_or_refused_and_nothing_else(clock: Clock, depth: int) -> None:
    from flask_m9m.auth.jwt.jws import _encode

    payload = b'{"sub":"ann","exp":%d,"a":' % (NOW + 60) + b"[" * depth + b"]" * depth + b"}"
    head = f"{_encode(HEADER)}.{_encode(payload)}"
    token = f"{head}.{_encode(RING.current.sign(head.encode()))}"
    if depth < 100:
        assert verifier(clock).verify(token).subject == "ann"
        return
    with contextlib.suppress(InvalidToken):
        assert verifier(clock).verify(token).subject == "ann"
