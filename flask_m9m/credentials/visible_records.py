"""VisibleRecords: which stored credentials a caller sees, and audited look-ups of one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from ..audit.trail import AuditTrail
from ..auth.identity import Identity
from ..auth.revocations import require_unrevoked
from ..errors import AccessDenied, Conflict, NotFound
from ..settings.arguments import check_type
from ..storage.records import SealedCredential
from .audit_events import record_denial
from .caller import CURRENT, Caller, WhoCalls, normalize_caller, require_visible, sees_all
from .stores import CredentialStore, Rows, StoreTransaction, row_of

T = TypeVar("T")


class VisibleRecords:
    """The stored records as a caller sees them."""

    _store: CredentialStore
    _trail: AuditTrail
    _who_calls: WhoCalls

    def _who(self, caller: Caller) -> Caller:
        return normalize_caller(self._who_calls() if caller is CURRENT else caller)

    def _check_may_import(self, caller: Caller) -> None:
        """Refuse callers that do not see all records: a skipped id would reveal a hidden one."""
        if not sees_all(self._who(caller)):
            raise AccessDenied

    def _list_visible(
        self,
        caller: Caller,
        type: str | None = None,
        *,
        envelopes: bool = True,
        limit: int | None = None,
        offset: int = 0,
    ) -> tuple[Sequence[SealedCredential], int]:
        """Return a page of the records that the caller sees, and the number of all of them."""
        who = self._who(caller)
        if who is None:
            return [], 0
        owner = None if sees_all(who) else who.subject  # type: ignore[union-attr]

        def read(rows: Rows) -> tuple[Sequence[SealedCredential], int]:
            page = rows.all(owner, type, envelopes=envelopes, limit=limit, offset=offset)
            return page, len(page) if limit is None else rows.count(owner, type)

        return self._store.read(read)

    def _find(self, credential_id: str, caller: Caller) -> SealedCredential:
        """Return a record that the caller sees; audit an attempt to read another's record.

        The caller is determined outside the query, which may run in a thread without the request.
        """
        record, who = self._store.read(lambda rows: row_of(rows, credential_id)), self._who(caller)
        try:
            return require_visible(record, who)
        except NotFound as error:
            if record is not None:
                record_denial(self._trail, who, record, error.error_code)
            raise

    def _change(self, who: Caller, make: Callable[[StoreTransaction], T]) -> T:
        """Make a change for a caller, unless its credential was revoked before the transaction.

        Raises:
            InvalidToken, InvalidApiKey, InvalidCredentials, Conflict: see `require_unrevoked`.
        """

        def change(transaction: StoreTransaction) -> T:
            if isinstance(who, Identity) and transaction.database is not None:
                require_unrevoked(transaction.database, who)
            return make(transaction)

        return self._store.change(change)

    def _check_visible(self, credential_id: str, caller: Caller) -> Caller:
        """Refuse and audit access to another's record, outside a transaction; return the caller."""
        self._find(credential_id, caller)
        return self._who(caller)


def check_quota(rows: Rows, owner: str, most: int | None) -> None:
    """Refuse one credential too many of an owner, in the transaction that stores it.

    Raises:
        Conflict: the owner has the most credentials allowed.
    """
    check_type(int | None, most=most)
    if most is not None and rows.count(owner) >= most:
        raise Conflict(f"the owner has {most} credentials, the most allowed: delete one first")
