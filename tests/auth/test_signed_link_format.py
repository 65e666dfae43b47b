"""Signed links: the format, the clock, and everything that is no signature."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
import zlib
from base64 import urlsafe_b64encode
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, cast
from urllib.parse import parse_qsl, quote, quote_plus, unquote_to_bytes, urlencode

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from flask_m9m.audit import AuditTrail
from flask_m9m.audit.chain import KeyCipher
from flask_m9m.auth import Tokens
from flask_m9m.auth.signed_links import LONGEST, Links, _parameters, _url_message
from flask_m9m.errors import InvalidSignature, InvalidToken, SettingsError
from flask_m9m.settings import AuditSettings, DatabaseSettings, JWTSettings
from flask_m9m.storage import ChangeFeed, Database
from flask_m9m.testing import Clock, make_settings

SECRET = "0123456789abcdef" * 3
OLD, OLDER = "fedcba9876543210" * 3, "00112233445566778899" * 3
NOW = 1_750_000_000


def settings(secret: str | None = SECRET, *previous: str, **others: Any) -> JWTSettings:
    jwt = {"secret": secret, "previous_secrets": list(previous), **others}
    return make_settings({"security": {"jwt": jwt}}).security.jwt


@pytest.fixture
def links(clock: Clock) -> Links:
    return Links(settings(), clock)


def b64(octets: bytes) -> str:
    return urlsafe_b64encode(octets).rstrip(b"=").decode()


def mac(message: str, kind: str, purpose: str = "", secret: str = SECRET) -> str:
    """Sign as the module's docstring says it, by other means."""
    key = HKDF(SHA256(), 32, salt=None, info=b"flask-m9m signed link v1").derive(secret.encode())
    key = hmac.digest(key, f"{kind}:{purpose}".encode(), "sha256")
    return b64(hmac.digest(key, message.encode(), "sha256"))


def request(url: str, method: str = "GET", script_name: str = "") -> dict[str, Any]:
    """Return the environ that a server makes of a request line."""
    path, _, query = url.partition("?")
    decoded = unquote_to_bytes(path).decode("latin-1")
    assert decoded.startswith(script_name)
    return {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": script_name,
        "PATH_INFO": decoded.removeprefix(script_name),
        "QUERY_STRING": query,
    }


def test_the_format_of_a_value_is_frozen(links: Links) -> None:
    text = links.sign({"user": 7, "name": "ä"}, "15m", "reset")
    payload = b64('{"user":7,"name":"ä"}'.encode())
    assert text == f"{payload}.1750000900.{mac(f'{payload}.1750000900', 'value', 'reset')}"
    assert text == (
        "eyJ1c2VyIjo3LCJuYW1lIjoiw6QifQ.1750000900.PgPc70HguOLiYkfv_VHVoDZc5nYPFhauQSn86NWq8S8"
    )
    assert links.unsign(text, "reset") == {"user": 7, "name": "ä"}


def test_the_format_of_a_url_is_frozen(links: Links) -> None:
    url = links.sign_url("/a%2fb/%C3%A4~?z=1&a=2&z=0&b&a=+%3d#top", 60, "post", "reset")
    message = "1750000060\nPOST\n/a/b/%C3%A4~\na=2&a=%20%3D&b=&z=1&z=0"
    signature = mac(message, "url", "reset")
    assert url == f"/a%2fb/%C3%A4~?z=1&a=2&z=0&b&a=+%3d&signature=1750000060.{signature}#top"
    assert signature == "kH880bZlu850fZCeWIE1wA-tJFZch__9G8kUTcIr8iY"


@pytest.mark.parametrize("payload", [None, True, 0, -1.5, "", "ä\x00\U0001f511", [], {"a": [{}]}])
def test_a_value_comes_back_as_it_was(links: Links, payload: object) -> None:
    assert links.unsign(links.sign(payload, 60)) == payload


@pytest.mark.parametrize("max_age", [90, 90.0, "90s", "1m30s", timedelta(seconds=90)])
def test_a_link_is_good_until_its_time_is_over(links: Links, clock: Clock, max_age: Any) -> None:
    text, url = links.sign("x", max_age), links.sign_url("/x", max_age)
    clock.advance(89.9)
    assert links.unsign(text) == "x"
    assert links.admits(request(url))
    clock.advance(0.1)
    assert not links.admits(request(url))
    with pytest.raises(InvalidSignature):
        links.unsign(text)


