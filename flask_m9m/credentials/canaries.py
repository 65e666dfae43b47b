"""Checks that the configured encryption keys are those that stored credentials need: canaries.

A canary is a fixed text, encrypted once under each key that encrypts records. Nothing is read or
written where a configured key does not decrypt its canary, or where records need a key that is not
configured. The error then names the missing keys.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ..errors import DecryptionFailed, Problem, SettingsError
from ..settings.wording import printable
from .encryption.cipher import Cipher
from .stores import CredentialStore, Rows

_CANARY = b"flask-m9m credential canary"
_PATH = "credentials.encryption_key"


class KeyCheck:
    """Checks the configured keys when stored credentials are first used.

    Args:
        store: the store of credentials and canaries.
        cipher: the cipher with the configured keys.
    """

    def __init__(self, store: CredentialStore, cipher: Cipher) -> None:
        self._store = store
        self._cipher = cipher
        self._checked = False

    def check(self) -> None:
        """Check that the configured keys can decrypt every record; later calls do nothing.

        Raises:
            SettingsError: there is no key, a key does not decrypt its canary, or a key is missing.
            DatabaseUnavailable: the database cannot be read.
        """
        if self._checked:
            return
        configured = self._cipher.keys.ids  # without a key that is the problem, whatever is stored
        canaries, missing = self._store.read(
            lambda rows: (rows.canaries(), _missing(rows, configured))
        )
        problems = [*self._wrong_keys(canaries), *_missing_key_problems(missing)]
        if problems:
            raise SettingsError(problems)
        self._checked = True

    def keep_canary(self, rows: Rows) -> None:
        """Store the primary key's canary, with the first record that the key encrypts."""
        primary = self._cipher.keys.primary.id
        if primary not in rows.canaries():
            rows.add_canary(primary, self._cipher.encrypt(_CANARY))

    def _wrong_keys(self, canaries: Mapping[str, str]) -> list[Problem]:
        return [
            Problem(_PATH, f"the key {key_id} does not decrypt its canary", "give the right key")
            for key_id, canary in canaries.items()
            if key_id in self._cipher.keys.ids and not self._decrypts(canary)
        ]

    def _decrypts(self, canary: str) -> bool:
        try:
            return self._cipher.decrypt(canary) == _CANARY
        except DecryptionFailed:
            return False


def _missing(rows: Rows, configured: Collection[str]) -> dict[str, int]:
    """Count the records that need a key which is not configured, by key id."""
    missing = {_key_id(seal) for seal in rows.seals()}.difference(configured)
    counts = needed_keys(rows) if missing else {}
    return {key_id: counts.get(key_id, 0) for key_id in sorted(missing)}


def needed_keys(rows: Rows) -> dict[str, int]:
    """Count the records that need each encryption key, by key id."""
    counts: dict[str, int] = {}
    for seal, count in rows.sealed_with().items():
        counts[_key_id(seal)] = counts.get(_key_id(seal), 0) + count
    return counts


def _key_id(seal: str) -> str:
    return printable(seal.rpartition(":")[2])  # the row may come from an attacker


def _missing_key_problems(missing: Mapping[str, int]) -> list[Problem]:
    accepted = "list it under credentials.previous_keys"
    return [
        Problem(_PATH, f"{count} credentials need the key {key_id}, which is not there", accepted)
        for key_id, count in missing.items()
    ]
