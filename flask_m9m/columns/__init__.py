"""Encrypted columns for an app's own models, with SQLAlchemy or Flask-SQLAlchemy.

    class Account(db.Model):
        id = db.Column(db.Integer, primary_key=True)
        token = db.Column(EncryptedString)

A value is stored as an envelope of `m9m.cipher` in a column of type TEXT; `None` is NULL. The
associated data is `flask-m9m column`, the table's name and the column's name, each preceded by its
length in 4 bytes (big-endian). So an envelope decrypts in no other column.

An envelope is not bound to its row: a column type sees values only, and a primary key that the
database assigns does not exist yet when the value is encrypted. An attacker who can write to the
database can therefore copy an envelope from one row to another. Store values that must not be
swapped in `m9m.credentials`, or encrypt them by `m9m.cipher` with the row's key as associated data.

This package imports SQLAlchemy; `import flask_m9m` does not import this package.
"""

from ..extension.model_columns import RotatedColumn, register_finder
from .databases import find_model_columns
from .encrypted_types import (
    EncryptedJSON,
    EncryptedString,
    NotComparable,
    NotEncrypted,
    render_item,
)
from .rotation import encrypt_plain_text, rotate
from .statements import watch_statements

__all__ = [
    "EncryptedJSON",
    "EncryptedString",
    "NotComparable",
    "NotEncrypted",
    "RotatedColumn",
    "encrypt_plain_text",
    "render_item",
    "rotate",
]

for _type in (EncryptedJSON, EncryptedString):
    _type.__module__ = __name__  # which migrations import

watch_statements()
register_finder(find_model_columns)
