"""Imports: another program's records taken in one by one, and each of them accounted for.

A record keeps its id where it has one, and one whose id is there already is passed over, so that
an import that is repeated, or was cut short, adds only what is missing. An id that cannot be one
here, being too long say, is replaced by a UUID that follows from it; a record without any gets a
new one each time.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, NoReturn

from ..auth.names import checked_name
from ..crypto.cipher import Cipher
from ..errors import UnreadableImport
from ..storage import SealedCredential
from .fields import serialized
from .keys import KeyCheck
from .shelf import CredentialStore, Rows, StoreTransaction, bound_to
from .types import CredentialTypes

LARGEST = 2**25
"""Octets of the largest file that is read."""

MOST = 100_000
"""Records of one import."""

_MOST_NESTED = 1_000_000  # an empty array takes 20 times as much memory as it has octets
_BATCH = 500
_LOOK = 50
_ID = re.compile(r"[A-Za-z0-9_-]{1,36}")
_FOREIGN = uuid.UUID("5b0d1d9e-6c0a-4f0e-9d3b-2f6a8f1c7e45")
_LONGEST_SHOWN = 255
_THERE = "a credential of that id is there already"
_TWICE = "another record of that id came before"

Open = Callable[[object], Mapping[str, Any]]
"""Returns the fields in a record's `data`, or raises `UnreadableImport`."""

Source = Iterable[object] | str | os.PathLike[str]
"""Records, one record, or the path of a JSON file of either."""


@dataclass(frozen=True, slots=True)
class ImportedRecord:
    """What came of one record.

    Attributes:
        name: its name; where that cannot be read, its place, `record 3` say.
        id: the id that it has here; of an unreadable one the id that it came with, if any.
        type: its credential type.
        reason: why it was skipped or is unreadable; of its data at most the id of a key that n8n
            writes before it.
    """

    name: str
    id: str
    type: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of an import; every record is in one of the three.

    Attributes:
        imported: those that were kept; in a dry run, that would be.
        skipped: those that are there already.
        unreadable: those that could not be taken; none of the others depends on them.
    """

    imported: Sequence[ImportedRecord]
    skipped: Sequence[ImportedRecord]
    unreadable: Sequence[ImportedRecord]


class Import:
    """One import.

    Args:
        store: where credentials are kept.
        cipher: encrypts them.
        keys: keeps the canary.
        types: the types that the app knows; others are taken as they are.
        owner: whose they become; empty: nobody's.
        now: when they are made.
        kept: told what is kept, within the transaction that keeps it.
        dry_run: read, decrypt and check, but change nothing.
    """

    def __init__(
        self,
        store: CredentialStore,
        cipher: Cipher,
        keys: KeyCheck,
        types: CredentialTypes,
        owner: str,
        now: datetime,
        kept: Callable[[StoreTransaction, Sequence[SealedCredential]], None],
        *,
        dry_run: bool = False,
    ) -> None:
        self._store = store
        self._cipher = cipher
        self._keys = keys
        self._types = types
        self._owner = owner
        self._now = now
        self._told = kept
        self._dry_run = dry_run
        self._seen: set[str] = set()
        self._imported: list[ImportedRecord] = []
        self._skipped: list[ImportedRecord] = []
        self._unreadable: list[ImportedRecord] = []

    def run(self, entries: Sequence[object], open_data: Open) -> Imported:
        """Take records in, each batch of them in one transaction.

        Raises:
            SettingsError: there is no encryption key, or one that records need is not there.
            DatabaseUnavailable: what was kept stays; import again, and the rest follows.
        """
        self._keys.check()
        for first in range(0, len(entries), _BATCH):
            batch = [
                (entry, _described(entry, number))
                for number, entry in enumerate(entries[first : first + _BATCH], first + 1)
            ]
            self._keep(list(self._readable(batch, open_data)))
        return Imported(self._imported, self._skipped, self._unreadable)

    def _readable(
        self, batch: Sequence[tuple[object, ImportedRecord]], open_data: Open
    ) -> Iterator[SealedCredential]:
        there = self._there([record.id for _, record in batch])
        for entry, record in batch:
            if record.id in self._seen or record.id in there:
                reason = _TWICE if record.id in self._seen else _THERE
                self._skipped.append(replace(record, reason=reason))
                continue
            try:
                sealed = self._sealed(entry, record.id, open_data)
            except (UnreadableImport, ValueError) as error:
                given = _shown(entry.get("id")) if isinstance(entry, Mapping) else ""
                self._unreadable.append(replace(record, id=given, reason=str(error)))
                continue
            self._seen.add(record.id)
            yield sealed

    def _there(self, ids: Sequence[str]) -> frozenset[str]:
        """Return those ids that are taken; no single read takes long, which it is given up for."""
        found: list[str] = []
        for first in range(0, len(ids), _LOOK):
            some = ids[first : first + _LOOK]
            found += self._store.read(partial(_taken, some))
        return frozenset(found)

    def _sealed(self, entry: object, record_id: str, open_data: Open) -> SealedCredential:
        """Check a record, and encrypt it as ours.

        Raises:
            UnreadableImport: its data cannot be decrypted, or there is none.
            ValueError: something in it cannot be kept.
        """
        if not isinstance(entry, Mapping):
            raise UnreadableImport("a record is an object with a name, a type and data")
        name = checked_name("a credential's name", entry.get("name"))
        type = self._types.check_name(entry.get("type"))
        data = open_data(entry.get("data"))
        if type in self._types:
            self._types.check(type, data)
        octets = serialized(data)
        record = SealedCredential(
            record_id, name, type, self._owner, False, "", self._now, self._now
        )
        if self._dry_run:
            return record
        return replace(record, envelope=self._cipher.encrypt_record(octets, bound_to(record)))

    def _keep(self, records: Sequence[SealedCredential]) -> None:
        kept = records
        if records and not self._dry_run:
            with self._store.write() as transaction:
                rows = transaction.rows
                kept = [one for one in records if rows.get(one.id) is None]
                self._keys.keep_canary(rows)
                rows.add_all(kept)
                self._told(transaction, kept)
        ids = {one.id for one in kept}
        for one in records:
            if one.id in ids:
                self._imported.append(ImportedRecord(one.name, one.id, one.type))
            else:  # somebody made it since it was looked for
                self._skipped.append(ImportedRecord(one.name, one.id, one.type, _THERE))


def _taken(ids: Sequence[str], rows: Rows) -> list[str]:
    return [one for one in ids if rows.get(one) is not None]


def records_of(source: Source) -> list[object]:
    """Return the records of a source.

    Raises:
        UnreadableImport: it is no JSON of records, too large, or cannot be read.
    """
    if isinstance(source, str | os.PathLike):
        return listed(parsed(contents(source), ascii(os.fspath(source))))
    return listed(source)


def listed(found: object) -> list[object]:
    """Return the records in what JSON says, a single one too.

    Raises:
        UnreadableImport: there are none in it, or too many.
    """
    if isinstance(found, Mapping):
        return [found]
    if not isinstance(found, Iterable) or isinstance(found, str | bytes):
        raise UnreadableImport("an import is an array of records, or one record")
    records = list(found)
    if len(records) > MOST:
        raise UnreadableImport(f"an import has at most {MOST} records")
    return records


def contents(path: str | os.PathLike[str]) -> bytes:
    """Return what is in a file.

    Raises:
        UnreadableImport: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return file.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "this is no path"
        raise UnreadableImport(f"{os.fspath(path)!a}: {why}") from None


