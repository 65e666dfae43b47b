from __future__ import annotations

import base64
import random

import pytest

from flask_m9m.cli.doctor.entropy import LEAST_BITS, guessing_bits


@pytest.mark.parametrize("seed", range(20))
def test_random_secrets_have_enough_bits(seed: int) -> None:
    octets = random.Random(seed).randbytes
    for _ in range(50):
        for text in (
            octets(16).hex(),
            octets(32).hex(),
            base64.b64encode(octets(24)).decode(),
            base64.urlsafe_b64encode(octets(32)).decode().rstrip("="),
            base64.b32encode(octets(20)).decode(),
        ):
            assert guessing_bits(text) >= LEAST_BITS, text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a" * 64,
        "ab" * 20,
        "a" * 40 + "b",
        "0123456789abcdef" * 4,
        "abcdefghijklmnopqrstuvwxyz0123456789",
        "zyxwvutsrqponmlkjihgfedcba9876543210",
        "my very secret production jwt key",
        "my-very-secret-jwt-key-2024",
        "MySuperSecretTokens2024!!!!!!!!!!",
        "correct horse battery staple correct horse battery staple",
    ],
)
def test_texts_that_people_write_have_too_few_bits(text: str) -> None:
    assert guessing_bits(text) < LEAST_BITS


def test_a_long_text_is_estimated_fast() -> None:
    assert guessing_bits("ab" * 30_000 + "c") > 0
