"""Key rotation: re-encrypts every stored credential under the primary key and current cipher.

A walk goes through the records in batches, by key and by id, while others read and write. Records
are re-encrypted outside any transaction. An envelope is replaced only if it has not changed since
it was read, so that no concurrent change is undone. A record that changed meanwhile is under the
primary key already, or the next walk finds it. If other processes keep encrypting with an old key,
the result says so. No progress is stored: a rotation can stop at any moment and start again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..audit.events import EventName
from ..audit.trail import AuditTrail
from ..errors import DecryptionFailed
from ..storage.records import Envelope
from .canaries import KeyCheck, needed_keys
from .encryption.cipher import Cipher
from .stores import CredentialStore, bound_to

Progress = Callable[[int, int], None]
"""Called with the number of records done and their total."""

_BATCH = 1_000  # records to read at a time, as long as they are short
_MAX_BYTES = 1 << 20  # of envelopes in one transaction, for which other writers have to wait
_FIRST = 16  # records in the first batch, whose length is not known yet
_MOST_WALKS = 10  # stops even if another process keeps encrypting with an old key


@dataclass(frozen=True, slots=True)
class Rotated:
    """The result of a rotation.

    Attributes:
        resealed: how many credentials were re-encrypted; in a dry run, how many would be.
        unreadable: the ids of credentials that cannot be decrypted; they were not changed.
        keys_in_use: how many credentials need each key afterwards, by key id; the audit trail's
            own key counts as one credential.
    """

    resealed: int
    unreadable: Sequence[str]
    keys_in_use: Mapping[str, int]


class Rotation:
    """A rotation of the keys of all stored credentials.

    Args:
        store: the store of credentials.
        cipher: the cipher, which encrypts under its primary key.
        keys: checks the keys, and stores the primary key's canary.
        trail: the audit trail, whose own key is re-encrypted too, and which records the rotation.
        progress: called after each batch.
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
        """Re-encrypt all credentials.

        Raises:
            SettingsError: there is no encryption key, or one that records need is missing.
            DatabaseUnavailable: the database failed; records re-encrypted so far stay so.
        """
        self._keys.check()
        for _ in range(_MOST_WALKS):  # each walk finds what changed during the one before
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
        """Re-encrypt all records under other keys or ciphers, once; return how many there were."""
        counts = self._store.read(lambda rows: rows.sealed_with())
        counts.pop(self._cipher.seal, None)
        before = self._done
        total = before + sum(counts.values())
        for seal in counts:
            for envelopes in self._batches(seal):
                self._replace(envelopes)
                if self._progress is not None:
                    self._progress(self._done, total)
        return self._done - before

    def _batches(self, seal: str) -> Iterator[Sequence[Envelope]]:
        after, most = "", min(_FIRST, _BATCH)
        while batch := self._next_batch(seal, after, most):
            yield from _short_groups(batch)
            after = batch[-1].id
            # The next records are expected to be as long as these.
            most = min(_BATCH, 4 * most, max(1, len(batch) * _MAX_BYTES // _length(batch)))

    def _next_batch(self, seal: str, after: str, most: int) -> Sequence[Envelope]:
        return self._store.read(lambda rows: rows.sealed_by(seal, after, most))

    def _replace(self, envelopes: Sequence[Envelope]) -> None:
        replacements = [
            (envelope, new)
            for envelope in envelopes
            if (new := self._reencrypt(envelope)) is not None
        ]
        if self._dry_run:
            self._done += len(replacements)
        elif replacements:
            with self._store.write() as transaction:
                self._keys.keep_canary(transaction.rows)
                self._done += transaction.rows.reseal(self._cipher.seal, replacements)

    def _reencrypt(self, envelope: Envelope) -> str | None:
        try:
            record = bound_to(envelope)
            plaintext = self._cipher.decrypt_record(envelope.envelope, record)
        except (DecryptionFailed, ValueError, AttributeError):  # or a row not written by us
            self._unreadable[envelope.id] = None
            return None
        return self._cipher.encrypt_record(plaintext, record)


def _length(envelopes: Sequence[Envelope]) -> int:
    return sum(len(envelope.envelope) for envelope in envelopes) or 1


def _short_groups(envelopes: Sequence[Envelope]) -> Iterator[Sequence[Envelope]]:
    """Split a batch into groups of at most `_MAX_BYTES`, or of a single record."""
    group: list[Envelope] = []
    length = 0
    for envelope in envelopes:
        if group and length + len(envelope.envelope) > _MAX_BYTES:
            yield group
            group, length = [], 0
        group.append(envelope)
        length += len(envelope.envelope)
    yield group
