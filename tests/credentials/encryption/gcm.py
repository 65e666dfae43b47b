"""A ciphertext of AES-GCM that opens under two keys.

The tag is linear in each block of ciphertext (NIST SP 800-38D §6.4), so one block makes the tags
under two keys the same: Dodis, Grubbs, Ristenpart and Woodage, "Fast Message Franking" (2018).
"""

from __future__ import annotations

from typing import NamedTuple

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

_R = 0xE1 << 120


class Side(NamedTuple):
    """What one of the two sides decrypts with."""

    key: bytes
    nonce: bytes
    associated: bytes

    def block(self, octets: bytes) -> int:
        encryptor = Cipher(algorithms.AES256(self.key), modes.ECB()).encryptor()
        return int.from_bytes(encryptor.update(octets), "big")

    @property
    def h(self) -> int:
        return self.block(bytes(16))

    def tag(self, ciphertext: bytes) -> int:
        lengths = (len(self.associated) * 8).to_bytes(8, "big")
        lengths += (len(ciphertext) * 8).to_bytes(8, "big")
        total = 0
        for part in (self.associated, ciphertext, lengths):
            for begin in range(0, len(part), 16):
                block = part[begin : begin + 16].ljust(16, b"\0")
                total = multiply(total ^ int.from_bytes(block, "big"), self.h)
        return total ^ self.block(self.nonce + b"\0\0\0\1")


def opens_under_both(one: Side, other: Side) -> bytes:
    """Return two blocks of ciphertext and a tag."""
    first = b"any first block."
    open_ends = first + bytes(16)
    difference = one.tag(open_ends) ^ other.tag(open_ends)
    weights = multiply(one.h, one.h) ^ multiply(other.h, other.h)
    ciphertext = first + multiply(difference, inverse(weights)).to_bytes(16, "big")
    return ciphertext + one.tag(ciphertext).to_bytes(16, "big")


def multiply(x: int, y: int) -> int:
    """NIST SP 800-38D §6.3, algorithm 1."""
    product = 0
    for bit in range(127, -1, -1):
        if x >> bit & 1:
            product ^= y
        y = y >> 1 ^ (_R if y & 1 else 0)
    return product


def inverse(x: int) -> int:
    """x to the power of 2^128 - 2."""
    result, power = 1 << 127, x
    for _ in range(127):
        power = multiply(power, power)
        result = multiply(result, power)
    return result
