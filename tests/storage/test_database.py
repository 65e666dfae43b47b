from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from flask_m9m.errors import DatabaseUnavailable, SchemaError
from flask_m9m.settings import settings_of
from flask_m9m.storage import Database, schema, tables
from flask_m9m.storage.migrations import versions

from .conftest import OpenDatabase

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def change(database: Database, name: str = "x") -> None:
    with database.write() as transaction:
        transaction.append_change("test", name, NOW)


def names(database: Database) -> list[str]:
    return database.read(lambda t: [one.name for one in t.changes_since(0, 1_000)])


def test_looking_makes_no_database(sqlite_url: str, open_database: OpenDatabase) -> None:
    database = open_database(sqlite_url)

    assert not database.present()
    with pytest.raises(SchemaError):
        names(database)
    assert not Path(sqlite_url.removeprefix("sqlite:///")).exists()


def test_writing_makes_sqlites_file_for_its_owner_alone(
    sqlite_url: str, open_database: OpenDatabase
) -> None:
    database = open_database(sqlite_url)
    change(database)

    path = Path(sqlite_url.removeprefix("sqlite:///"))
    assert names(database) == ["", "x"]
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_servers_tables_are_made_by_the_upgrade_alone(
    postgres_url: str, open_database: OpenDatabase
) -> None:
    database = open_database(postgres_url)

    assert not database.present()
    with pytest.raises(SchemaError, match="flask m9m db upgrade"):
        change(database)
    assert database.upgrade() == (None, schema.NEWEST)
    assert database.upgrade() == (schema.NEWEST, schema.NEWEST)
    change(database)
    assert names(database) == ["", "x"]


def test_the_migrations_make_the_tables_that_are_declared(database: Database) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with database._connected().connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"include_name": lambda name, kind, _: name != schema.VERSION_TABLE}
        )
        found = [
            one
            for one in compare_metadata(context, tables.metadata)
            if one[0] not in ("add_index", "remove_index", "add_constraint")
        ]
    assert found == []


def test_the_newest_version_is_the_last_migration() -> None:
    files = sorted(Path(versions.__file__).parent.glob("0*.py"))

    assert files[-1].name.startswith(f"{schema.NEWEST}_")


