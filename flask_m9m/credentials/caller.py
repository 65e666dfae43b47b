"""Who asks for stored credentials, and whose they may see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from typing import Final

from werkzeug.local import LocalProxy

from ..auth.identity import Identity
from ..auth.names import name_of
from ..errors import NotFound
from ..storage import SealedCredential

_ADMIN = "admin"


class _Caller(Enum):
    SYSTEM = "the app itself"
    CURRENT = "whoever sends the current request"


SYSTEM: Final = _Caller.SYSTEM
"""The app itself, for which every record exists."""

CURRENT: Final = _Caller.CURRENT

Caller = Identity | _Caller | None
WhoCalls = Callable[[], Identity | _Caller | None]


def as_known(caller: Caller) -> Caller:
    """Return a caller as records know it: itself, not `current_identity`, under a clean name."""
    who = caller._get_current_object() if isinstance(caller, LocalProxy) else caller
    if isinstance(who, Identity):
        name = name_of(who.subject)
        # No owner has such a name, and the empty one stands for the app.
        return None if name is None else replace(who, subject=name)
    return who


def is_admin(who: Identity) -> bool:
    """Tell whether an identity sees what others own."""
    return who.has_role(_ADMIN)


def sees_all(who: Caller) -> bool:
    """Tell whether every record exists for whoever asks."""
    return who is SYSTEM or (isinstance(who, Identity) and is_admin(who))


def existing_for(record: SealedCredential | None, who: Caller) -> SealedCredential:
    """Return a record that exists for whoever asks.

    Raises:
        NotFound: it does not.
    """
    if record is None or who is None:
        raise NotFound
    if not sees_all(who) and record.owner != who.subject:  # type: ignore[union-attr]
        raise NotFound
    return record
