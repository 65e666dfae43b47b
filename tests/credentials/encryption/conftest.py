from __future__ import annotations

import re
from typing import Any

import pytest

from flask_m9m.credentials.encryption.encryption_keys import EncryptionKey


class Derived(EncryptionKey):
    """A key from which nothing is derived but what is given."""

    def __init__(self, derived: bytes) -> None:
        super().__init__("00" * 32)
        self._fixed = derived

    def derive(self, info: bytes, length: int, salt: bytes | None = None) -> bytes:
        return self._fixed if length > 4 else super().derive(info, length, salt)


def cryptography_vectors(name: str) -> str:
    vectors = pytest.importorskip("cryptography_vectors")
    with vectors.open_vector_file(name, "r") as file:
        return str(file.read())


def nist_vectors(name: str) -> list[dict[str, Any]]:
    """Return the cases of a file of the CAVP, each with the parameters of its section."""
    section: dict[str, Any] = {}
    cases: list[dict[str, Any]] = []
    for line in cryptography_vectors(name).splitlines():
        if parameter := re.fullmatch(r"\[(\w+) = (\d+)\]", line):
            section[parameter[1]] = int(parameter[2])
        elif line.startswith("Count ="):
            cases.append(dict(section))
        elif line == "FAIL":
            cases[-1]["FAIL"] = True
        elif value := re.fullmatch(r"(\w+) =\s*([0-9a-f]*)", line):
            cases[-1][value[1]] = bytes.fromhex(value[2])
    return cases
