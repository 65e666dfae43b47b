from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_m9m.http.headers import SecurityHeaders, merge_vary, new_nonce, private_cache_control

CSP, HSTS = "Content-Security-Policy", "Strict-Transport-Security"


def with_nonce(policy: str) -> str:
    headers = SecurityHeaders({CSP: policy})
    return dict(headers.with_nonce(headers.plain, "N"))[CSP]


def test_hsts_goes_over_https_alone_and_never_in_development() -> None:
    values = {HSTS: "max-age=9", "X-Frame-Options": "DENY"}
    headers = SecurityHeaders(values)
    assert dict(headers.secure) == values
    assert dict(headers.plain) == {"X-Frame-Options": "DENY"}
    assert headers.names == {"strict-transport-security", "x-frame-options"}
    assert SecurityHeaders(values, development=True).secure == headers.plain


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (
            "default-src 'self'",
            "default-src 'self'; script-src 'self' 'nonce-N'; style-src 'self' 'nonce-N'",
        ),
        (
            "default-src 'none'",
            "default-src 'none'; script-src 'nonce-N'; style-src 'nonce-N'",
        ),
        (
            "script-src https: ; img-src *",
            "script-src https: 'nonce-N'; img-src *",
        ),
        (
            "Default-Src 'self'; STYLE-SRC 'none'; script-src-elem 'self'",
            "default-src 'self'; style-src 'nonce-N'; script-src-elem 'self' 'nonce-N'; "
            "script-src 'self' 'nonce-N'",
        ),
        ("upgrade-insecure-requests", "upgrade-insecure-requests"),
        ("", ""),
    ],
)
def test_a_nonce_joins_the_sources_of_scripts_and_styles(policy: str, expected: str) -> None:
    assert with_nonce(policy) == expected


def test_a_nonce_without_a_policy_adds_nothing() -> None:
    headers = SecurityHeaders({"X-Frame-Options": "DENY"})
    assert headers.with_nonce(headers.plain, "N") == [("X-Frame-Options", "DENY")]


def test_nonces_are_long_and_differ() -> None:
    nonces = {new_nonce() for _ in range(1000)}
    assert len(nonces) == 1000
    assert min(map(len, nonces)) == 22


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["Origin"], "Origin"),
        (["Accept, origin", "Origin"], "Accept, origin"),
        (["a", "b,  c ,", "A"], "a, b, c"),
        (["*", "Origin"], "*"),
        (["Cookie", "x, *"], "*"),
    ],
)
def test_vary_names_each_field_once(values: list[str], expected: str) -> None:
    assert merge_vary(values) == expected


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (None, "no-store"),
        ("max-age=60", "max-age=60, private"),
        ("PUBLIC, S-MaxAge=9, max-age=60", "max-age=60, private"),
        ("public", "private"),
        ("private, public, max-age=60", "private, max-age=60"),
        ("Private", "Private"),
        ("no-store, max-age=0", "no-store, max-age=0"),
        ("No-Store", "No-Store"),
        ("no-cache", "no-cache, private"),
        ('private="Set-Cookie, X", max-age=5', 'private="Set-Cookie, X", max-age=5, private'),
        ('no-cache="a, no-store, b", max-age=5', 'no-cache="a, no-store, b", max-age=5, private'),
        ("must-revalidate, max-age=60", "must-revalidate, max-age=60, private"),
        (",,max-age=1,,", "max-age=1, private"),
        ('max-age=60, x="', "no-store"),
        ('x="\\", max-age=60', "no-store"),
    ],
)
def test_what_an_authenticated_answer_says_of_caching_is_made_private(
    own: str | None, expected: str
) -> None:
    assert private_cache_control(own) == expected


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=100))
def test_whatever_the_app_says_a_shared_cache_may_not_keep_it(own: str) -> None:
    private = private_cache_control(own)
    names = [one.strip().lower() for one in private.split(",")]
    assert "private" in names or "no-store" in names
    assert private_cache_control(private) == private
