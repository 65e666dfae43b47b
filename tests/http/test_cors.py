"""CORSPolicy (Fetch standard, CORS protocol)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_m9m.errors import CORSRefused
from flask_m9m.http.cors import CORSPolicy, is_preflight

APP = "https://app.example.com"


def policy(*origins: str, **changes: Any) -> CORSPolicy:
    defaults: dict[str, Any] = {
        "allowed_origins": origins or (APP,),
        "allowed_methods": ("GET", "POST", "DELETE"),
        "allowed_headers": ("Content-Type", "Authorization", "X-API-Key"),
        "expose_headers": ("RateLimit", "Retry-After"),
        "allow_credentials": False,
        "max_age": 600,
    }
    return CORSPolicy(**{**defaults, **changes})


def test_an_allowed_origin_is_named_and_another_gets_nothing() -> None:
    assert policy().response_headers(APP) == (
        ("Access-Control-Allow-Origin", APP),
        ("Access-Control-Expose-Headers", "RateLimit, Retry-After"),
    )
    assert policy().response_headers("https://evil.example") == ()
    assert policy().response_headers(None) == ()


def test_credentials_are_said_to_listed_origins_alone() -> None:
    fields = policy(allow_credentials=True).response_headers(APP)
    assert ("Access-Control-Allow-Credentials", "true") in fields
    assert not policy(allow_credentials=True).response_headers("https://evil.example")


def test_any_origin_is_an_asterisk_and_never_with_credentials() -> None:
    fields = policy("*").response_headers("https://any.example")
    assert fields[0] == ("Access-Control-Allow-Origin", "*")
    assert "Access-Control-Allow-Credentials" not in dict(fields)
    assert policy("*").response_headers(None)[0] == ("Access-Control-Allow-Origin", "*")


def test_development_lets_others_in_without_credentials_and_listed_ones_keep_theirs() -> None:
    development = policy(allow_credentials=True, any_origin_without_credentials=True)
    assert dict(development.response_headers(APP)) == {
        "Access-Control-Allow-Origin": APP,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Expose-Headers": "RateLimit, Retry-After",
    }
    other = dict(development.response_headers("https://any.example"))
    assert other["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in other
    assert development.origins == (APP, "*")


@pytest.mark.parametrize("origins", [(APP,), ("https://*.example.com",), ("*",)])
def test_null_is_let_in_only_where_it_is_listed(origins: tuple[str, ...]) -> None:
    assert policy(*origins).response_headers("null") == ()
    assert policy(*origins, "null").response_headers("null")[0] == (
        "Access-Control-Allow-Origin",
        "null",
    )


def test_an_answer_varies_wherever_an_origin_may_be_let_in() -> None:
    assert policy().varies
    assert policy("*").varies
    assert not policy(allowed_origins=()).varies


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://a.example.com", True),
        ("https://a.b.c.example.com", True),
        ("https://example.com", False),
        ("https://.example.com", False),
        ("https://a..example.com", False),
        ("https://evil-example.com", False),
        ("https://a.example.com.evil.net", False),
        ("https://evil.net/.example.com", False),
        ("https://evil.net#.example.com", False),
        ("https://evil.net?.example.com", False),
        ("https://evil.net\\.example.com", False),
        ("https://user@a.example.com", False),
        ("https://a.example.com:443", False),
        ("https://a.example.com:8443", False),
        ("http://a.example.com", False),
        ("https://A.example.com", False),
        ("https://a.example.com\n", False),
        ("https://" + "a" * 400 + ".example.com", False),
    ],
)
def test_a_host_wildcard_stands_for_whole_labels_under_its_scheme_and_port(
    origin: str, allowed: bool
) -> None:
    fields = policy("https://*.example.com").response_headers(origin)
    assert bool(fields) is allowed
    if allowed:
        assert fields[0] == ("Access-Control-Allow-Origin", origin)


def test_a_wildcard_with_a_port_stands_for_that_port() -> None:
    rules = policy("https://*.example.com:8443")
    assert rules.response_headers("https://a.example.com:8443")
    assert not rules.response_headers("https://a.example.com")


def test_the_nearer_of_two_wildcards_and_a_listed_origin_explain_themselves() -> None:
    rules = policy("https://*.example.com", "https://*.api.example.com", APP, "*")
    assert '"https://app.example.com"' in rules.explain(APP)
    assert '"https://*.api.example.com"' in rules.explain("https://v1.api.example.com")
    assert '"*", without credentials' in rules.explain("https://other.example")
    assert "no rule" in rules.explain("null")


@given(st.text(max_size=80))
def test_no_text_but_a_matching_origin_is_ever_echoed(origin: str) -> None:
    rules = policy("https://*.example.com", allow_credentials=True)
    fields = dict(rules.response_headers(origin))
    if fields:
        assert origin.startswith("https://")
        assert origin.endswith(".example.com")


def preflight(rules: CORSPolicy, method: str = "GET", headers: str | None = None) -> dict[str, str]:
    return dict(rules.preflight(APP, method, headers, ["GET", "HEAD", "POST", "OPTIONS"]))


def test_a_preflight_says_what_the_route_supports_within_what_is_allowed() -> None:
    assert preflight(policy(allow_credentials=True), "POST", "authorization,content-type") == {
        "Access-Control-Allow-Origin": APP,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Allow-Methods": "GET, HEAD, POST",
        "Access-Control-Allow-Headers": "Content-Type, Authorization, X-API-Key",
        "Access-Control-Max-Age": "600",
    }


def test_for_an_unknown_path_every_allowed_method_is_offered() -> None:
    fields = dict(policy().preflight(APP, "DELETE", None, None))
    assert fields["Access-Control-Allow-Methods"] == "GET, HEAD, POST, DELETE"


@pytest.mark.parametrize(
    ("origin", "method", "headers", "named"),
    [
        ("https://evil.example", "GET", None, "https://evil.example"),
        ("null", "GET", None, "null"),
        (APP, "DELETE", None, "DELETE"),  # the route does not support it
        (APP, "PUT", None, "PUT"),  # it is not allowed
        (APP, "get", None, "get"),
        (APP, "GET\r\nX: y", None, "GET\\r\\nX: y"),
        (APP, "", None, "''"),
        (APP, "GET", "x-mine", "x-mine"),
        (APP, "GET", "content-type, x mine", "x mine"),
        (APP, "GET", "x-ü", "x-\\xfc"),
        (APP, "GET", "x" * 5000, "too long"),
        (APP, "GET", "*", "'*'"),
    ],
)
def test_a_refusal_names_the_origin_the_method_or_the_header(
    origin: str, method: str, headers: str | None, named: str
) -> None:
    with pytest.raises(CORSRefused) as caught:
        policy().preflight(origin, method, headers, ["GET", "POST"])
    assert named in str(caught.value.description)
    assert str(caught.value.description).isascii()
    assert str(caught.value.description).isprintable()


@pytest.mark.parametrize("headers", ["", ",", " , ", "CONTENT-TYPE", " x-api-key\t"])
def test_listed_headers_pass_in_any_case(headers: str) -> None:
    assert preflight(policy(), "GET", headers)


def test_any_header_is_echoed_by_name_but_never_authorization() -> None:
    """`*` is literal with credentials, and never covers Authorization (Fetch §3.3.3)."""
    rules = policy(allowed_headers=("*",), allow_credentials=True)
    fields = preflight(rules, "GET", "x-one, x-two")
    assert fields["Access-Control-Allow-Headers"] == "x-one, x-two"
    with pytest.raises(CORSRefused, match="authorization"):
        preflight(rules, "GET", "authorization")
    with pytest.raises(CORSRefused):
        preflight(rules, "GET", "x one")
    listed = policy(allowed_headers=("*", "Authorization"))
    assert preflight(listed, "GET", "authorization")


@pytest.mark.parametrize("name", ["content-type", "accept", "range"])
def test_a_safelisted_name_that_a_browser_asks_for_is_answered_or_refused(name: str) -> None:
    """It asks where the value is not safelisted (application/json), and wants to see the name."""
    fields = preflight(policy(allowed_headers=("*",)), "POST", name)
    assert fields["Access-Control-Allow-Headers"] == name
    with pytest.raises(CORSRefused, match=name):
        preflight(policy(allowed_headers=("X-Mine",)), "POST", name)


def test_an_asterisk_among_the_requests_headers_is_no_name_to_allow() -> None:
    with pytest.raises(CORSRefused):
        preflight(policy(), "GET", "*")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"HTTP_ORIGIN": APP, "HTTP_ACCESS_CONTROL_REQUEST_METHOD": "GET"}, True),
        ({"HTTP_ORIGIN": APP}, False),
        ({"HTTP_ACCESS_CONTROL_REQUEST_METHOD": "GET"}, False),
    ],
)
def test_a_preflight_has_an_origin_and_a_method(environ: dict[str, str], expected: bool) -> None:
    assert is_preflight(environ) is expected
