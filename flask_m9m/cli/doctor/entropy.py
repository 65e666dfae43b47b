"""Entropy of a secret: an upper bound in bits, estimated from its text alone."""

from __future__ import annotations

import math
import re
from collections import Counter
from itertools import pairwise

LEAST_BITS = 80.0
"""A text below this estimate is not a random secret of 128 bits (ASVS 11.5.1). The shortest such
secret has 32 hex digits: of 20,000 random ones, none was estimated at less than 83 bits."""

_WORD_BITS = 11.0  # a word, out of the 2,048 that people think of
_DIGIT_BITS = math.log2(10)
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_LONGEST_WORD = 14
_SHORTEST_ON_AVERAGE = 3.5
_MOST_NUMBERS = 2


def guessing_bits(text: str) -> float:
    """Estimate the most bits of entropy that a text can have.

    Repetitions and sequences (`abcd`) are left out. A text of words counts by its words.
    """
    text = _without_repetition(text)
    if not text:
        return 0.0
    length = _count_unpredictable(text)
    counts = Counter(text)
    per_character = -sum(n / len(text) * math.log2(n / len(text)) for n in counts.values())
    bits = length * per_character
    words = _split_words(text)
    if words:
        bits = min(bits, _WORD_BITS * len(words) + _DIGIT_BITS * sum(map(str.isdigit, text)))
    return bits


def _without_repetition(text: str) -> str:
    """Return the part of a text that the rest repeats: its period.

    The longest border of the text gives the period (Knuth, Morris and Pratt).
    """
    borders = [0] * len(text)
    for place in range(1, len(text)):
        border = borders[place - 1]
        while border and text[place] != text[border]:
            border = borders[border - 1]
        borders[place] = border + (text[place] == text[border])
    if not text or borders[-1] * 4 < len(text):
        return text
    return text[: len(text) - borders[-1]]


def _count_unpredictable(text: str) -> int:
    """Count the characters that do not continue a sequence such as `abcd`, `8642` or `aaaa`."""
    steps = [ord(right) - ord(left) for left, right in pairwise(text)]
    predictable = sum(a == b and abs(a) <= 2 for a, b in pairwise(steps))
    return len(text) - predictable


def _split_words(text: str) -> list[str]:
    """Split a text that consists of words; return no words for any other text."""
    words = _WORD.findall(text)
    if text == text.upper() or len(words) < 3 or len(re.findall(r"\d+", text)) > _MOST_NUMBERS:
        return []
    lengths = [len(word) for word in words]
    if max(lengths) > _LONGEST_WORD or sum(lengths) / len(words) < _SHORTEST_ON_AVERAGE:
        return []
    return words
