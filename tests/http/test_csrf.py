from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flask_m9m.errors import CSRFFailed
from flask_m9m.http.address import Client
from flask_m9m.http.cors import CORSPolicy
from flask_m9m.http.csrf import DISPATCHED_METHOD, check, is_handshake, is_safe, own_origin

PLAIN = Client("192.0.2.1", "192.0.2.1", secure=False)
SECURE = Client("192.0.2.1", "192.0.2.1", secure=True)


def environ_of(method: str = "POST", host: str | None = "api.example", **fields: str) -> Any:
    environ = {"REQUEST_METHOD": method, "SERVER_NAME": "internal"}
    if host is not None:
        environ["HTTP_HOST"] = host
    return environ | {f"HTTP_{name.upper()}": value for name, value in fields.items()}


def cors_of(*origins: str, credentials: bool = True, **options: Any) -> CORSPolicy:
    return CORSPolicy(
        allowed_origins=origins,
        allowed_methods=("GET", "POST"),
        allowed_headers=(),
        expose_headers=(),
        allow_credentials=credentials,
        max_age=60,
        **options,
    )


def passes(environ: Any, client: Client = SECURE, cors: CORSPolicy | None = None) -> bool:
    try:
        check(environ, client, cors)
    except CSRFFailed:
        return False
    return True


FORGED = {"sec_fetch_site": "cross-site", "origin": "https://evil.example"}


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "get", "Head"])
def test_a_safe_method_passes_whatever_page_sent_it(method: str) -> None:
    assert is_safe(environ_of(method))
    assert passes(environ_of(method, **FORGED))


@pytest.mark.parametrize(
    "method", ["POST", "PUT", "PATCH", "DELETE", "post", "PURGE", "GET ", "GETS", ""]
)
def test_any_other_method_is_refused_to_another_sites_page(method: str) -> None:
    assert not is_safe(environ_of(method))
    assert not passes(environ_of(method, **FORGED))


@pytest.mark.parametrize(
    ("fields", "passed"),
    [
        # No browser, or one that says nothing.
        ({}, True),
        ({"sec_fetch_site": ""}, True),
        # Typed into the address bar, or the page's own.
        ({"sec_fetch_site": "none"}, True),
        ({"sec_fetch_site": "same-origin"}, True),
        ({"origin": "https://api.example"}, True),
        ({"sec_fetch_site": "none", "origin": "https://api.example"}, True),
        # Another site's, by either field.
        ({"sec_fetch_site": "cross-site"}, False),
        ({"sec_fetch_site": "same-site"}, False),
        ({"sec_fetch_site": "Cross-Site"}, False),
        ({"sec_fetch_site": "cross-site", "origin": "https://api.example"}, False),
        ({"sec_fetch_site": "same-site", "origin": "https://api.example"}, False),
        ({"sec_fetch_site": "none", "origin": "https://evil.example"}, False),
        ({"sec_fetch_site": "garbage", "origin": "https://evil.example"}, False),
        ({"origin": "https://evil.example"}, False),
        # A server joins repeated fields: one foreign site is enough.
        ({"sec_fetch_site": "same-origin, cross-site"}, False),
        ({"sec_fetch_site": "cross-site,none"}, False),
        ({"sec_fetch_site": "none,Same-Site"}, False),
        ({"sec_fetch_site": "same-origin,same-origin"}, True),
        ({"sec_fetch_site": "same-origin, none", "origin": "https://evil.example"}, False),
        # Origins that are nearly the own one.
        ({"origin": "null"}, False),
        ({"origin": ""}, False),
        ({"origin": "http://api.example"}, False),
        ({"origin": "https://api.example:8443"}, False),
        ({"origin": "https://api.example."}, False),
        ({"origin": "https://api.example/"}, False),
        ({"origin": "https://api.example.evil.example"}, False),
        ({"origin": "https://evil.example/https://api.example"}, False),
        ({"origin": "https://xapi.example"}, False),
        ({"origin": "https://user@api.example"}, False),
        ({"origin": "https://api.example https://evil.example"}, False),
        ({"origin": "https://api.example,https://evil.example"}, False),
        ({"origin": "https://api.example\x00"}, False),
    ],
)
def test_an_unsafe_request_has_to_come_from_a_page_of_this_origin(
    fields: dict[str, str], passed: bool
) -> None:
    assert passes(environ_of(**fields)) is passed


@pytest.mark.parametrize("fields", [{"origin": "null"}, {"origin": "https://evil.example"}])
def test_a_browser_that_says_same_origin_is_believed_whatever_its_origin_field_is(
    fields: dict[str, str],
) -> None:
    assert passes(environ_of(sec_fetch_site="same-origin", **fields))


@pytest.mark.parametrize(("method", "dispatched"), [("GET", "delete"), ("POST", "GET")])
def test_a_method_that_the_app_replaces_counts_as_well_as_the_one_sent(
    method: str, dispatched: str
) -> None:
    environ = {**environ_of(method, **FORGED), DISPATCHED_METHOD: dispatched}
    assert not is_safe(environ)
    assert not passes(environ)


# WebSocket handshakes


