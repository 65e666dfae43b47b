"""The database schema's version, and its upgrade by Alembic migrations."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

NEWEST = "0006"
VERSION_TABLE = "m9m_alembic_version"


def version(connection: Connection) -> str | None:
    """Return the version of a database's schema, or `None` if it has none of our tables."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608
    return None if found is None else str(found)


def is_newer(found: str | None) -> bool:
    """Tell whether a newer version of the package made a schema; versions sort as text."""
    return found is not None and found > NEWEST


def upgrade(connection: Connection) -> None:
    """Upgrade a database's schema to the newest version, inside the caller's transaction.

    Each migration gets its `Operations` as an argument. Alembic's `context` and `op` are global,
    and the app's own migrations may be using them at the same time.
    """
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(Path(__file__).with_name("migrations")))

    context = MigrationContext.configure(
        connection,
        opts={
            "version_table": VERSION_TABLE,
            "transactional_ddl": False,  # the caller begins and commits the transaction
            "fn": lambda revision, context: script._upgrade_revs("head", revision),
        },
    )
    context.run_migrations(op=Operations(context))
