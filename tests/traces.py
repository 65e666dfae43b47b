"""Traces of secrets in files, logs and messages: as they are, as base64, as hexadecimal digits."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator, Mapping

WINDOW = 12
"""So many characters in a row of a secret, in any form, are a trace of it."""

_RUN = re.compile(rb"[\x21-\x7e]{%d,}" % WINDOW)  # NULs and the like need no look


class Traces:
    """Finds secrets of which a part stands somewhere.

    Args:
        secrets: what each is, and its random part: printable ASCII without spaces.
    """

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._windows = {
            form[at : at + WINDOW]: name
            for name, random in secrets.items()
            for form in _forms(random.encode("ascii"))
            for at in range(len(form) - WINDOW + 1)
        }

    def found_in(self, data: bytes | str) -> set[str]:
        """Return what the secrets are of which there are traces, never a secret."""
        octets = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
        found = set()
        for match in _RUN.finditer(octets):
            run = match.group()
            for at in range(len(run) - WINDOW + 1):
                name = self._windows.get(run[at : at + WINDOW])
                if name is not None:
                    found.add(name)
        return found


def _forms(octets: bytes) -> Iterator[bytes]:
    yield octets
    yield octets.hex().encode()
    yield octets.hex().upper().encode()
    for before in range(3):  # whatever stands in front, such as the name in HTTP Basic
        padded = b"\0" * before + octets
        whole = b64encode(padded[: len(padded) // 3 * 3])[(0, 2, 3)[before] :]
        yield whole
        yield whole.translate(bytes.maketrans(b"+/", b"-_"))
