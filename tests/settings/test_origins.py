from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_m9m.settings import OriginKind, parse_origin_rule

ACCEPTED = [
    "https://app.example.com",
    "http://localhost:3000",
    "https://xn--bcher-kva.example",
    "http://127.0.0.1:8000",
    "http://[::1]:8000",
    "https://app.example.com:8443",
    "chrome-extension://abcdefghijklmnop",
    "capacitor://localhost",
    "https://my_app.internal",
    "https://*.example.com",
    "https://*.example.com:8443",
    "http://*.localhost:5173",
    "*",
    "null",
]


@pytest.mark.parametrize("text", ACCEPTED)
def test_an_origin_as_browsers_send_it_is_a_rule(text: str) -> None:
    assert parse_origin_rule(text).text == text


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("https://app.example.com/", "https://app.example.com"),
        ("https://app.example.com/path?query#fragment", "https://app.example.com"),
        ("https://App.Example.com", "https://app.example.com"),
        ("HTTPS://app.example.com", "https://app.example.com"),
        ("https://user:word@app.example.com", "https://app.example.com"),
        ("https://app.example.com:443", "https://app.example.com"),
        ("http://app.example.com:80", "http://app.example.com"),
        ("http://app.example.com:080", "http://app.example.com"),
        ("https://app.example.com.", "https://app.example.com"),
        ("app.example.com", "https://app.example.com"),
        ("app.example.com:8443", "https://app.example.com:8443"),
        ("*.example.com", "https://*.example.com"),
        ("https://*.Example.com/", "https://*.example.com"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("https://[0:0::1]", "https://[::1]"),
        (" https://app.example.com ", "https://app.example.com"),
    ],
)
def test_an_origin_that_browsers_would_write_otherwise_is_refused_with_the_right_form(
    text: str, right: str
) -> None:
    with pytest.raises(ValueError) as caught:
        parse_origin_rule(text)
    assert f'"{right}"' in str(caught.value)
    assert parse_origin_rule(right).text == right
    assert "word" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://",
        "https://*",
        "https://*.com",
        "https://*.192.168.0.1",
        "https://a.*.example.com",
        "https://*.*.example.com",
        "https://ex*mple.com",
        "https://*example.com",
        r"https://.*\.example\.com",
        r"^https://[a-z]+\.example\.com$",
        "(a+)+$",
        "https://a.example.com, https://b.example.com",
        "https://a.example.com https://b.example.com",
        "https://app.example.com:0",
        "https://app.example.com:65536",
        "https://app.example.com:port",
        "https://1.2.3",
        "https://1.2.3.256",
        "https://-a.example.com",
        "https://a..example.com",
        "https://[::1",
        "https://[1.2.3.4]",
        "chrome-extension://*.abc.def",
        "file://",
        "file://host",
        "data://host",
        "javascript://host",
        "**",
        "Null",
        "https://app.example.com\n",
        "https://app\x00.example.com",
        "https://" + "a" * 10_000 + ".com",
    ],
)
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_origin_rule(text)


@pytest.mark.parametrize(
    "origin",
    [
        "https://a.example.com",
        "https://a.b.example.com",
        "https://x-y_z.example.com",
    ],
)
def test_a_wildcard_matches_one_or_more_labels(origin: str) -> None:
    assert parse_origin_rule("https://*.example.com").matches(origin)


@pytest.mark.parametrize(
    "origin",
    [
        "https://example.com",
        "https://.example.com",
        "https://a..example.com",
        "http://a.example.com",
        "https://a.example.com:8443",
        "https://a.example.com.evil.net",
        "https://evil.net/a.example.com",
        "https://evil.net#.example.com",
        "https://evil.net?.example.com",
        "https://user@.example.com",
        "https://evil.net\\.example.com",
        "https://evil.net%00.example.com",
        "https://A.example.com",
        "https://aexample.com",
        "https://a.example.com\n",
        "https://a\n.example.com",
        "https://[::1].example.com",
        "https://é.example.com",
        "https://-.example.com",
        "null",
        "*",
        "",
        "https://",
        "https://" + "a." * 5_000 + "example.com",
    ],
)
def test_a_wildcard_matches_nothing_else(origin: str) -> None:
    assert not parse_origin_rule("https://*.example.com").matches(origin)


def test_an_exact_rule_matches_itself_alone() -> None:
    rule = parse_origin_rule("https://app.example.com")
    assert rule.kind is OriginKind.EXACT
    assert rule.matches("https://app.example.com")
    assert not rule.matches("https://app.example.com:443")
    assert not rule.matches("https://APP.example.com")


def test_the_star_matches_every_origin_but_null() -> None:
    rule = parse_origin_rule("*")
    assert rule.matches("https://anybody.example")
    assert not rule.matches("null")
    assert parse_origin_rule("null").matches("null")


@given(st.one_of(st.text(), st.text("*:/.[]@#?ahtps-0123\\%\x00ÿ"), st.from_regex(r"\w+://\S+")))
def test_no_text_raises_anything_but_value_error(text: str) -> None:
    try:
        rule = parse_origin_rule(text)
    except ValueError:
        return
    assert rule.text == text
    assert rule.kind is not OriginKind.EXACT or rule.matches(text)


@given(st.text(max_size=40), st.sampled_from(["https://*.example.com", "http://*.a.b:81"]))
def test_no_text_between_scheme_and_host_lets_another_host_in(labels: str, rule: str) -> None:
    scheme, _, host = rule.partition("*")
    if parse_origin_rule(rule).matches(f"{scheme}{labels}{host}"):
        assert set(labels) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_.")
        assert all(labels.split("."))
