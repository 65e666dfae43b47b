"""The wire format of API keys, which never changes."""

from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_m9m.auth.api_key_format import is_key, key_digest, make_key

PREFIX = "m9m_sk_"
KNOWN = "m9m_sk_0123456789ABCDEFGHIJKLMNOPQRSTUV1ggZdL"


def test_the_format_is_frozen() -> None:
    assert is_key(KNOWN, PREFIX)
    assert key_digest(KNOWN) == hashlib.sha256(KNOWN.encode()).digest()
    assert is_key("0" * 32 + "2wjyrI", "")


def test_keys_are_random_and_of_the_form() -> None:
    keys = {make_key(PREFIX) for _ in range(200)}
    assert len(keys) == 200
    for key in keys:
        assert re.fullmatch(r"m9m_sk_[0-9A-Za-z]{38}", key)
        assert is_key(key, PREFIX)
        assert not is_key(key, "other_")


@pytest.mark.parametrize(
    "text",
    [
        "",
        PREFIX,
        KNOWN + "\n",
        KNOWN + "\x00",
        " " + KNOWN,
        KNOWN[:-1],
        KNOWN + "0",
        KNOWN.upper(),
        "M9M_SK_" + KNOWN[7:],
        KNOWN.replace("0", "\u0660"),
        KNOWN.replace("1", "\u00b9"),
        KNOWN[:-6] + "000000",
        KNOWN * 1000,
    ],
)
def test_what_is_no_key_is_told_by_its_form(text: str) -> None:
    assert not is_key(text, PREFIX)


@given(st.integers(7, len(KNOWN) - 1), st.characters())
def test_one_wrong_character_is_found(place: int, character: str) -> None:
    changed = KNOWN[:place] + character + KNOWN[place + 1 :]
    assert is_key(changed, PREFIX) == (changed == KNOWN)