def parsed(octets: bytes, origin: str) -> object:
    """Return what JSON in UTF-8 says.

    Args:
        octets: the JSON.
        origin: what to call it.

    Raises:
        UnreadableImport: it is none, or longer than 32 MiB; nothing of it is repeated.
    """
    if len(octets) > LARGEST:
        raise UnreadableImport(f"{origin} is longer than {LARGEST} octets")
    if octets.count(b"[") + octets.count(b"{") > _MOST_NESTED:
        raise UnreadableImport(f"{origin} has more than {_MOST_NESTED} arrays and objects")
    try:
        return json.loads(octets.decode("utf-8-sig"), parse_constant=_refuse)
    except json.JSONDecodeError as error:
        problem = f"line {error.lineno}, column {error.colno}"
    except UnicodeDecodeError as error:
        problem = f"octet {error.start + 1} is not UTF-8"
    except (ValueError, RecursionError):
        problem = "a number or the nesting is out of bounds"
    raise UnreadableImport(f"{origin} is not JSON ({problem})")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON (RFC 8259 §6)")


def _described(entry: object, number: int) -> ImportedRecord:
    """Return what to call a record, with the id that it is to have."""
    fields = entry if isinstance(entry, Mapping) else {}
    name, type, given = (fields.get(field) for field in ("name", "type", "id"))
    return ImportedRecord(_shown(name) or f"record {number}", _id_of(given), _shown(type))


def _shown(given: object) -> str:
    """Return what is told of a text in a record; numbers are ids of n8n's first versions."""
    is_number = isinstance(given, int) and not isinstance(given, bool) and 0 <= given < 2**63
    text = str(given) if is_number else given
    return text[:_LONGEST_SHOWN] if isinstance(text, str) else ""


def _id_of(given: object) -> str:
    """Return the id that a record has here."""
    text = given if isinstance(given, str) else _shown(given)
    if not text:
        return str(uuid.uuid4())
    if _ID.fullmatch(text):
        return text
    return str(uuid.uuid5(_FOREIGN, text.encode("utf-8", "surrogatepass").hex()))
