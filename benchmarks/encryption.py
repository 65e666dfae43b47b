"""What encrypting and decrypting a stored credential costs, beside MultiFernet.

`Cipher` with either cipher, `MultiFernet` of the package cryptography, each with a current key and
a previous one. What is decrypted was encrypted under the current key, and once more under the
previous one, which `MultiFernet` tries second. Rounds are interleaved; figures are microseconds,
the minimum and the median of the rounds.
"""

from __future__ import annotations

import argparse
import platform
import secrets
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

from cryptography.fernet import Fernet, MultiFernet

from flask_m9m.credentials.encryption.cipher import Cipher, Record
from flask_m9m.settings import CredentialSettings

BAR = 25.0
RECORD = Record("4f1c7c9e-8a53-4b0e-9d52-3f6c1e0f7a11", "httpHeaderAuth", "user-1")
Work = Callable[[], object]


class Case:
    """One thing that is done again and again."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self.rounds: list[float] = []

    def run(self, times: int) -> None:
        work = self._work
        begin = time.perf_counter()
        for _ in range(times):
            work()
        self.rounds.append((time.perf_counter() - begin) / times * 1e6)

    def __str__(self) -> str:
        return f"{min(self.rounds):.2f} · {statistics.median(self.rounds):.2f}"


def ours(kind: str, plaintext: bytes) -> dict[str, Work]:
    current, previous = secrets.token_hex(32), secrets.token_hex(32)
    both = {"encryption_key": current, "previous_keys": [previous], "cipher": kind}
    cipher = Cipher(CredentialSettings.model_validate(both))
    old = Cipher(CredentialSettings.model_validate({"encryption_key": previous, "cipher": kind}))
    text, old_text = (one.encrypt_record(plaintext, RECORD) for one in (cipher, old))
    return {
        "encrypt": lambda: cipher.encrypt_record(plaintext, RECORD),
        "decrypt": lambda: cipher.decrypt_record(text, RECORD),
        "decrypt, previous key": lambda: cipher.decrypt_record(old_text, RECORD),
    }


def theirs(plaintext: bytes) -> dict[str, Work]:
    current, previous = Fernet(Fernet.generate_key()), Fernet(Fernet.generate_key())
    multi = MultiFernet([current, previous])
    token, old_token = (one.encrypt(plaintext) for one in (current, previous))
    return {
        "encrypt": lambda: multi.encrypt(plaintext),
        "decrypt": lambda: multi.decrypt(token),
        "decrypt, previous key": lambda: multi.decrypt(old_token),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--times", type=int, default=1_000, help="in a round")
    parser.add_argument("--bytes", type=int, default=256, help="of plaintext")
    options = parser.parse_args()

    plaintext = secrets.token_bytes(options.bytes)
    subjects = {
        "MultiFernet": theirs(plaintext),
        "aes-256-gcm": ours("aes-256-gcm", plaintext),
        "fernet": ours("fernet", plaintext),
    }
    cases = {
        (name, kind): Case(work) for name, works in subjects.items() for kind, work in works.items()
    }
    for _ in range(options.rounds):
        for case in cases.values():
            case.run(options.times)

    print(f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}")
    print(f"cryptography {version('cryptography')}; {options.bytes} bytes, the bar is {BAR:g} µs\n")
    print(f"| µs | {' | '.join(subjects)} |")
    print(f"|---{'|---' * len(subjects)}|")
    for kind in subjects["MultiFernet"]:
        print(f"| {kind} | {' | '.join(str(cases[name, kind]) for name in subjects)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