@pytest.mark.parametrize(
    ("fields", "handshake"),
    [
        ({"upgrade": "websocket"}, True),
        ({"upgrade": "WebSocket"}, True),
        ({"upgrade": "h2c, websocket/13"}, True),
        ({"sec_websocket_key": "AAAAAAAAAAAAAAAAAAAAAA=="}, True),
        ({"upgrade": "h2c"}, False),
        ({"connection": "upgrade"}, False),
        ({}, False),
    ],
)
def test_a_handshake_has_to_come_from_a_page_of_this_origin(
    fields: dict[str, str], handshake: bool
) -> None:
    """RFC 6455 §10.2; cross-site WebSocket hijacking."""
    environ = environ_of("GET", **fields)
    assert is_handshake(environ) is handshake
    assert passes(environ)  # no browser
    assert passes({**environ, "HTTP_ORIGIN": "https://api.example"})
    for foreign in ("https://evil.example", "https://app.example", "http://api.example", "null"):
        assert passes({**environ, "HTTP_ORIGIN": foreign}) is not handshake
    assert passes({**environ, "HTTP_SEC_FETCH_SITE": "cross-site"}) is not handshake
    allowed = {**environ, "HTTP_ORIGIN": "https://app.example"}
    assert passes(allowed, cors=cors_of("https://app.example"))
    without = cors_of("https://app.example", credentials=False)
    assert passes(allowed, cors=without) is not handshake


# What CORS allows


@pytest.mark.parametrize(
    ("cors", "origin", "passed"),
    [
        (cors_of("https://app.example"), "https://app.example", True),
        (cors_of("https://*.app.example"), "https://a.b.app.example", True),
        (cors_of("null"), "null", True),
        (cors_of("https://app.example"), "https://evil.example", False),
        (cors_of("https://app.example"), "null", False),
        (cors_of("https://*.app.example"), "https://app.example", False),
        (cors_of("https://*.app.example"), "https://evil.example?.app.example", False),
        (cors_of("https://app.example"), "HTTPS://APP.EXAMPLE", False),
        (cors_of("https://app.example", credentials=False), "https://app.example", False),
        (cors_of("*", credentials=False), "https://app.example", False),
        (cors_of(any_origin_without_credentials=True), "https://app.example", False),
        (cors_of(), "https://app.example", False),
        (None, "https://app.example", False),
    ],
)
def test_an_origin_that_may_send_credentials_is_no_stranger(
    cors: CORSPolicy | None, origin: str, passed: bool
) -> None:
    assert passes(environ_of(origin=origin), cors=cors) is passed
    assert passes(environ_of(origin=origin, sec_fetch_site="cross-site"), cors=cors) is passed


def test_cors_allows_nobody_who_does_not_say_where_he_comes_from() -> None:
    cors = cors_of("https://app.example", any_origin_without_credentials=True)
    assert not passes(environ_of(sec_fetch_site="cross-site"), cors=cors)


# The origin of the request itself


@pytest.mark.parametrize(
    ("client", "host", "expected"),
    [
        (SECURE, "API.example", "https://api.example"),
        (SECURE, "api.example:443", "https://api.example"),
        (SECURE, "api.example:80", "https://api.example:80"),
        (SECURE, "api.example:8443", "https://api.example:8443"),
        (PLAIN, "api.example:80", "http://api.example"),
        (PLAIN, "api.example:443", "http://api.example:443"),
        (PLAIN, "api.example:8080", "http://api.example:8080"),
        (SECURE, "[2001:DB8::443]", "https://[2001:db8::443]"),
        (SECURE, "[2001:db8::1]:443", "https://[2001:db8::1]"),
        (PLAIN, None, "http://internal"),
        (PLAIN, "", "http://internal"),
    ],
)
def test_the_own_origin_is_written_as_a_browser_writes_it(
    client: Client, host: str | None, expected: str
) -> None:
    environ = environ_of(host=host)
    assert own_origin(environ, client) == expected
    assert passes({**environ, "HTTP_ORIGIN": expected}, client)


def test_a_host_that_a_trusted_proxy_tells_is_the_own_one() -> None:
    client = Client("192.0.2.1", "192.0.2.1", secure=True, host="Public.example:443")
    environ = environ_of(host="backend:8000")
    assert own_origin(environ, client) == "https://public.example"
    assert passes({**environ, "HTTP_ORIGIN": "https://public.example"}, client)
    assert not passes({**environ, "HTTP_ORIGIN": "https://backend:8000"}, client)


TEXT = st.text(st.characters(max_codepoint=255), max_size=40)


@given(origin=TEXT, site=TEXT, host=TEXT)
@example(origin="https://", site="cross-site", host="")
@example(origin="https://ÿ", site="Same-Site", host="ÿ")
def test_no_garbage_passes_for_the_own_origin_and_none_raises_another_error(
    origin: str, site: str, host: str
) -> None:
    environ = environ_of(host=host, origin=origin, sec_fetch_site=site)
    own = origin.lower() == own_origin(environ, SECURE)
    foreign_site = "cross-site" in site.lower() or "same-site" in site.lower()
    assert passes(environ) is (site.lower() == "same-origin" or (own and not foreign_site))
