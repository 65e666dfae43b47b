"""Whether the keys of the settings are those that stored credentials need.

A canary is a text that is encrypted once under each key that seals records. Where a key of the
settings does not open its canary, or records name a key that is not there, nothing is read or
written: the settings are wrong, and the message says which keys are needed.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..crypto.cipher import Cipher
from ..errors import DecryptionFailed, Problem, SettingsError
from ..settings.wording import printable
from .shelf import CredentialStore, Rows

_CANARY = b"flask-m9m credential canary"
_PATH = "credentials.encryption_key"


class KeyCheck:
    """Checks the keys of the settings when stored credentials are first used.

    Args:
        store: where they are kept.
        cipher: with the keys.
    """

    def __init__(self, store: CredentialStore, cipher: Cipher) -> None:
        self._store = store
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
        canaries, missing = self._store.read(lambda rows: (rows.canaries(), self._missing(rows)))
        problems = [*self._wrong(canaries), *_to_be_listed(missing)]
        if problems:
            raise SettingsError(problems)
        self._checked = True

    def keep_canary(self, rows: Rows) -> None:
        """Keep the primary key's canary with the first record that it seals."""
        primary = self._cipher.keys.primary.id
        if primary not in rows.canaries():
            rows.add_canary(primary, self._cipher.encrypt(_CANARY))

    def _missing(self, rows: Rows) -> dict[str, int]:
        """Return the ids of keys that records need and that are not there, and how many do."""
        missing = dict.fromkeys(map(_key_id, rows.seals()))
        for key_id in self._cipher.keys.ids:
            missing.pop(key_id, None)
        counts = needed_keys(rows) if missing else {}
        return {key_id: counts.get(key_id, 0) for key_id in missing}

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


def needed_keys(rows: Rows) -> dict[str, int]:
    """Return the ids of the keys that records need, and how many need each."""
    found: dict[str, int] = {}
    for seal, count in rows.sealed_with().items():
        found[_key_id(seal)] = found.get(_key_id(seal), 0) + count
    return found


def _key_id(seal: str) -> str:
    return printable(seal.rpartition(":")[2])  # of a row that somebody may have written


def _to_be_listed(missing: Mapping[str, int]) -> list[Problem]:
    accepted = "list it under credentials.previous_keys"
    return [
        Problem(_PATH, f"{count} credentials need the key {key_id}, which is not there", accepted)
        for key_id, count in missing.items()
    ]
