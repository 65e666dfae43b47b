"""Names and passwords: normalization, and what it costs."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_m9m.auth.names import has_control, has_surrogate, name_of, normalize


@given(st.text(max_size=30))
def test_short_text_becomes_nfc(text: str) -> None:
    assert normalize(text) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize(
    "text", ["e\u0301" * 500, "\u1100\u1161\u11a8" * 300, "a\u0315\u0300" * 99]
)
def test_long_text_of_a_language_becomes_nfc(text: str) -> None:
    assert normalize(text) == unicodedata.normalize("NFC", text)


def test_more_combining_characters_than_any_language_has_stay_as_they_are() -> None:
    assert normalize("e" + "\u0301" * 30) == "\xe9" + "\u0301" * 29
    longer = "e" + "\u0301" * 31
    assert normalize(longer) == longer


@pytest.mark.parametrize("marks", ["\u0315\u05b0", "\u0301", "\u0315" * 500 + "\u05b0" * 500])
def test_normalization_takes_linear_time(marks: str) -> None:
    """CVE-2023-46695 and CVE-2025-27556 of Django."""
    text = "a" + marks * (200_000 // len(marks))
    started = time.process_time()
    assert normalize(text) == text
    assert name_of(text) is None
    assert time.process_time() - started < 2  # quadratic work would take a minute


@pytest.mark.parametrize(
    ("text", "control", "surrogate"),
    [
        ("ann", False, False),
        ("\x1f", True, False),
        (" \x7e\xa0", False, False),
        ("a\x7f", True, False),
        ("\x9f", True, False),
        ("a\ud800", False, True),
        ("\udfff\n", True, True),
        ("\ue000\U0001f600", False, False),
    ],
)
def test_control_characters_and_surrogates_are_found(
    text: str, control: bool, surrogate: bool
) -> None:
    assert (has_control(text), has_surrogate(text)) == (control, surrogate)
