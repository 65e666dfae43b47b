"""Mutations of texts: what attackers and broken clients make of a valid one.

`Mutator` starts from a corpus of valid texts and a dictionary of what means something in them.
Texts are of the characters of a header field (ISO 8859-1 without CR, LF and NUL), unless the corpus
or the dictionary has others.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from string import ascii_lowercase, ascii_uppercase

from .harness import LONGEST

SEPARATORS = (" ", ",", ";", "=", '"', "\\", "\t", ":", ".", "/", "%", "-", "*", "(", ")", "'")
NUMBERS = ("0", "1", "-1", "00", "1e9", "1.5", "99999999999999999999", "0x10", "NaN", "²")
ODD = ("\x01", "\x0b", "\x7f", "\x80", "\x85", "\xa0", "\xad", "\xff", "é", "Ã©", "%00", "%0d%0a")
_SWAPPED = str.maketrans(
    f"{ascii_lowercase}{ascii_uppercase}", f"{ascii_uppercase}{ascii_lowercase}"
)
_FIELD = "".join(chr(code) for code in range(1, 256) if chr(code) not in "\r\n")


class Mutator:
    """Makes texts like those of a corpus.

    Args:
        corpus: valid texts.
        tokens: texts that mean something, to be put anywhere.
        alphabet: the characters of random texts.
        long: the share of texts that are made long.
    """

    def __init__(
        self,
        corpus: Sequence[str],
        tokens: Sequence[str] = (),
        *,
        alphabet: str = _FIELD,
        long: float = 0.02,
    ) -> None:
        self.corpus = tuple(corpus)
        self._tokens = (*tokens, *(one for one in (*SEPARATORS, *NUMBERS, *ODD) if one))
        self._meaning = tuple(tokens) or SEPARATORS
        self._alphabet = alphabet
        self._long = long

    def text(self, random: Random) -> str:
        """Make a text of at most 16 KiB: one of the corpus, changed up to eight times."""
        text = random.choice(self.corpus)
        chance = random.random()
        if chance < 0.03:
            return text
        if chance < 0.06:
            return "".join(random.choices(self._alphabet, k=random.randrange(40)))
        for _ in range(1 if chance < 0.5 else random.randrange(1, 9)):
            text = self._changed(text, random)
        if random.random() < self._long:
            text = self._lengthened(text, random)
        return text[:LONGEST]

    def _changed(self, text: str, random: Random) -> str:
        kind = random.randrange(10)
        at = random.randrange(len(text) + 1)
        if kind == 0:
            return text[:at] + random.choice(self._alphabet) + text[at + 1 :]
        if kind == 1:
            return text[:at] + text[at + random.randrange(1, 5) :]
        if kind <= 3:
            return text[:at] + random.choice(self._tokens) + text[at:]
        if kind == 4:
            return text[:at] + random.choice(self._meaning) + text[at + random.randrange(4) :]
        if kind == 5:
            return text[:at] + text[at : at + random.randrange(1, 40)] + text[at:]
        if kind == 6:
            other = random.choice(self.corpus)
            return text[:at] + other[random.randrange(len(other) + 1) :]
        if kind == 7:
            other = random.choice(self.corpus)
            return text + random.choice((",", ", ", ";", " ", "&", "")) + other
        if kind == 8:
            return text[:at] + text[at:].translate(_SWAPPED)
        return text[:at] + random.choice(self._tokens) * random.randrange(2, 12) + text[at:]

    def _lengthened(self, text: str, random: Random) -> str:
        """Repeat something, up to 16 KiB in all."""
        at = random.randrange(len(text) + 1)
        unit = random.choice(self._tokens)
        while random.random() < 0.4:
            unit += random.choice(self._tokens)
        if random.random() < 0.3:
            unit = text or unit
        room = random.choice((256, 1_024, 4_096, LONGEST, LONGEST)) - len(text)
        return text[:at] + unit * (max(0, room) // len(unit)) + text[at:]
