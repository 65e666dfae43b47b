"""What stored credentials cost, and their rotation, beside MultiFernet and SQLAlchemy-Utils.

The same records lie in SQLite, each subject's in a file of its own with a log ahead of it:
`m9m.credentials` with either cipher; tokens of `MultiFernet`, of the package cryptography; and
columns of SQLAlchemy-Utils' `StringEncryptedType` with two of its engines. Only `m9m.credentials`
brings a rotation: for the others it is the same walk, 1,000 rows in a transaction, by id, that
replaces whatever stands there; their rows lie by id, as ours do. Each round gives all subjects a
new key, one after the other. Figures are medians of the rounds, beside them the best one.
"""

from __future__ import annotations

import argparse
import json
import platform
import secrets
import sqlite3
import statistics
import sys
import tempfile
import time
import tracemalloc
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa
from cryptography.fernet import Fernet, MultiFernet
from sqlalchemy_utils import StringEncryptedType
from sqlalchemy_utils.types.encrypted.encrypted_type import AesGcmEngine, FernetEngine

from benchmarks.silent_trail import silent_trail
from flask_m9m.credentials import Credentials, DatabaseCredentialStore
from flask_m9m.credentials.encryption.cipher import Cipher, Record
from flask_m9m.settings import settings_of
from flask_m9m.storage import ChangeFeed, Database, SealedCredential, moment

BATCH = 1_000
BARS = {"encrypt": "≤ 25 µs", "decrypt": "≤ 25 µs", "rotate": "≥ 20,000/s on SQLite"}  # DESIGN 14
TYPE = "apiKey"


class Subject(Protocol):
    """One way to keep secrets in a database."""

    def encrypt(self) -> object: ...
    def decrypt(self) -> object: ...
    def create(self) -> object: ...
    def get(self) -> object: ...
    def rotate(self) -> int: ...


class Ours:
    """`m9m.credentials` over SQLite.

    Args:
        folder: of the database.
        kind: the cipher.
        records: what is kept.
    """

    def __init__(self, folder: Path, kind: str, records: Sequence[str]) -> None:
        self._url, self._kind = f"sqlite:///{folder / f'm9m-{kind}.db'}", kind
        self._key = secrets.token_hex(32)
        self._database = Database(settings_of({"database": {"url": self._url}}).database, "")
        self._database.upgrade()
        self._open([self._key])
        self._data = {"apiKey": records[0]}
        self._id = self.create()
        now = moment(time.time())
        with self._database.write() as transaction:
            for text in records:
                row = SealedCredential(str(uuid.uuid4()), "x", TYPE, "", False, "", now, now)
                envelope = self.credentials._encrypt(row, {"apiKey": text})
                transaction.credentials.add_all([replace(row, envelope=envelope)])
        self._record, self._plaintext = Record(self._id, TYPE), json.dumps(self._data).encode()
        self._sealed = self.cipher.encrypt_record(self._plaintext, self._record)

    def _open(self, keys: Sequence[str]) -> None:
        own = {"encryption_key": keys[0], "previous_keys": keys[1:], "cipher": self._kind}
        self.cipher = Cipher(settings_of({"credentials": own}).credentials)
        feed = ChangeFeed(self._database, propagation=1.0, max_staleness=30.0)
        self.credentials = Credentials(
            DatabaseCredentialStore(feed), self.cipher, silent_trail(self._database)
        )

    def encrypt(self) -> object:
        return self.cipher.encrypt_record(self._plaintext, self._record)

    def decrypt(self) -> object:
        return self.cipher.decrypt_record(self._sealed, self._record)

    def create(self) -> str:
        return self.credentials.create("x", TYPE, self._data).id

    def get(self) -> object:
        return self.credentials.get(self._id)

    def rotate(self) -> int:
        following = secrets.token_hex(32)
        self._open([following, self._key])
        result = self.credentials.rotate()
        if result.unreadable or len(result.keys_in_use) != 1:
            raise SystemExit(f"the rotation left {result}")
        self._key, self._sealed = following, str(self.encrypt())
        return result.resealed


class Column(Protocol):
    """What encrypts one column's texts, under a current key and the one before."""

    def encrypt(self, text: str) -> str: ...
    def decrypt(self, sealed: str) -> str: ...
    def take_new_key(self) -> None: ...
    def rotate(self, sealed: str) -> str: ...


class WithMultiFernet:
    """`MultiFernet`."""

    def __init__(self) -> None:
        self._current = Fernet(Fernet.generate_key())
        self._both = MultiFernet([self._current])

    def take_new_key(self) -> None:
        before, self._current = self._current, Fernet(Fernet.generate_key())
        self._both = MultiFernet([self._current, before])

    def encrypt(self, text: str) -> str:
        return self._both.encrypt(text.encode()).decode()

    def decrypt(self, sealed: str) -> str:
        return self._both.decrypt(sealed).decode()

    def rotate(self, sealed: str) -> str:
        return self._both.rotate(sealed).decode()


class WithSQLAlchemyUtils:
    """`StringEncryptedType`, called as SQLAlchemy calls it; of keys it knows one."""

    def __init__(self, engine: type) -> None:
        self._engine = engine
        self._current = self._before = self._made()

    def _made(self) -> StringEncryptedType:
        return StringEncryptedType(sa.Unicode, secrets.token_hex(32), self._engine)

    def take_new_key(self) -> None:
        self._before, self._current = self._current, self._made()

    def encrypt(self, text: str) -> str:
        return str(self._current.process_bind_param(text, None))

    def decrypt(self, sealed: str) -> str:
        return str(self._current.process_result_value(sealed, None))

    def rotate(self, sealed: str) -> str:
        return self.encrypt(str(self._before.process_result_value(sealed, None)))


