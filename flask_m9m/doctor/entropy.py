"""How hard a secret is to guess, at most: what can be told from the text alone."""

from __future__ import annotations

import math
import re
from collections import Counter
from itertools import pairwise

LEAST_BITS = 80.0
"""Below this a text is no random secret of 128 bits (ASVS 11.5.1). The shortest that is one has 32
hex digits; how often each occurs tells 83 bits or more of such, in 20,000 made at random."""

_WORD_BITS = 11.0  # of one of the 2,048 words that come to mind
_DIGIT_BITS = math.log2(10)
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_LONGEST_WORD = 14
_SHORTEST_ON_AVERAGE = 3.5
_MOST_NUMBERS = 2


def guessing_bits(text: str) -> float:
    """Return the most bits of entropy that a text can be said to have."""
    text = _without_repetition(text)
    if not text:
        return 0.0
    length = _unforeseen(text)
    counts = Counter(text)
    per_character = -sum(n / len(text) * math.log2(n / len(text)) for n in counts.values())
    bits = length * per_character
    words = _words(text)
    if words:
        bits = min(bits, _WORD_BITS * len(words) + _DIGIT_BITS * sum(map(str.isdigit, text)))
    return bits


def _without_repetition(text: str) -> str:
    """Return the part of a text of which all the rest is a repetition.

    That is its period, which the longest border tells (Knuth, Morris and Pratt).
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


def _unforeseen(text: str) -> int:
    """Count the characters that do not follow from the two before: `abcd`, `8642`, `aaaa`."""
    steps = [ord(right) - ord(left) for left, right in pairwise(text)]
    foreseen = sum(a == b and abs(a) <= 2 for a, b in pairwise(steps))
    return len(text) - foreseen


def _words(text: str) -> list[str]:
    """Return the words of a text that consists of words; none where it does not."""
    words = _WORD.findall(text)
    if text == text.upper() or len(words) < 3 or len(re.findall(r"\d+", text)) > _MOST_NUMBERS:
        return []
    lengths = [len(word) for word in words]
    if max(lengths) > _LONGEST_WORD or sum(lengths) / len(words) < _SHORTEST_ON_AVERAGE:
        return []
    return words
