from __future__ import annotations

import base64
import json
import secrets
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_m9m.auth.jwt.jws import LONGEST, inspect, parse, parse_object, sign, verify
from flask_m9m.auth.jwt.signing_keys import SigningKey, SigningKeyRing
from flask_m9m.errors import InvalidToken

SECRET = bytes(range(64))
KEY = SigningKey(SECRET)
RING = SigningKeyRing([KEY])


def b64(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(header: bytes, payload: bytes = b"{}") -> str:
    head = f"{b64(header)}.{b64(payload)}"
    return f"{head}.{b64(KEY.sign(head.encode()))}"


def test_the_wire_format_is_frozen() -> None:
    token = sign({"sub": "ann", "n": 1}, KEY, "at+jwt")
    assert token == (
        "eyJhbGciOiJIUzI1NiIsImtpZCI6ImNjNjZiYzQwIiwidHlwIjoiYXQrand0In0"
        ".eyJzdWIiOiJhbm4iLCJuIjoxfQ.G6ypXaWgzGnao4oFL39J4gonOfkRxIL6gUGBgOYCe7Y"
    )


def test_another_library_reads_what_is_signed_and_the_other_way_round() -> None:
    token = sign({"sub": "änn"}, KEY, "at+jwt")
    assert jwt.decode(token, SECRET, ["HS256"]) == {"sub": "änn"}
    assert parse_object(verify(jwt.encode({"sub": "ann"}, SECRET), RING).payload) == {"sub": "ann"}


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_each_algorithm_signs_and_no_other_verifies(algorithm: str) -> None:
    token = sign({"sub": "ann"}, SigningKey(SECRET, algorithm), "at+jwt")
    assert jwt.get_unverified_header(token)["alg"] == algorithm
    for other in ("HS256", "HS384", "HS512"):
        ring = SigningKeyRing([SigningKey(SECRET, other)])
        if other == algorithm:
            assert verify(token, ring).header["alg"] == algorithm
        else:
            with pytest.raises(InvalidToken):
                verify(token, ring)


@pytest.mark.parametrize("position", range(3))
@pytest.mark.parametrize("junk", ["=", "+", "/", " ", "\n", "\t", "?", "#", "\x00", "é", "."])
def test_nothing_but_canonical_base64url_is_read(position: int, junk: str) -> None:
    parts = sign({"sub": "ann"}, KEY, "at+jwt").split(".")
    for mangled in (parts[position] + junk, junk + parts[position]):
        with pytest.raises(InvalidToken):
            verify(".".join([*parts[:position], mangled, *parts[position + 1 :]]), RING)


def test_unused_bits_are_zero() -> None:
    token = sign({"sub": "ann"}, KEY, "at+jwt")
    last = token[-1]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = alphabet[alphabet.index(last) ^ 1]
    assert jwt.utils.base64url_decode((token[:-1] + twin).rpartition(".")[2]) == (
        jwt.utils.base64url_decode(token.rpartition(".")[2])
    )
    with pytest.raises(InvalidToken):
        verify(token[:-1] + twin, RING)


@pytest.mark.parametrize(
    "header",
    [
        b'{"alg":"HS256","crit":["x"],"x":1}',
        b'{"alg":"HS256","crit":[]}',
        b'{"alg":"HS256","crit":"x"}',
        b'{"alg":"HS256","crit":["alg"]}',
        b'{"alg":"HS256","crit":["b64"],"b64":false}',
        b'{"alg":"HS256","b64":false}',
        b'{"alg":"HS256","b64":null}',
        b'{"alg":"none","alg":"HS256"}',
        b'{"alg":"HS256","alg":"HS256"}',
        b'{"alg":"HS256","kid":7}',
        b'{"alg":"HS256","kid":null}',
        b'{"alg":"HS256","kid":"unknown"}',
        b'{"alg":"hs256"}',
        b'{"alg":["HS256"]}',
        b'{"typ":"JWT"}',
        b'["alg","HS256"]',
        b'"HS256"',
        b"\xff\xfe",
        b'{"alg":"HS256","x":NaN}',
        b'{"alg":"HS256","x":1e400}',
        b'{"alg":"HS256","x":"\\ud800"}',
    ],
)
def test_a_header_with_anything_unexpected_is_refused(header: bytes) -> None:
    with pytest.raises(InvalidToken):
        verify(signed(header), RING)


@pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "x5c", "x5t"])
def test_a_key_that_the_token_brings_along_is_not_looked_at(name: str) -> None:
    attacker = SigningKey(secrets.token_bytes(32))
    key = {"kty": "oct", "k": b64(secrets.token_bytes(32))}
    value: Any = key if name == "jwk" else "http://127.0.0.1:9/keys"
    head = f"{b64({'alg': 'HS256', name: value})}.{b64({'sub': 'ann'})}"
    with pytest.raises(InvalidToken):
        verify(f"{head}.{b64(attacker.sign(head.encode()))}", RING)


def test_white_space_in_the_json_is_allowed() -> None:
    assert verify(signed(b' {"alg" : "HS256" ,\r\n "kid": "' + KEY.kid.encode() + b'"} '), RING)


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1,"a":1}',
        b'{"a":{"b":1,"b":2}}',
        b"[" * 4000,
        b'{"a":' * 1500,
        b"9" * 5000,
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":Infinity}',
        b'{"a":-1e999}',
        b"",
        b"null",
        b"\xef\xbb\xbf{}",
        b'{"a":"\\udfff\\ud800"}',
    ],
)
def test_only_plain_json_objects_are_read(text: bytes) -> None:
    with pytest.raises(InvalidToken):
        parse_object(text)


def test_a_pair_of_surrogates_is_one_character() -> None:
    assert parse_object(b'{"a":"\\ud83d\\ude00"}') == {"a": "\U0001f600"}


@given(st.text())
def test_any_text_is_a_jws_or_invalid(text: str) -> None:
    with pytest.raises(InvalidToken):
        verify(text, RING)


@given(st.text("eyJ.-_A{\"'", max_size=60))
def test_text_that_looks_like_a_jws_is_invalid_too(text: str) -> None:
    with pytest.raises(InvalidToken):
        inspect(text)


@given(st.binary(min_size=32, max_size=32))
def test_a_wrong_signature_never_holds(signature: bytes) -> None:
    head = signed(b'{"alg":"HS256"}').rpartition(".")[0]
    if KEY.sign(head.encode()) != signature:
        with pytest.raises(InvalidToken):
            verify(f"{head}.{b64(signature)}", RING)


def test_a_token_that_would_be_too_long_is_not_issued_and_not_read() -> None:
    with pytest.raises(ValueError, match="8192"):
        sign({"sub": "a" * 7000}, KEY, "at+jwt")
    with pytest.raises(InvalidToken):
        parse("a" * (LONGEST + 1))


def test_a_header_that_is_longer_than_any_is_not_parsed() -> None:
    for length, reason in ((1_500, "no configured key"), (1_600, "2048 characters")):
        header = b64(b'{"alg":"HS256","x":"' + b"a" * length + b'"}')
        with pytest.raises(InvalidToken) as refused:
            verify(f"{header}.{b64(b'{}')}.AAAA", RING)
        assert reason in refused.value.reason


@pytest.mark.parametrize("value", [object(), float("nan"), {1, 2}, b"x", "\ud800"])
def test_what_json_cannot_say_is_no_claim(value: object) -> None:
    with pytest.raises(ValueError):
        sign({"x": value}, KEY, "at+jwt")
