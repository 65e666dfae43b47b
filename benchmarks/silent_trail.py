"""An audit trail that records nothing, for benchmarks of what stands above it."""

from __future__ import annotations

from typing import cast

from flask_m9m.audit import AuditTrail
from flask_m9m.audit.chain import KeyCipher
from flask_m9m.settings import settings_of
from flask_m9m.storage import Database


def silent_trail(database: Database) -> AuditTrail:
    """Make a trail without sinks; it encrypts no key, so it needs no cipher."""
    settings = settings_of({"audit": {"enabled": False}}).audit
    return AuditTrail(settings, database, cast(KeyCipher, None), sender=None)