def test_a_life_shorter_than_a_second_is_one(links: Links) -> None:
    assert links.unsign(links.sign("x", "1ms")) == "x"


@pytest.mark.parametrize(
    "max_age",
    [
        *(0, "0s", -1, timedelta(0), timedelta(days=-1), 36_525 * 86_400 + 1, "36526d"),
        *(float("inf"), float("nan"), True, None, "", "soon", "1e9", b"60"),
    ],
)
def test_a_life_that_is_no_duration_or_out_of_range_is_refused(links: Links, max_age: Any) -> None:
    for sign in (links.sign, links.sign_url):
        with pytest.raises(ValueError, match=r"century|duration"):
            sign("/x", max_age)


def test_a_century_is_a_life(links: Links) -> None:
    assert links.unsign(links.sign("x", "36525d")) == "x"


@pytest.mark.parametrize(
    "payload", [{1}, b"x", object(), float("nan"), float("inf"), "\ud800", "x" * LONGEST]
)
def test_a_payload_that_is_no_json_or_too_long_is_refused(links: Links, payload: object) -> None:
    with pytest.raises(ValueError):
        links.sign(payload, 60)


def test_the_longest_value_that_is_signed_is_accepted(links: Links) -> None:
    longest = "x" * (LONGEST * 3 // 4)
    while True:
        with suppress(ValueError):
            text = links.sign(longest, 60)
            break
        longest = longest[:-1]
    assert len(text) in (LONGEST - 1, LONGEST)
    assert links.unsign(text) == longest
    signed = f"{b64(json.dumps(longest + 'xx').encode())}.{NOW + 60}"
    with pytest.raises(InvalidSignature):
        links.unsign(f"{signed}.{mac(signed, 'value')}")


def test_a_payload_nested_too_deep_is_refused(links: Links) -> None:
    deep: list[Any] = []
    for _ in range(200_000):
        deep = [deep]
    with pytest.raises(ValueError):
        links.sign(deep, 60)


@pytest.mark.parametrize(
    "url",
    ["", "x", "x/y", "?a=1", "#x", "mailto:x", "javascript:alert(1)", "http://[", "///x", "////x"],
)
def test_what_is_neither_a_path_nor_an_absolute_url_is_refused(links: Links, url: str) -> None:
    with pytest.raises(ValueError):
        links.sign_url(url, 60)


@pytest.mark.parametrize("url", ["/x?signature=1", "/x?a=1&%73ignature", "/x?signature="])
def test_a_url_is_signed_once(links: Links, url: str) -> None:
    with pytest.raises(ValueError, match="already"):
        links.sign_url(url, 60)


def test_the_longest_url_that_is_signed_is_accepted(links: Links) -> None:
    room = 8_000 - len("1750000060\nGET\n/x\na=")
    assert links.admits(request(links.sign_url(f"/x?a={'%3D' * (room // 3)}", 60)))
    with pytest.raises(ValueError, match="8000"):
        links.sign_url(f"/x?a={'x' * (room + 1)}", 60)


def test_a_link_for_get_answers_head_and_no_other_method(links: Links) -> None:
    url = links.sign_url("/x", 60)
    assert links.admits(request(url, "HEAD"))
    assert not links.admits(request(url, "POST"))
    assert not links.admits(request(links.sign_url("/x", 60, "DELETE")))
    assert links.admits(request(links.sign_url("/x", 60, "delete"), "DELETE"))
    with pytest.raises(ValueError, match="sign for GET"):
        links.sign_url("/x", 60, "head")


def test_the_path_counts_from_the_root_of_the_host(links: Links) -> None:
    url = links.sign_url("/app/x?a=1", 60)
    assert links.admits(request(url, script_name="/app"))
    assert links.admits(request(url))
    assert not links.admits({**request(url), "SCRIPT_NAME": "/app"})
    for absolute in ("https://example.com", "//example.com", "http://a:8080"):
        signed = links.sign_url(f"{absolute}/app/x?a=1", 60)
        assert signed.startswith(f"{absolute}/app/x?a=1&signature=")
        assert links.admits(request(signed.removeprefix(absolute)))
    assert links.admits(request("/" + links.sign_url("http://a", 60).removeprefix("http://a")))


@pytest.mark.parametrize(
    ("signed", "sent"),
    [
        ("/ä ö", "/%C3%A4%20%c3%b6"),
        ("/%7Euser/%61", "/~user/a"),
        ("/a;b='(c)'", "/a;b=%27%28c%29%27"),
        ("/100%", "/100%25"),
        ("/x?q=ä b", "/x?q=%C3%A4+b"),
        ("/x?q=a%20b", "/x?q=a+b"),
        ("/x?b=1&a=2", "/x?a=2&b=1"),
        ("/x?a=1&b", "/x?b=&a=1"),
        ("/x?a=%FF", "/x?a=%ff"),
    ],
)
def test_other_ways_to_write_a_url_are_the_same_url(links: Links, signed: str, sent: str) -> None:
    url = links.sign_url(signed, 60)
    signature = url[url.index("signature=") :]
    glue = "&" if "?" in sent else "?"
    assert links.admits(request(f"{sent}{glue}{signature}"))
    if glue == "&":
        path, _, query = sent.partition("?")
        assert links.admits(request(f"{path}?{signature}&{query}"))


@pytest.mark.parametrize(
    ("signed", "sent"),
    [
        ("/x", "/y"),
        ("/x", "/x/"),
        ("/x", "/X"),
        ("/x", "//x"),
        ("/x", "/x%00"),
        ("/%2541", "/%41"),
        ("/x?a=1", "/x"),
        ("/x", "/x?a=1"),
        ("/x?a=1", "/x?a=1&a=1"),
        ("/x?a=1&a=2", "/x?a=2&a=1"),
        ("/x?a=1", "/x?A=1"),
        ("/x?a=", "/x"),
        ("/x?a=%26b=1", "/x?a=&b=1"),
        ("/x?a=1;b=2", "/x?a=1&b=2"),
        ("/x?a=%FF", "/x?a=%FE"),
        ("/x?a=%FF", "/x?a=%EF%BF%BD"),
        ("/x?a=%2B", "/x?a=+"),
        ("/x?a=1", "/x%3Fa=1"),
        ("/x%0Aa=1", "/x?a=1"),
    ],
)
def test_another_url_is_another_url(links: Links, signed: str, sent: str) -> None:
    url = links.sign_url(signed, 60)
    signature = url[url.index("signature=") :]
    assert links.admits(request(url))
    assert not links.admits(request(f"{sent}{'&' if '?' in sent else '?'}{signature}"))


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
parameters = st.lists(st.tuples(texts, texts), max_size=5)


@given(segments=st.lists(texts, max_size=3), query=parameters, data=st.data())
def test_whatever_was_signed_holds_however_it_is_encoded(
    segments: list[str], query: list[tuple[str, str]], data: st.DataObject
) -> None:
    def encoded(encode: Callable[[str], str], pairs: list[tuple[str, str]]) -> str:
        return "&".join(f"{encode(name)}={encode(value)}" for name, value in pairs)

    links = Links(settings(), Clock())
    query = [one for one in query if one[0] != "signature"]
    path = "/root/" + "/".join(quote(one, safe="") for one in segments)
    url = links.sign_url(f"{path}?{encoded(quote_plus, query)}", 60)
    signature = url[url.index("signature=") :]
    names = list(dict.fromkeys(name for name, _ in query))
    shuffled = sorted(query, key=lambda one: data.draw(st.permutations(names)).index(one[0]))
    by_name = [pair for name in dict(shuffled) for pair in query if pair[0] == name]

    def hexadecimal(text: str) -> str:
        return "".join(f"%{octet:02x}" for octet in text.encode())

    assert links.admits(request(f"{path}?{signature}&{encoded(hexadecimal, by_name)}"))
    other = data.draw(parameters.filter(lambda one: one != query))
    if sorted(other, key=lambda one: one[0]) != sorted(query, key=lambda one: one[0]):
        assert not links.admits(request(f"{path}?{encoded(quote_plus, other)}&{signature}"))


def hostile(good: str, expiry: int) -> list[str]:
    """Return texts that are no signature, of one that is: `…expiry.signature`."""
    head, _, signature = good.rpartition(".")
    last = signature[-1]
    next_letter = chr(ord(last) + 1)  # the same bits, but one that is unused
    return [
        "",
        ".",
        "..",
        "x" * 10_000,
        "\x00",
        "ä\U0001f511\ud800",
        "None",
        good + "=",
        good + "\n",
        " " + good,
        good + ".",
        "." + good,
        good[:-1],
        good[:-1] + next_letter,
        head,
        f"{head}.",
        f"{head}.{'A' * 43}",
        f"{head}.{signature[::-1]}",
        good.replace(str(expiry), str(expiry + 1)),
        good.replace(str(expiry), f"0{expiry}"),
        good.replace(str(expiry), f"{expiry}.0"),
        good.replace(str(expiry), f"-{expiry}"),
        good.replace(str(expiry), "9" * 12),
        good.replace(str(expiry), "9" * 5_000),
        good.replace(str(expiry), "١٧٥٠٠٠٠٠٦٠"),
        good.replace(str(expiry), ""),
    ]


@pytest.mark.parametrize("number", range(26))
def test_what_is_no_signature_gives_the_one_error(links: Links, number: int) -> None:
    good = links.sign("x", 60)
    bad = hostile(good, NOW + 60)[number]
    assert links.unsign(good) == "x"
    with pytest.raises(InvalidSignature):
        links.unsign(bad)

    url = links.sign_url("/x?a=1", 60)
    path, _, stamp = url.rpartition("=")
    bad = quote(hostile(stamp, NOW + 60)[number], errors="surrogatepass")
    assert not links.admits(request(f"{path}={bad}"))


@pytest.mark.parametrize("text", [None, 7, b"x", [], object()])
def test_what_is_no_text_gives_the_one_error(links: Links, text: Any) -> None:
    with pytest.raises(InvalidSignature):
        links.unsign(text)


def test_two_signatures_are_none(links: Links) -> None:
    url = links.sign_url("/x", 60)
    signature = url.partition("?")[2]
    assert not links.admits(request(f"{url}&{signature}"))
    assert not links.admits(request(f"{url}&signature="))
    assert not links.admits(request(f"{url}&%73ignature=x"))
    assert not links.admits(request("/x"))
    assert not links.admits(request(f"{url}&{'&' * LONGEST}"))


def test_nothing_is_good_for_another_purpose_or_of_another_kind(links: Links) -> None:
    text, url = links.sign("x", 60, "reset"), links.sign_url("/x", 60, purpose="reset")
    for purpose in ("", "Reset", "reset ", "reset\x00"):
        assert not links.admits(request(url), purpose)
        with pytest.raises(InvalidSignature):
            links.unsign(text, purpose)
    assert links.admits(request(url), "reset")
    message = f"{NOW + 60}\nGET\n/x\n"
    assert links.admits(request(f"/x?signature={NOW + 60}.{mac(message, 'url')}"))
    assert not links.admits(request(f"/x?signature={NOW + 60}.{mac(message, 'value')}"))


def test_the_compressed_form_is_refused_though_its_signature_is_good(links: Links) -> None:
    bomb = zlib.compress(b"[" + b" " * 5_000_000 + b"]")
    for payload in (f".{b64(bomb)}", b64(bomb)):
        signed = f"{payload}.{NOW + 60}"
        with pytest.raises(InvalidSignature):
            links.unsign(f"{signed}.{mac(signed, 'value')}")


@pytest.mark.parametrize("octets", [b"", b"\xff", b"{", b"[" * 3_000, b"1" * 5_000, b'"\xed\xa0"'])
def test_a_payload_that_cannot_be_read_gives_the_one_error(links: Links, octets: bytes) -> None:
    signed = f"{b64(octets)}.{NOW + 60}"
    with pytest.raises(InvalidSignature):
        links.unsign(f"{signed}.{mac(signed, 'value')}")


def test_a_payload_that_is_deep_ends_in_no_recursion_error(links: Links) -> None:
    signed = f"{b64(b'[' * 2_900 + b']' * 2_900)}.{NOW + 60}"
    with suppress(InvalidSignature):  # whether it is too deep is the interpreter's to say
        links.unsign(f"{signed}.{mac(signed, 'value')}")


def test_previous_secrets_verify_and_the_current_one_signs(clock: Clock) -> None:
    older = Links(settings(OLDER), clock)
    text, url = older.sign("x", 60), older.sign_url("/x", 60)
    rotated = Links(settings(SECRET, OLD, OLDER), clock)
    assert rotated.unsign(text) == "x"
    assert rotated.admits(request(url))
    assert Links(settings(), clock).unsign(rotated.sign("y", 60)) == "y"
    assert not Links(settings(SECRET, OLD), clock).admits(request(url))


def test_no_link_is_a_token_and_no_token_a_link(links: Links, clock: Clock) -> None:
    database = Database(DatabaseSettings(), "nowhere")
    feed = ChangeFeed(database, propagation=1.0, max_staleness=30.0, clock=clock)
    no_cipher = cast(KeyCipher, None)  # nothing is encrypted
    trail = AuditTrail(AuditSettings(enabled=False), database, no_cipher, "an app", clock=clock)
    tokens = Tokens(settings(), feed, trail, clock)
    token = tokens.issue("ann")
    with pytest.raises(InvalidSignature):
        links.unsign(token)
    header, payload, _ = token.split(".")
    for text in (links.sign({"sub": "ann"}, 60), f"{header}.{payload}.{mac('x', 'value')}"):
        with pytest.raises(InvalidToken):
            tokens.verify(text)
    # What the bare secret signs, as it does tokens, is no signature of a link.
    signed = f"{b64(json.dumps('x').encode())}.{NOW + 60}"
    bare = b64(hmac.digest(SECRET.encode(), signed.encode(), hashlib.sha256))
    with pytest.raises(InvalidSignature):
        links.unsign(f"{signed}.{bare}")
    # Nor is what the links' key signs a token: their keys have nothing in common.
    with pytest.raises(InvalidToken):
        tokens.verify(f"{header}.{payload}.{mac(f'{header}.{payload}', 'value')}")


@pytest.mark.parametrize("off", [settings(None), settings(enabled=False)])
def test_without_a_secret_the_error_says_what_to_do(off: JWTSettings) -> None:
    links = Links(off)
    for use in (
        lambda: links.sign("x", 60),
        lambda: links.unsign("x"),
        lambda: links.sign_url("/x", 60),
        lambda: links.admits(request("/x")),
    ):
        with pytest.raises(SettingsError, match="M9M_JWT_SECRET"):
            use()


def test_the_systems_clock_is_the_default() -> None:
    links = Links(settings())
    expiry = int(links.sign("x", 60).split(".")[1])
    assert 0 < expiry - time.time() <= 61


def test_more_parameters_than_a_link_can_have_are_neither_signed_nor_parsed(links: Links) -> None:
    url = links.sign_url("/x?" + "&".join(f"a{n}=1" for n in range(255)), 60)
    assert links.admits(request(url))
    with pytest.raises(ValueError, match="fewer than 256 parameters"):
        links.sign_url("/x?" + "&".join(f"a{n}=1" for n in range(256)), 60)
    assert not links.admits(request(f"{url}&"))


_PIECES = st.sampled_from(
    ["a", "=", "==", "&", "+", "%", "%4", "%41", "%3d", "%zz", "%0A", "\n", "\r", "\t", "é", "\xff"]
)


@given(st.lists(_PIECES, max_size=20).map("".join))
def test_a_query_is_decoded_and_encoded_as_urllib_does_it(query: str) -> None:
    parameters = _parameters(query)
    assert parameters == parse_qsl(query, keep_blank_values=True, encoding="latin-1")
    message = _url_message("1", "GET", b"/", parameters, None)
    ordered = sorted(parameters, key=lambda parameter: parameter[0])
    expected = urlencode(ordered, quote_via=quote, safe="", encoding="latin-1")
    assert message == f"1\nGET\n/\n{expected}"