def test_a_schema_of_a_newer_package_is_left_alone(
    database: Database, database_url: str, open_database: OpenDatabase
) -> None:
    with database._connected().begin() as connection:
        connection.execute(sa.text(f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'"))
    other = open_database(database_url)

    for call in (other.present, other.upgrade, lambda: change(other)):
        with pytest.raises(SchemaError, match="newer flask-m9m"):
            call()
    assert database.read(lambda t: t.newest_change()).name == ""  # type: ignore[union-attr]
    assert other.status()[1:] == ("9999", schema.NEWEST)


def test_to_ask_whether_it_makes_itself_makes_nothing_and_misses_nothing(
    tmp_path: Path, open_database: OpenDatabase
) -> None:
    database = open_database(f"sqlite:///{tmp_path}/m9m.db")
    assert database.creates_own_schema
    assert not database.present()
    assert not list(tmp_path.glob("*.db"))
    change(database)
    assert database.present()


def test_a_uri_of_sqlites_is_refused_for_nobody_would_see_its_file(
    tmp_path: Path, open_database: OpenDatabase
) -> None:
    database = open_database(f"sqlite:///file:{tmp_path}/m9m.db?uri=true")
    for call in (database.present, database.upgrade, database.where, lambda: change(database)):
        for _ in range(2):
            with pytest.raises(DatabaseUnavailable, match="not by a file: URI"):
                call()
    assert not list(tmp_path.glob("*.db"))


def test_a_transaction_that_fails_changes_nothing(database: Database) -> None:
    def fail() -> None:
        with database.write() as transaction:
            transaction.append_change("test", "x", NOW)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    change(database, "y")
    assert names(database) == ["", "y"]


def test_threads_write_one_after_the_other(database: Database) -> None:
    def write(number: int) -> None:
        for _ in range(5):
            change(database, str(number))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(names(database)) == 31


UPGRADE = """
import sys
from flask_m9m.settings import settings_of
from flask_m9m.storage import Database
database = Database(settings_of({"database": {"url": sys.argv[1]}}).database, "")
sys.stdin.readline()
print(database.upgrade())
"""


def test_processes_that_upgrade_at_once_do_not_collide(database_url: str) -> None:
    command = [sys.executable, "-c", UPGRADE, database_url]
    pipe = subprocess.PIPE
    racers = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(4)
    ]
    for one in racers:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    ends = [one.communicate(timeout=60) for one in racers]

    assert [err for _, err in ends if err] == []
    newest = schema.NEWEST
    upgraded = [f"{(newest, newest)}\n"] * 3 + [f"{(None, newest)}\n"]
    assert sorted(out for out, _ in ends) == upgraded


def test_the_order_of_ids_is_the_order_of_commits(
    database: Database, database_url: str, open_database: OpenDatabase
) -> None:
    """The one with the lower id commits last: without the lock the other would come before it."""
    other, holds, seen = open_database(database_url), threading.Event(), []

    def slow() -> None:
        with database.write() as transaction:
            transaction.append_change("test", "first", NOW)
            holds.set()
            threading.Event().wait(0.4)

    def quick() -> None:
        holds.wait(10)
        change(other, "second")
        seen.extend(names(other))

    threads = [threading.Thread(target=one) for one in (slow, quick)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert seen == ["", "first", "second"]


def test_a_number_is_never_used_again(database: Database) -> None:
    change(database, "x")
    last = database.read(lambda t: t.newest_change())
    with database._connected().begin() as connection:
        connection.execute(sa.delete(tables.changes))
    change(database, "y")

    newest = database.read(lambda t: t.newest_change())
    assert last is not None
    assert newest is not None
    assert newest.id > last.id


def test_a_lost_connection_is_made_anew(postgres_url: str, open_database: OpenDatabase) -> None:
    database = open_database(postgres_url)
    database.upgrade()
    killer = sa.create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    end_others = sa.text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    for call in (lambda: names(database), lambda: change(database)):
        call()
        with killer.connect() as connection:
            connection.execute(end_others)
        call()
    killer.dispose()


def test_what_cannot_be_reached_is_said_without_the_password(open_database: OpenDatabase) -> None:
    database = open_database("postgresql://m9m:hunter2secret@127.0.0.1:1/none")

    for call in (database.present, lambda: change(database)):
        with pytest.raises(DatabaseUnavailable) as caught:
            call()
        assert "hunter2secret" not in str(caught.value)
        assert caught.value.code == 503
    assert "hunter2secret" not in database.where()


@pytest.mark.parametrize("url", ["mysql://127.0.0.1/x", "nonsense://x", "sqlite:///"])
def test_other_databases_are_refused_or_in_memory(url: str, open_database: OpenDatabase) -> None:
    database = open_database(url)
    if url == "sqlite:///":
        change(database)
        assert names(database) == ["", "x"]
        return
    with pytest.raises(DatabaseUnavailable, match=r"database\.url"):
        change(database)


def test_a_folder_that_cannot_be_made_is_named(open_database: OpenDatabase, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    database = open_database(f"sqlite:///{tmp_path}/file/m9m.db")

    with pytest.raises(DatabaseUnavailable, match=r"m9m\.db cannot be written .*database\.url"):
        database.upgrade()


def test_a_file_that_is_no_database_is_an_error(
    open_database: OpenDatabase, tmp_path: Path
) -> None:
    path = tmp_path / "m9m.db"
    path.write_bytes(b"no database at all" * 100)

    with pytest.raises(DatabaseUnavailable):
        open_database(f"sqlite:///{path}").present()
    assert path.read_bytes().startswith(b"no database")


def test_a_file_that_was_replaced_is_opened_anew(
    sqlite_url: str, open_database: OpenDatabase, tmp_path: Path
) -> None:
    database, copy = open_database(sqlite_url), open_database(f"sqlite:///{tmp_path}/copy.db")
    change(database, "old")
    change(copy, "new")
    copy.close()
    for log in ("-wal", "-shm"):
        os.unlink(sqlite_url.removeprefix("sqlite:///") + log)
    os.replace(tmp_path / "copy.db", sqlite_url.removeprefix("sqlite:///"))

    assert names(database) == ["", "new"]


def test_a_file_that_vanished_is_not_made_again(
    sqlite_url: str, open_database: OpenDatabase
) -> None:
    database = open_database(sqlite_url)
    change(database)
    os.unlink(sqlite_url.removeprefix("sqlite:///"))

    for call in (database.present, lambda: change(database)):
        with pytest.raises(DatabaseUnavailable, match="no longer exists"):
            call()


def test_the_folder_of_a_configured_file_is_not_made_in_a_missing_volumes_place(
    open_database: OpenDatabase, tmp_path: Path
) -> None:
    folder = tmp_path / "volume"
    database = open_database(f"sqlite:///{folder}/m9m.db")
    for call in (database.present, lambda: change(database)):
        with pytest.raises(DatabaseUnavailable, match=r"volume does not exist: mount"):
            call()
    assert not folder.exists()
    folder.mkdir()
    assert not database.present()
    change(database)
    assert database.present()


def test_a_locked_file_ends_in_an_error(sqlite_url: str, open_database: OpenDatabase) -> None:
    database = open_database(sqlite_url)
    change(database)
    holder = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")

    with (
        pytest.raises(DatabaseUnavailable, match="locked"),
        database.write(patience=0.1) as transaction,
    ):
        transaction.append_change("test", "y", NOW)
    assert names(database) == ["", "x"]
    holder.execute("ROLLBACK")
    change(database)


def test_an_apps_own_engine_is_used(database_url: str, tmp_path: Path) -> None:
    if database_url.startswith("sqlite"):
        database_url = f"sqlite:///{tmp_path}/app.db"
    engine = sa.create_engine(database_url)
    settings = settings_of({}).database
    for given in (engine, lambda: engine):
        database = Database(settings, "", given)
        database.upgrade()
        change(database)
        database.close()
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM m9m_changes")).scalar() == 3
    engine.dispose()


def test_a_child_process_leaves_the_parents_connections_alone(database: Database) -> None:
    change(database, "parent")
    child = os.fork()
    if child == 0:
        try:
            change(database, "child")
            os._exit(0 if names(database) == ["", "parent", "child"] else 1)
        except BaseException:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert names(database) == ["", "parent", "child"]


def test_what_waits_for_a_commit_is_called_once_it_is_there_and_not_where_it_is_taken_back(
    database_url: str, open_database: OpenDatabase
) -> None:
    database = open_database(database_url)
    database.upgrade()
    called: list[list[str]] = []
    with database.write() as transaction:
        transaction.committed.append(lambda: called.append(names(database)))
        transaction.append_change("test", "x", NOW)
        assert called == []
    assert called == [["", "x"]]

    def fail() -> None:
        with database.write() as transaction:
            transaction.committed.append(lambda: called.append([]))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert len(called) == 1


def test_a_change_that_could_not_be_told_is_made_all_the_same(
    database_url: str, open_database: OpenDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    database = open_database(database_url)
    database.upgrade()
    called = []
    with database.write() as transaction:
        transaction.committed.append(lambda: 1 / 0)
        transaction.committed.append(lambda: called.append("told"))
        transaction.append_change("test", "x", NOW)
    assert names(database) == ["", "x"]
    assert called == ["told"]
    assert "a callback after it failed" in caplog.text
