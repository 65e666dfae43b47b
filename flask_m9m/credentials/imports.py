"""Import of credentials from another program: reads its records, with a result for each record.

A record keeps its id, and is skipped if a credential with this id exists. So an import that is
repeated after an interruption adds only the missing records. An id that is not valid here, because
it is too long for example, is replaced by a UUID derived from it. A record without an id gets a
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
from ..errors import UnreadableImport
from ..storage.records import SealedCredential
from .canaries import KeyCheck
from .encryption.cipher import Cipher
from .fields import serialize
from .stores import CredentialStore, Rows, StoreTransaction, bound_to
from .types import CredentialTypes

LARGEST = 2**25
"""Maximum size of a file, in bytes: 32 MiB."""

MOST = 100_000
"""Maximum number of records in an import."""

_MOST_NESTED = 1_000_000  # an empty array takes 20 times as much memory as its JSON
_BATCH = 500
_LOOKUP = 50  # ids in one query
_ID = re.compile(r"[A-Za-z0-9_-]{1,36}")
_FOREIGN = uuid.UUID("5b0d1d9e-6c0a-4f0e-9d3b-2f6a8f1c7e45")
_LONGEST_SHOWN = 255
_EXISTS = "a credential with this id exists already"
_REPEATED = "an earlier record has the same id"

Open = Callable[[object], Mapping[str, Any]]
"""Reads the fields in a record's `data`, or raises `UnreadableImport`."""

Source = Iterable[object] | str | os.PathLike[str]
"""Records, a single record, or the path of a JSON file with either."""


@dataclass(frozen=True, slots=True)
class ImportedRecord:
    """The result for one record.

    Attributes:
        name: its name; if that cannot be read, its position, such as `record 3`.
        id: its id in the store; for an unreadable record, its original id, if any.
        type: its credential type.
        reason: why it was skipped or is unreadable; it repeats nothing of the data but the key id
            that n8n writes in front of it.
    """

    name: str
    id: str
    type: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Imported:
    """The result of an import; every record is in one of the three lists.

    Attributes:
        imported: the records that were stored; in a dry run, that would be stored.
        skipped: the records whose id exists already.
        unreadable: the records that could not be imported; they do not stop the others.
    """

    imported: Sequence[ImportedRecord]
    skipped: Sequence[ImportedRecord]
    unreadable: Sequence[ImportedRecord]


