"""Credentials: the API behind `m9m.credentials` to create, read, change, rotate and import them."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

from ..audit.trail import AuditTrail
from ..auth.names import checked_name
from ..errors import Conflict, DecryptionFailed
from ..settings.arguments import check_callable, check_page, check_type
from ..storage.records import SealedCredential, moment
from .audit_events import record_change, record_reads
from .caller import (
    CURRENT,
    SYSTEM,
    Caller,
    WhoCalls,
    choose_owner,
    require_visible,
)
from .canaries import KeyCheck
from .encryption.cipher import Cipher
from .fields import deserialize, serialize
from .info import Credential, CredentialInfo, credential_of, info_of
from .rotation import Progress, Rotated, Rotation
from .stores import CredentialStore, StoreTransaction, bound_to, row_of
from .transfers import Transfers
from .types import CredentialTypes
from .variables import resolve_variables
from .visible_records import check_quota


class Credentials(Transfers):
    """An app's stored credentials, each encrypted and bound to its id, type and owner.

    A caller sees its own records only; with the role `admin` it sees all. Records without an owner
    belong to the app itself. Inside a request the caller is the request's identity, if any;
    outside, and with `caller=SYSTEM`, it is the app itself, which sees all.

    Args:
        store: the store of the records.
        cipher: encrypts and decrypts their data.
        trail: the audit trail of reads and changes.
        environment: the environment variables that records with `resolve=True` may read.
        who_calls: returns the caller for calls with `caller=CURRENT`.
        types: the app's credential types.
        clock: seconds since the epoch.
        environ: the environment.
    """

    def __init__(
        self,
        store: CredentialStore,
        cipher: Cipher,
        trail: AuditTrail,
        environment: Sequence[str] = (),
        who_calls: WhoCalls = lambda: SYSTEM,
        types: CredentialTypes | None = None,
        clock: Callable[[], float] = time.time,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.types = types or CredentialTypes()
        self._store = store
        self.cipher = cipher
        self._trail = trail
        self._environment = frozenset(environment)
        self._who_calls = who_calls
        self._clock = clock
        self._environ = environ
        self._keys = KeyCheck(store, cipher)

    def with_caller(self, who_calls: WhoCalls) -> Credentials:
        """Return a view of the same records, with another function for the current caller."""
        other = copy(self)
        other._who_calls = who_calls
        return other

    def create(
        self,
        name: str,
        type: str,
        data: Mapping[str, Any],
        owner: str | None = None,
        resolve: bool = False,
        *,
        caller: Caller = CURRENT,
        most: int | None = None,
    ) -> CredentialInfo:
        """Store a new credential.

        Args:
            name: 1 to 255 printable characters.
            type: a registered credential type.
            data: its fields, at most 1 MiB as JSON.
            owner: the subject that owns it; by default the caller.
            resolve: whether `${NAME}` in its values is replaced by an environment variable.
            caller: the caller; by default, that of the current request.
            most: how many credentials the owner may have, with this one.

        Raises:
            TypeError, ValueError: an argument is not valid.
            AccessDenied, Conflict: the caller may not create it for this owner; or one too many.
            SettingsError: there is no encryption key, or one that records need is missing.
            DatabaseUnavailable: the database failed; nothing was stored.
        """
        check_type(bool, resolve=resolve)
        who, now = self._who(caller), moment(self._clock())
        record = SealedCredential(
            id=str(uuid.uuid4()),
            name=checked_name("a credential's name", name),
            type=type,
            owner=choose_owner(who, owner),
            resolve=resolve,
            envelope="",
            created_at=now,
            updated_at=now,
        )
        self.types.check(type, data)
        self._keys.check()
        record = replace(record, envelope=self._encrypt(record, data))

        self._change(who, lambda transaction: self._add(transaction, record, who, most))
        return info_of(record)

    def get(self, credential_id: str, *, caller: Caller = CURRENT) -> Credential:
        """Return a credential, decrypted.

        Raises:
            NotFound: the caller sees no credential with this id.
            DecryptionFailed: its data was altered, or belongs to another record.
            UnresolvedVariable: it refers to a variable that is not set, or may not be read.
            SettingsError: there is no encryption key, or one that records need is missing.
            DatabaseUnavailable: the database cannot be read.
        """
        self._keys.check()
        record = self._find(credential_id, caller)
        data = self._decrypt(record)
        if record.resolve:
            data = resolve_variables(data, self._environment, self._environ)
        record_reads(self._trail, self._who(caller), record)
        return credential_of(record, data)

    def list(
        self, type: str | None = None, *, caller: Caller = CURRENT
    ) -> Sequence[CredentialInfo]:
        """Return the metadata of the credentials that the caller sees, the oldest first.

        Args:
            type: only the credentials of this type.
            caller: the caller; by default, that of the current request.
        """
        check_type(str | None, type=type)
        records, _ = self._list_visible(caller, type, envelopes=False)
        return [info_of(record) for record in records]

    def page(
        self,
        type: str | None = None,
        limit: int = 100,
        offset: int = 0,
        *,
        caller: Caller = CURRENT,
    ) -> tuple[Sequence[CredentialInfo], int]:
        """Return a page of the list, and the length of the whole list.

        Args:
            type: only the credentials of this type.
            limit: the most credentials of a page, 1 to 1,000.
            offset: how many credentials come before the page.
            caller: the caller; by default, that of the current request.
        """
        check_type(str | None, type=type)
        check_page(limit, offset)
        records, total = self._list_visible(
            caller, type, envelopes=False, limit=limit, offset=offset
        )
        return [info_of(record) for record in records], total

    def info(self, credential_id: str, *, caller: Caller = CURRENT) -> CredentialInfo:
        """Return the metadata of a credential; nothing is decrypted.

        Raises:
            NotFound: the caller sees no credential with this id.
            DatabaseUnavailable: the database cannot be read.
        """
        return info_of(self._find(credential_id, caller))

    def update(
        self,
        credential_id: str,
        name: str | None = None,
        data: Mapping[str, Any] | None = None,
        *,
        caller: Caller = CURRENT,
    ) -> CredentialInfo:
        """Change a credential's name, its data, or both.

        Args:
            credential_id: its id.
            name: the new name; by default it does not change.
            data: all its new fields; by default they do not change.
            caller: the caller; by default, that of the current request.

        Raises:
            NotFound: the caller sees no credential with this id.
            TypeError, ValueError: an argument is not valid.
            Conflict: it changed at the same time; this change was not made.
            DecryptionFailed: its data was altered, or belongs to another record.
        """
        self._keys.check()
        who = self._check_visible(credential_id, caller)

        def change(transaction: StoreTransaction) -> SealedCredential:
            rows = transaction.rows
            old = require_visible(row_of(rows, credential_id), who)
            new = replace(old, updated_at=moment(self._clock()))
            if name is not None:
                new = replace(new, name=checked_name("a credential's name", name))
            if data is not None:
                self._decrypt(old)  # refuse a row that was moved here
                if old.type in self.types:  # imports may add other types
                    self.types.check(old.type, data)
                new = replace(new, envelope=self._encrypt(new, data))
                self._keys.keep_canary(rows)
            if not rows.replace(old, new):
                raise Conflict("the credential changed at the same time; read it and try again")
            record_change(self._trail, transaction, who, "changed", new)
            return new

        return info_of(self._change(who, change))

    def delete(self, credential_id: str, *, caller: Caller = CURRENT) -> None:
        """Delete a credential.

        Raises:
            NotFound: the caller sees no credential with this id.
        """
        who = self._check_visible(credential_id, caller)

        def remove(transaction: StoreTransaction) -> None:
            record = require_visible(row_of(transaction.rows, credential_id), who)
            transaction.rows.delete(record.id)
            record_change(self._trail, transaction, who, "deleted", record)

        self._change(who, remove)

    def test(self, credential_id: str, *, caller: Caller = CURRENT) -> Any:
        """Call the app's checker for the credential's type, and return its result.

        Raises:
            NotFound: the caller sees no credential with this id, or its type has no checker.
        """
        credential = self.get(credential_id, caller=caller)
        return self.types.checker_of(credential.type)(credential)

    def rotate(
        self,
        progress: Progress | None = None,
        *,
        dry_run: bool = False,
        cipher: Cipher | None = None,
    ) -> Rotated:
        """Re-encrypt every credential under the primary key and current cipher, in service.

        Args:
            progress: called after each batch with the number of records done and their total.
            dry_run: read and decrypt, but change nothing.
            cipher: a cipher to use instead of the configured one, with the same keys.

        Raises:
            SettingsError: there is no encryption key, or one that records need is missing.
            DatabaseUnavailable: the database failed; call again to re-encrypt the rest.
        """
        check_type(bool, dry_run=dry_run)
        check_type(Cipher | None, cipher=cipher)
        if progress is not None:
            check_callable(progress=progress)
        target, keys = cipher or self.cipher, self._keys
        rotation = Rotation(self._store, target, keys, self._trail, progress, dry_run=dry_run)
        return rotation.run()

    def check_keys(self) -> None:
        """Check that the settings list every key that stored credentials need.

        Raises:
            SettingsError: there is no encryption key, or one that records need is missing.
            DatabaseUnavailable: the database cannot be read.
        """
        self._keys.check()

    def _add(
        self,
        transaction: StoreTransaction,
        record: SealedCredential,
        who: Caller,
        most: int | None,
    ) -> None:
        check_quota(transaction.rows, record.owner, most)
        self._keys.keep_canary(transaction.rows)
        transaction.rows.add_all([record])
        record_change(self._trail, transaction, who, "created", record)

    # Encryption

    def _encrypt(self, record: SealedCredential, data: Mapping[str, Any]) -> str:
        return self.cipher.encrypt_record(serialize(data), bound_to(record))

    def _decrypt(self, record: SealedCredential) -> Mapping[str, Any]:
        try:
            return deserialize(self.cipher.decrypt_record(record.envelope, bound_to(record)))
        except DecryptionFailed as error:
            error.add_note(f"credential {record.id}")
            raise
        except (ValueError, AttributeError):  # not a row written by us: no type, or not text
            raise DecryptionFailed from None
