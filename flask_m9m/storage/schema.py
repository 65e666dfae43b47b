"""The schema's version, and the migrations that bring a database to it."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

NEWEST = "0003"
VERSION_TABLE = "m9m_alembic_version"


def version(connection: Connection) -> str | None:
    """Return the version of a database's schema, `None` where our tables are not there."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608
    return None if found is None else str(found)


def is_newer(found: str | None) -> bool:
    """Tell whether a schema was made by a newer version of the package; versions are ordered."""
    return found is not None and found > NEWEST


def upgrade(connection: Connection) -> None:
    """Bring a database's schema to the newest version, inside the caller's transaction.

    It goes past Alembic's `context` and `op`, which are global and may at this moment belong to
    the app's own migrations: each of ours is given its `Operations`.
    """
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(Path(__file__).with_name("migrations")))

    context = MigrationContext.configure(
        connection,
        opts={
            "version_table": VERSION_TABLE,
            "transactional_ddl": False,  # the transaction is the caller's
            "fn": lambda revision, context: script._upgrade_revs("head", revision),
        },
    )
    context.run_migrations(op=Operations(context))
