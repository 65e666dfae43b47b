"""n8n's credential records: decryption for imports, encryption for exports, and its data keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..errors import UnreadableImport
from ..storage.records import SealedCredential
from .imports import Open, Source, records_of
from .n8n_format import DataKey, N8nReader, write_old

_DATA_KEY_TYPE = "data_encryption"


def opener(key: str | None, deployment_keys: Source) -> Open:
    """Make a function that reads the `data` of `n8n export:credentials`, encrypted or not.

    Args:
        key: the instance key, `N8N_ENCRYPTION_KEY`; `None` reads only `--decrypted` exports.
        deployment_keys: rows of n8n's table `deployment_key`, or the path of a JSON file of them.

    Raises:
        ValueError: the key is empty or not Unicode, or a row is not valid.
        UnreadableImport: the rows cannot be read.
    """
    rows = data_keys(deployment_keys)
    reader = None if key is None else N8nReader(key, rows)

    def open_data(data: object) -> Mapping[str, Any]:
        if isinstance(data, Mapping):
            return data
        if not isinstance(data, str):
            raise UnreadableImport("n8n: data must be an encrypted string or a JSON object")
        if reader is None:
            raise UnreadableImport("n8n: the data is encrypted; give the key (N8N_ENCRYPTION_KEY)")
        return reader.read(data)

    return open_data


def data_keys(rows: Source) -> list[DataKey]:
    """Return the data keys among the rows of n8n's table `deployment_key`; skip other rows.

    Raises:
        ValueError: a row is not valid.
        UnreadableImport: the rows cannot be read.
    """
    return [_data_key(row) for row in records_of(rows) if _is_data_key(row)]


def writer(key: str) -> Callable[[SealedCredential, Mapping[str, Any]], dict[str, Any]]:
    """Make a function that turns a credential into a record for `n8n import:credentials`.

    Raises:
        ValueError: the instance key is empty or not Unicode.
    """
    write_old({}, key)  # checks the key

    def write_record(record: SealedCredential, data: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "id": record.id,
            "name": record.name,
            "type": record.type,
            "data": write_old(data, key),
            "nodesAccess": [],  # a column of older versions that is never null
        }

    return write_record


def _is_data_key(row: object) -> bool:
    return not isinstance(row, Mapping) or row.get("type", _DATA_KEY_TYPE) == _DATA_KEY_TYPE


def _data_key(row: object) -> DataKey:
    fields = [row.get(name) if isinstance(row, Mapping) else None for name in DataKey.__slots__]
    texts = [value for value in fields if isinstance(value, str)]
    if len(texts) != len(fields):
        raise ValueError(
            "n8n: deployment_keys must be rows of objects with an id, a value and an algorithm, "
            "all of them strings"
        )
    return DataKey(*texts)


def is_encrypted(entries: Iterable[object]) -> bool:
    """Tell whether any record of an export is encrypted and needs the instance key."""
    return any(
        isinstance(entry, Mapping) and isinstance(entry.get("data"), str) for entry in entries
    )


def open_plain(data: object) -> Mapping[str, Any]:
    """Return the fields in the `data` of m9m's JSON, which is not encrypted.

    Raises:
        UnreadableImport: the data is not an object.
    """
    if not isinstance(data, Mapping):
        raise UnreadableImport("m9m: data must be a JSON object")
    return data