class Theirs:
    """A column's encrypted texts over SQLite.

    Args:
        path: the database.
        column: encrypts.
        records: what is kept.
    """

    def __init__(self, path: Path, column: Column, records: Sequence[str]) -> None:
        self._column = column
        self._engine = sa.create_engine(f"sqlite:///{path}")
        columns = sa.Column("id", sa.String(36), primary_key=True), sa.Column("sealed", sa.Text)
        self._table = sa.Table("records", sa.MetaData(), *columns, sqlite_with_rowid=False)
        self._table.metadata.create_all(self._engine)
        with self._engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        self._text = records[0]
        self._id = self.create()
        rows = [{"id": str(uuid.uuid4()), "sealed": column.encrypt(text)} for text in records]
        with self._engine.begin() as connection:
            connection.execute(sa.insert(self._table), rows)
        self._sealed = column.encrypt(self._text)

    def encrypt(self) -> object:
        return self._column.encrypt(self._text)

    def decrypt(self) -> object:
        return self._column.decrypt(self._sealed)

    def create(self) -> str:
        made = str(uuid.uuid4())
        row = {"id": made, "sealed": self._column.encrypt(self._text)}
        with self._engine.begin() as connection:
            connection.execute(sa.insert(self._table), row)
        return made

    def get(self) -> object:
        query = sa.select(self._table.c.sealed).where(self._table.c.id == self._id)
        with self._engine.connect() as connection:
            return self._column.decrypt(connection.execute(query).scalar_one())

    def rotate(self) -> int:
        self._column.take_new_key()
        ids = self._table.c.id
        query = sa.select(self._table).where(ids > sa.bindparam("after")).order_by(ids).limit(BATCH)
        key, sealed = sa.bindparam("key"), sa.bindparam("following")
        change = sa.update(self._table).where(ids == key).values(sealed=sealed)
        done, after = 0, ""
        while True:
            with self._engine.begin() as connection:
                rows = connection.execute(query, {"after": after}).all()
                if not rows:
                    break
                again = self._column.rotate
                connection.execute(change, [{"key": r[0], "following": again(r[1])} for r in rows])
            done, after = done + len(rows), rows[-1][0]
        self._sealed = self._column.encrypt(self._text)
        return done


def subjects(folder: Path, records: Sequence[str]) -> dict[str, Subject]:
    columns: dict[str, Column] = {
        "MultiFernet": WithMultiFernet(),
        "SQLAlchemy-Utils, AES-GCM": WithSQLAlchemyUtils(AesGcmEngine),
        "SQLAlchemy-Utils, Fernet": WithSQLAlchemyUtils(FernetEngine),
    }
    found: dict[str, Subject] = {
        f"m9m.credentials, {kind}": Ours(folder, kind, records)
        for kind in ("aes-256-gcm", "fernet")
    }
    for name, column in columns.items():
        found[name] = Theirs(folder / f"{name}.db", column, records)
    return found


def microseconds(work: Callable[[], object], times: int) -> float:
    begin = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - begin) / times * 1e6


def measure(found: dict[str, Subject], rounds: int, times: int) -> dict[tuple[str, str], Any]:
    """Return each round's figures: microseconds, of rotations records a second."""
    figures: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for name, subject in found.items():
            for work, often in (("encrypt", 10), ("decrypt", 10), ("get", 1), ("create", 1)):
                figure = microseconds(getattr(subject, work), often * times)
                figures.setdefault((name, work), []).append(figure)
        for name, subject in found.items():
            begin = time.perf_counter()
            done = subject.rotate()
            rate = done / (time.perf_counter() - begin)
            figures.setdefault((name, "rotate"), []).append(rate)
    return figures


def peak(folder: Path, records: Sequence[str]) -> float:
    """Return the MiB that rotating so many takes at most."""
    subject = Ours(folder, "aes-256-gcm", records)
    subject.rotate()
    tracemalloc.start()
    subject.rotate()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most / 2**20


def show(figures: dict[tuple[str, str], list[float]], names: Sequence[str]) -> None:
    print("| | encrypt, µs | decrypt, µs | get, µs | create, µs | rotate, records a second |")
    print("|---|---|---|---|---|---|")
    for name in names:
        cells = []
        for work in ("encrypt", "decrypt", "get", "create", "rotate"):
            rounds = figures[name, work]
            best = max(rounds) if work == "rotate" else min(rounds)
            digits = ",.0f" if work in ("create", "rotate") else ".1f"
            cells.append(f"{statistics.median(rounds):{digits}} ({best:{digits}})")
        print(f"| {name} | {' | '.join(cells)} |")
    print(f"| the bars | {BARS['encrypt']} | {BARS['decrypt']} | | | {BARS['rotate']} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--bytes", type=int, default=256, help="of each record's JSON")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--times", type=int, default=200, help="in a round; 10 times of encrypting")
    options = parser.parse_args()

    length = options.bytes - len('{"apiKey":""}')
    records = [secrets.token_hex(length)[:length] for _ in range(options.records)]
    names = ("cryptography", "SQLAlchemy", "SQLAlchemy-Utils")
    print(f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}")
    print(f"{', '.join(f'{name} {version(name)}' for name in names)}", end=", ")
    print(
        f"SQLite {sqlite3.sqlite_version}; {options.records:,} records of {options.bytes} bytes\n"
    )
    with tempfile.TemporaryDirectory() as directory:
        found = subjects(Path(directory), records)
        show(measure(found, options.rounds, options.times), list(found))
        print("\nmost memory of a rotation:", end=" ")
        for share in (4, 1):
            folder = Path(directory, str(share))
            folder.mkdir()
            some = records[: len(records) // share]
            print(f"{peak(folder, some):.1f} MiB for {len(some):,} records", end="; " * (share > 1))
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
