"""Access to stored credentials: the caller of an operation, and which records it may see or own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from typing import Final

from werkzeug.local import LocalProxy

from ..auth.identity import Identity
from ..auth.names import checked_name, name_of
from ..errors import AccessDenied, NotFound
from ..settings.arguments import check_type
from ..storage.records import SealedCredential

_ADMIN = "admin"


class _Caller(Enum):
    SYSTEM = "the app itself"
    CURRENT = "the caller of the current request"


SYSTEM: Final = _Caller.SYSTEM
"""The app itself, which may see every record."""

CURRENT: Final = _Caller.CURRENT
"""The caller of the current request; outside a request, the app itself."""

Caller = Identity | _Caller | None
WhoCalls = Callable[[], Identity | _Caller | None]


def normalize_caller(caller: Caller) -> Caller:
    """Replace the proxy `current_identity` by its identity, and normalize the subject's name.

    Returns:
        The caller; `None` for an identity whose subject cannot be the name of an owner.
    """
    who = caller._get_current_object() if isinstance(caller, LocalProxy) else caller
    check_type(Identity | _Caller | None, caller=who)
    if isinstance(who, Identity):
        name = name_of(who.subject)
        # No record has such an owner, and an empty owner means the app itself.
        return None if name is None else replace(who, subject=name)
    return who


def is_admin(who: Identity) -> bool:
    """Tell whether an identity may see the records of other owners."""
    return who.has_role(_ADMIN)


def sees_all(who: Caller) -> bool:
    """Tell whether a caller may see every record."""
    return who is SYSTEM or (isinstance(who, Identity) and is_admin(who))


def require_visible(record: SealedCredential | None, who: Caller) -> SealedCredential:
    """Return a record if it exists and the caller may see it.

    Raises:
        NotFound: there is no record, or the caller may not see it.
    """
    if record is None or who is None:
        raise NotFound
    if not sees_all(who) and record.owner != who.subject:  # type: ignore[union-attr]
        raise NotFound
    return record


def choose_owner(who: Caller, owner: str | None) -> str:
    """Return the owner of a record that a caller creates.

    Args:
        who: the caller.
        owner: the owner that the caller asks for; `None` for the caller itself.

    Returns:
        A subject, or the empty string for the app itself.

    Raises:
        ValueError: the owner is not a valid name.
        AccessDenied: the caller may not create records for this owner.
    """
    if owner is not None:
        owner = checked_name("an owner", owner)
    if who is SYSTEM:
        return owner or ""
    if not isinstance(who, Identity):
        raise AccessDenied
    if owner is not None and owner != who.subject and not is_admin(who):
        raise AccessDenied
    return owner or who.subject