class Import:
    """An import of records into the store.

    Args:
        store: the store of credentials.
        cipher: encrypts the records' data.
        keys: checks the keys, and stores the primary key's canary.
        types: the app's credential types; data of other types is not checked.
        owner: the owner of the imported records; empty for the app itself.
        now: the time of their creation.
        record_import: called with the stored records, within their transaction.
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
        record_import: Callable[[StoreTransaction, Sequence[SealedCredential]], None],
        *,
        dry_run: bool = False,
    ) -> None:
        self._store = store
        self._cipher = cipher
        self._keys = keys
        self._types = types
        self._owner = owner
        self._now = now
        self._record_import = record_import
        self._dry_run = dry_run
        self._seen: set[str] = set()
        self._imported: list[ImportedRecord] = []
        self._skipped: list[ImportedRecord] = []
        self._unreadable: list[ImportedRecord] = []

    def run(self, entries: Sequence[object], open_data: Open) -> Imported:
        """Import records, with one transaction for each batch.

        Raises:
            SettingsError: there is no encryption key, or one that records need is missing.
            DatabaseUnavailable: the database failed; the batches stored so far stay. Import again
                to add the rest.
        """
        self._keys.check()
        for first in range(0, len(entries), _BATCH):
            batch = [
                (entry, _describe(entry, number))
                for number, entry in enumerate(entries[first : first + _BATCH], first + 1)
            ]
            self._store_batch(list(self._encrypt_batch(batch, open_data)))
        return Imported(self._imported, self._skipped, self._unreadable)

    def _encrypt_batch(
        self, batch: Sequence[tuple[object, ImportedRecord]], open_data: Open
    ) -> Iterator[SealedCredential]:
        existing = self._existing([record.id for _, record in batch])
        for entry, record in batch:
            if record.id in self._seen or record.id in existing:
                reason = _REPEATED if record.id in self._seen else _EXISTS
                self._skipped.append(replace(record, reason=reason))
                continue
            try:
                sealed = self._encrypt(entry, record.id, open_data)
            except (UnreadableImport, ValueError) as error:
                given = _text_of(entry.get("id")) if isinstance(entry, Mapping) else ""
                self._unreadable.append(replace(record, id=given, reason=str(error)))
                continue
            self._seen.add(record.id)
            yield sealed

    def _existing(self, ids: Sequence[str]) -> frozenset[str]:
        """Return the ids that exist in the store; each query is too short to time out."""
        found: list[str] = []
        for first in range(0, len(ids), _LOOKUP):
            some = ids[first : first + _LOOKUP]
            found += self._store.read(partial(_existing_in, some))
        return frozenset(found)

    def _encrypt(self, entry: object, record_id: str, open_data: Open) -> SealedCredential:
        """Check an imported record, and encrypt its data under our key.

        Raises:
            UnreadableImport: its data is missing or cannot be decrypted.
            ValueError: its name, type or data is not valid.
        """
        if not isinstance(entry, Mapping):
            raise UnreadableImport("a record must be a JSON object with a name, a type and data")
        name = checked_name("a credential's name", entry.get("name"))
        type = self._types.check_name(entry.get("type"))
        data = open_data(entry.get("data"))
        if type in self._types:
            self._types.check(type, data)
        octets = serialize(data)
        record = SealedCredential(
            record_id, name, type, self._owner, False, "", self._now, self._now
        )
        if self._dry_run:
            return record
        return replace(record, envelope=self._cipher.encrypt_record(octets, bound_to(record)))

    def _store_batch(self, records: Sequence[SealedCredential]) -> None:
        added = records
        if records and not self._dry_run:
            with self._store.write() as transaction:
                rows = transaction.rows
                added = [record for record in records if rows.get(record.id) is None]
                self._keys.keep_canary(rows)
                rows.add_all(added)
                self._record_import(transaction, added)
        ids = {record.id for record in added}
        for record in records:
            if record.id in ids:
                self._imported.append(ImportedRecord(record.name, record.id, record.type))
            else:  # another process added it after the lookup
                self._skipped.append(ImportedRecord(record.name, record.id, record.type, _EXISTS))


def _existing_in(ids: Sequence[str], rows: Rows) -> list[str]:
    return [record_id for record_id in ids if rows.get(record_id) is not None]


def records_of(source: Source) -> list[object]:
    """Return the records of a source.

    Raises:
        UnreadableImport: the file cannot be read, is too large, or is not JSON of records.
    """
    if isinstance(source, str | os.PathLike):
        return listed(parsed(contents(source), ascii(os.fspath(source))))
    return listed(source)


def listed(found: object) -> list[object]:
    """Return a list of the records in parsed JSON, which may be a single record.

    Raises:
        UnreadableImport: it is neither an array nor an object, or there are too many records.
    """
    if isinstance(found, Mapping):
        return [found]
    if not isinstance(found, Iterable) or isinstance(found, str | bytes):
        raise UnreadableImport("an import must be an array of records, or a single record")
    records = list(found)
    if len(records) > MOST:
        raise UnreadableImport(f"an import can have at most {MOST} records, found {len(records)}")
    return records


def contents(path: str | os.PathLike[str]) -> bytes:
    """Read a file, up to the maximum size and a byte more.

    Raises:
        UnreadableImport: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return file.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not a valid path"
        raise UnreadableImport(f"{os.fspath(path)!a}: {why}") from None


def parsed(octets: bytes, origin: str) -> object:
    """Parse JSON in UTF-8, with or without a byte order mark.

    Args:
        octets: the JSON.
        origin: where it comes from, for error messages.

    Raises:
        UnreadableImport: it is not JSON, or is larger than 32 MiB; the message repeats nothing of
            it.
    """
    if len(octets) > LARGEST:
        raise UnreadableImport(f"{origin} is larger than {LARGEST} bytes")
    if octets.count(b"[") + octets.count(b"{") > _MOST_NESTED:
        raise UnreadableImport(f"{origin} has more than {_MOST_NESTED} arrays and objects")
    try:
        return json.loads(octets.decode("utf-8-sig"), parse_constant=_refuse)
    except json.JSONDecodeError as error:
        problem = f"line {error.lineno}, column {error.colno}"
    except UnicodeDecodeError as error:
        problem = f"byte {error.start + 1} is not UTF-8"
    except (ValueError, RecursionError):
        problem = "a number is out of range, or the nesting too deep"
    raise UnreadableImport(f"{origin} is not JSON ({problem})")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON (RFC 8259 §6)")


def _describe(entry: object, number: int) -> ImportedRecord:
    """Return a record's name and type for the result, with the id that it gets in the store."""
    fields = entry if isinstance(entry, Mapping) else {}
    name, type, given = (fields.get(field) for field in ("name", "type", "id"))
    return ImportedRecord(_text_of(name) or f"record {number}", _id_of(given), _text_of(type))


def _text_of(given: object) -> str:
    """Return a text to show, shortened; the ids of n8n's first versions are numbers."""
    is_number = isinstance(given, int) and not isinstance(given, bool) and 0 <= given < 2**63
    text = str(given) if is_number else given
    return text[:_LONGEST_SHOWN] if isinstance(text, str) else ""


def _id_of(given: object) -> str:
    """Return the id that a record gets in the store."""
    text = given if isinstance(given, str) else _text_of(given)
    if not text:
        return str(uuid.uuid4())
    if _ID.fullmatch(text):
        return text
    return str(uuid.uuid5(_FOREIGN, text.encode("utf-8", "surrogatepass").hex()))
