"""The database: connections, records, and the change feed that keeps processes' caches current.

SQLAlchemy is imported when a database is first opened, not before.
"""

from __future__ import annotations

from .database import Database
from .feed import Cache, ChangeFeed, Topic
from .records import ApiKey, AuditSearch, EndRow, Envelope, SealedCredential, Session, User, moment

__all__ = [
    "ApiKey",
    "AuditSearch",
    "Cache",
    "ChangeFeed",
    "Database",
    "EndRow",
    "Envelope",
    "SealedCredential",
    "Session",
    "Topic",
    "User",
    "include_name",
    "moment",
]


def include_name(name: str | None, type_: str, parent_names: object = None) -> bool:
    """Exclude the `m9m_` tables from an app's own Alembic migrations.

    An app that shares its database with flask-m9m needs it in `env.py`:
    `context.configure(…, include_name=flask_m9m.storage.include_name)`. Without it,
    `alembic revision --autogenerate` proposes to drop these tables.

    Args:
        name: the name of a table, index or other object of the database.
        type_: its kind, such as "table".
        parent_names: the names of the objects that contain it; not used.

    Returns:
        Whether Alembic includes the object.
    """
    return not (type_ == "table" and name is not None and name.startswith("m9m_"))
