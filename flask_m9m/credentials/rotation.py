"""Rotation: every stored credential sealed anew under today's key and cipher.

It walks in batches, seal by seal and by id, while others read and write. What it reads it seals
outside any transaction, and replaces only where the envelope is still the one that was read: a
change that came in between is never undone, and is under today's key already or found in the next
walk; what other processes still seal with an old key after some of these is told at the end.
Nothing is kept about how far it came, so it can end at any instant and begin again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..audit import AuditTrail, EventName
from ..crypto.cipher import Cipher
from ..errors import DecryptionFailed
from ..storage import Envelope
from .keys import KeyCheck, needed_keys
from .shelf import CredentialStore, bound_to

Progress = Callable[[int, int], None]
"""Told how many are done, and of how many."""

_BATCH = 1_000
_MOST_WALKS = 10  # a process that still seals with an old key would keep it busy for ever


@dataclass(frozen=True, slots=True)
class Rotated:
    """What came of a rotation.

    Attributes:
        resealed: how many credentials were sealed anew; in a dry run, how many would be.
        unreadable: the ids of those that do not open; they are as they were.
        keys_in_use: the ids of the keys that credentials need afterwards, and how many need each;
            the audit trail's own key counts as one of them.
    """

    resealed: int
    unreadable: Sequence[str]
    keys_in_use: Mapping[str, int]


class Rotation:
    """One rotation.

    Args:
        store: where credentials are kept.
        cipher: with the keys; its primary one seals.
        keys: keeps its canary.
        trail: whose key is sealed anew as well, and which is told.
        progress: told after each batch.
        dry_run: read and decrypt, but change nothing.
    """

    def __init__(
        self,
        store: CredentialStore,
        cipher: Cipher,
        keys: KeyCheck,
        trail: AuditTrail,
        progress: Progress | None = None,
        *,
        dry_run: bool = False,
    ) -> None:
        self._store = store
        self._cipher = cipher
        self._keys = keys
        self._trail = trail
        self._progress = progress
        self._dry_run = dry_run
        self._done = 0
        self._unreadable: dict[str, None] = {}

    def run(self) -> Rotated:
        """Seal all credentials anew.

        Raises:
            SettingsError: there is no encryption key.
            DatabaseUnavailable: what was sealed anew stays so.
        """
        self._keys.check()
        for _ in range(_MOST_WALKS):  # what changed meanwhile is found by the next walk
            if not self._walk() or self._dry_run:
                break
        if not self._dry_run:
            self._trail.reseal()
            counts = {"resealed": self._done, "unreadable": len(self._unreadable)}
            event = self._trail.event(EventName.KEYS_ROTATED)
            self._trail.record_change(None, event._replace(details=counts))
        return Rotated(self._done, list(self._unreadable), self._keys_in_use())

    def _keys_in_use(self) -> Mapping[str, int]:
        needed, key_id = self._store.read(needed_keys), self._trail.sealed_with()
        if key_id is not None and key_id != self._cipher.keys.primary.id:  # after a dry run
            needed[key_id] = needed.get(key_id, 0) + 1
        return needed

    def _walk(self) -> int:
        """Go once through all that is sealed otherwise; return how many were sealed anew."""
        counts = self._store.read(lambda rows: rows.sealed_with())
        counts.pop(self._cipher.seal, None)
        before = self._done
        total = before + sum(counts.values())
        for seal in counts:
            for rows in self._batches(seal):
                self._replace(rows)
                if self._progress is not None:
                    self._progress(self._done, total)
        return self._done - before

    def _batches(self, seal: str) -> Iterator[Sequence[Envelope]]:
        after = ""
        while batch := self._next(seal, after):
            yield batch
            after = batch[-1].id

    def _next(self, seal: str, after: str) -> Sequence[Envelope]:
        return self._store.read(lambda rows: rows.sealed_by(seal, after, _BATCH))

    def _replace(self, rows: Sequence[Envelope]) -> None:
        sealed = [(row, new) for row in rows if (new := self._sealed_anew(row)) is not None]
        if self._dry_run:
            self._done += len(sealed)
        elif sealed:
            with self._store.write() as writing:
                self._keys.keep_canary(writing.rows)
                self._done += writing.rows.reseal(self._cipher.seal, sealed)

    def _sealed_anew(self, row: Envelope) -> str | None:
        try:
            record = bound_to(row)
            plaintext = self._cipher.decrypt_record(row.envelope, record)
        except (DecryptionFailed, ValueError, AttributeError):  # or a row that is none of ours
            self._unreadable[row.id] = None
            return None
        return self._cipher.encrypt_record(plaintext, record)
