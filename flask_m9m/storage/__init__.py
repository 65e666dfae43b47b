"""What is kept in a database, and how processes learn of each other's changes.

SQLAlchemy is loaded when a database is first opened, not before.
"""

from __future__ import annotations

from .database import Database
from .feed import Cache, ChangeFeed, Topic
from .records import ApiKey, EndRow, Envelope, SealedCredential, Session, Sought, User, moment

__all__ = [
    "ApiKey",
    "Cache",
    "ChangeFeed",
    "Database",
    "EndRow",
    "Envelope",
    "SealedCredential",
    "Session",
    "Sought",
    "Topic",
    "User",
    "include_name",
    "moment",
]


def include_name(name: str | None, type_: str, parent_names: object = None) -> bool:
    """Leave our tables out of an app's own migrations, where both share a database.

    It goes into `env.py`: `context.configure(…, include_name=flask_m9m.storage.include_name)`;
    without it, `alembic revision --autogenerate` proposes to drop them.
    """
    return not (type_ == "table" and name is not None and name.startswith("m9m_"))
