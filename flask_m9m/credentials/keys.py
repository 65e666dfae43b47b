"""Whether the keys of the settings are those that stored credentials need.

A canary is a text that is encrypted once under each key that seals records. Where a key of the
settings does not open its canary, or records name a key that is not there, nothing is read or
written: the settings are wrong, and the message says which keys are needed.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..crypto.cipher import Cipher
from ..errors import DecryptionFailed, Problem, SettingsError
from .shelf import Rows, Shelf

_CANARY = b"flask-m9m credential canary"
_PATH = "credentials.encryption_key"


class KeyCheck:
    """Checks the keys of the settings when stored credentials are first used.

    Args:
        shelf: where they are kept.
        cipher: with the keys.
    """

    def __init__(self, shelf: Shelf, cipher: Cipher) -> None:
        self._shelf = shelf
        self._cipher = cipher
        self._checked = False

    def check(self) -> None:
        """See to it, once, that every record can be read.

        Raises:
            SettingsError: there is no key, a key is not the one that was, or one is missing.
            DatabaseUnavailable: it cannot be told.
        """
        if self._checked:
            return
        canaries, missing = self._shelf.read(lambda rows: (rows.canaries(), self._missing(rows)))
        problems = [*self._wrong(canaries), *_to_be_listed(missing)]
        if problems:
            raise SettingsError(problems)
        self._checked = True

    def keep_canary(self, rows: Rows) -> None:
        """Keep the primary key's canary with the first record that it seals."""
        rows.add_canary(self._cipher.keys.primary.id, self._cipher.encrypt(_CANARY))

    def _missing(self, rows: Rows) -> dict[str, int]:
        """Return the ids of keys that records need and that are not there, and how many do."""
        known = self._cipher.keys.ids
        missing = [seal for seal in rows.seals() if seal.rpartition(":")[2] not in known]
        counts = rows.sealed_with() if missing else {}
        found: dict[str, int] = {}
        for seal in missing:
            key_id = seal.rpartition(":")[2]
            found[key_id] = found.get(key_id, 0) + counts.get(seal, 0)
        return found

    def _wrong(self, canaries: Mapping[str, str]) -> list[Problem]:
        return [
            Problem(_PATH, f"the key {key_id} is not the one of this id", "give the right key")
            for key_id, canary in canaries.items()
            if key_id in self._cipher.keys.ids and not self._opens(canary)
        ]

    def _opens(self, canary: str) -> bool:
        try:
            return self._cipher.decrypt(canary) == _CANARY
        except DecryptionFailed:
            return False


def _to_be_listed(missing: Mapping[str, int]) -> list[Problem]:
    accepted = "list it under credentials.previous_keys"
    return [
        Problem(_PATH, f"{count} credentials need the key {key_id}, which is not there", accepted)
        for key_id, count in missing.items()
    ]
