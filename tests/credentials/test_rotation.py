"""Rotation: every credential sealed anew, while the app reads and writes."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from flask_m9m.credentials import rotation
from flask_m9m.storage import tables
from flask_m9m.storage.credential_rows import CredentialRows

from .conftest import Kept, new_key

DATA = {"apiKey": "sk-12345"}


@pytest.mark.parametrize("dry_run", [True, False])
def test_all_are_sealed_anew_and_still_open(
    database_url: str, keep: Kept, key: str, dry_run: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "_BATCH", 7)
    storage, following = {"database": {"url": database_url}}, new_key()
    app, m9m = keep(storage, key)
    with app.app_context():
        made = [m9m.credentials.create(str(n), "apiKey", {"apiKey": str(n)}) for n in range(20)]
        (old,) = m9m.cipher.keys.ids
    app, m9m = keep(storage, following, [key])
    seen: list[tuple[int, int]] = []
    with app.app_context():
        new = m9m.cipher.keys.primary.id
        result = m9m.credentials.rotate(
            lambda done, total: seen.append((done, total)), dry_run=dry_run
        )
        assert (result.resealed, list(result.unreadable)) == (20, [])
        assert result.keys_in_use == ({old: 20} if dry_run else {new: 20})
        assert seen == [(7, 20), (14, 20), (20, 20)]
        for n, one in enumerate(made):
            assert m9m.credentials.get(one.id).data == {"apiKey": str(n)}
    app, m9m = keep(storage, following)
    with app.app_context():
        if not dry_run:
            assert m9m.credentials.get(made[0].id).data == {"apiKey": "0"}
            assert m9m.credentials.rotate().resealed == 0


@pytest.mark.parametrize("cipher", ["fernet", "aes-256-gcm"])
def test_the_cipher_changes_as_the_key_does(
    database_url: str, keep: Kept, key: str, cipher: str
) -> None:
    storage = {"database": {"url": database_url}}
    before = {"fernet": "aes-256-gcm", "aes-256-gcm": "fernet"}[cipher]
    app, m9m = keep(storage, key, cipher=before)
    with app.app_context():
        made = m9m.credentials.create("x", "apiKey", DATA)
    app, m9m = keep(storage, key, cipher=cipher)
    with app.app_context():
        assert m9m.credentials.get(made.id).data == DATA
        assert m9m.credentials.rotate().resealed == 1
        assert m9m.credentials.get(made.id).data == DATA


def test_one_that_does_not_open_is_named_and_left(database_url: str, keep: Kept, key: str) -> None:
    storage = {"database": {"url": database_url}}
    app, m9m = keep(storage, key)
    with app.app_context():
        bad, good = (m9m.credentials.create("x", "apiKey", DATA) for _ in range(2))
        with app.extensions["m9m"].database._connected().begin() as connection:
            same = tables.credentials.c.id == bad.id
            connection.execute(sa.update(tables.credentials).where(same).values(owner="mallory"))
    app, m9m = keep(storage, new_key(), [key])
    with app.app_context():
        result = m9m.credentials.rotate()
        assert (result.resealed, list(result.unreadable)) == (1, [bad.id])
        assert len(result.keys_in_use) == 2
        assert m9m.credentials.get(good.id).data == DATA


def test_a_change_that_comes_in_between_is_not_undone(
    database_url: str, keep: Kept, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, following = {"database": {"url": database_url}}, new_key()
    app, m9m = keep(storage, key)
    with app.app_context():
        made = [m9m.credentials.create("x", "apiKey", DATA) for _ in range(3)]
    app, m9m = keep(storage, following, [key])
    other, theirs = keep(storage, key, [following])  # a process that has not swapped them yet
    reencrypt, changed = rotation.Rotation._reencrypt, []

    def change_first(self: rotation.Rotation, row: Any) -> Any:
        found = reencrypt(self, row)
        if not changed:
            changed.append(row.id)
            with other.app_context():
                theirs.credentials.update(row.id, data={"apiKey": "changed meanwhile"})
        return found

    monkeypatch.setattr(rotation.Rotation, "_reencrypt", change_first)
    with app.app_context():
        result = m9m.credentials.rotate()
        assert result.resealed == 3
        assert list(result.keys_in_use) == [m9m.cipher.keys.primary.id]
        for one in made:
            expected = "changed meanwhile" if one.id in changed else "sk-12345"
            assert m9m.credentials.get(one.id).data == {"apiKey": expected}


def test_a_process_that_seals_with_the_old_key_for_ever_does_not_keep_it_busy(
    database_url: str, keep: Kept, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, following = {"database": {"url": database_url}}, new_key()
    app, m9m = keep(storage, key)
    with app.app_context():
        made = m9m.credentials.create("x", "apiKey", DATA)
    app, m9m = keep(storage, following, [key])
    other, theirs = keep(storage, key, [following])
    walk = rotation.Rotation._walk

    def walk_and_change(self: rotation.Rotation) -> int:
        found = walk(self)
        with other.app_context():
            theirs.credentials.update(made.id, data=DATA)
        return found

    monkeypatch.setattr(rotation.Rotation, "_walk", walk_and_change)
    with app.app_context():
        result = m9m.credentials.rotate()
    with other.app_context():
        assert dict(result.keys_in_use) == {theirs.cipher.keys.primary.id: 1}


def test_memory_rotates_too(keep: Kept, key: str) -> None:
    app, m9m = keep({"credentials": {"storage": "memory"}}, key)
    with app.app_context():
        m9m.credentials.create("x", "apiKey", DATA)
        assert m9m.credentials.rotate().resealed == 0


def test_long_records_are_rotated_in_short_transactions(
    database_url: str, keep: Kept, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "_MAX_BYTES", 10_000)
    storage, groups = {"database": {"url": database_url}}, []
    app, m9m = keep(storage, key)
    with app.app_context():
        for n in range(40):
            length = 400 if n % 10 else 30_000
            m9m.credentials.create(str(n), "apiKey", {"apiKey": "x" * length})
    reseal = CredentialRows.reseal

    def watched(rows: Any, seal: str, envelopes: Any) -> int:
        groups.append([len(new) for _, new in envelopes])
        return reseal(rows, seal, envelopes)

    monkeypatch.setattr(CredentialRows, "reseal", watched)
    app, m9m = keep(storage, new_key(), [key])
    with app.app_context():
        assert m9m.credentials.rotate().resealed == 40
    assert sum(map(len, groups)) == 40
    assert all(len(group) == 1 or sum(group) <= 10_000 for group in groups)
    assert max(map(len, groups)) > 1
