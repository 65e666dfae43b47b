"""n8n's credentials: what its exports hold, and what its imports take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..crypto.n8n import DataKey, N8nReader, write_old
from ..errors import UnreadableImport
from ..storage import SealedCredential
from .imports import Open, Source, records_of

_DATA_KEY_TYPE = "data_encryption"


def opener(key: str | None, deployment_keys: Source) -> Open:
    """Return what reads `data` of `n8n export:credentials`, encrypted or not.

    Args:
        key: the instance key, `N8N_ENCRYPTION_KEY`; without it only `--decrypted` exports are read.
        deployment_keys: rows of n8n's table `deployment_key`, or the path of a JSON file of them.

    Raises:
        ValueError: the key is empty or no text, or a row is none.
        UnreadableImport: the rows cannot be read.
    """
    reader = None if key is None else N8nReader(key, data_keys(deployment_keys))

    def open_data(data: object) -> Mapping[str, Any]:
        if isinstance(data, Mapping):
            return data
        if not isinstance(data, str):
            raise UnreadableImport("n8n: data is neither encrypted nor an object")
        if reader is None:
            raise UnreadableImport("n8n: the data is encrypted, and no instance key was given")
        return reader.read(data)

    return open_data


def data_keys(rows: Source) -> list[DataKey]:
    """Return the data keys in rows of n8n's table `deployment_key`, which holds others as well.

    Raises:
        ValueError: a row is none.
        UnreadableImport: the rows cannot be read.
    """
    return [_data_key(row) for row in records_of(rows) if _is_data_key(row)]


def writer(key: str) -> Callable[[SealedCredential, Mapping[str, Any]], dict[str, Any]]:
    """Return what makes a credential a record that `n8n import:credentials` takes.

    Raises:
        ValueError: the instance key is empty or no text.
    """
    write_old({}, key)

    def written(record: SealedCredential, data: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "id": record.id,
            "name": record.name,
            "type": record.type,
            "data": write_old(data, key),
            "nodesAccess": [],  # a column of older versions that is never null
        }

    return written


def _is_data_key(row: object) -> bool:
    return not isinstance(row, Mapping) or row.get("type", _DATA_KEY_TYPE) == _DATA_KEY_TYPE


def _data_key(row: object) -> DataKey:
    fields = [row.get(name) if isinstance(row, Mapping) else None for name in DataKey.__slots__]
    texts = [one for one in fields if isinstance(one, str)]
    if len(texts) != len(fields):
        raise ValueError("n8n: a row of deployment_key has an id, a value and an algorithm")
    return DataKey(*texts)


def is_encrypted(entries: Iterable[object]) -> bool:
    """Tell whether any of an export's records needs the instance key."""
    return any(isinstance(one, Mapping) and isinstance(one.get("data"), str) for one in entries)


def open_plain(data: object) -> Mapping[str, Any]:
    """Return the fields in `data` of m9m's JSON, which are not encrypted."""
    if not isinstance(data, Mapping):
        raise UnreadableImport("m9m: data is no object")
    return data
