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
from .imports import Import, Imported, Open, Source, records_of
from .info import Credential, CredentialInfo, credential_of, info_of
from .n8n_records import open_plain, opener, writer
from .rotation import Progress, Rotated, Rotation
from .stores import CredentialStore, StoreTransaction, bound_to, row_of
from .types import CredentialTypes
from .variables import resolve_variables
from .visible_records import VisibleRecords, check_quota


class Credentials(VisibleRecords):
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
        now = moment(self._clock())
        record = SealedCredential(
            id=str(uuid.uuid4()),
            name=checked_name("a credential's name", name),
            type=type,
            owner=choose_owner(self._who(caller), owner),
            resolve=resolve,
            envelope="",
            created_at=now,
            updated_at=now,
        )
        self.types.check(type, data)
        self._keys.check()
        record = replace(record, envelope=self._encrypt(record, data))
        with self._store.write() as transaction:
            check_quota(transaction.rows, record.owner, most)
            self._keys.keep_canary(transaction.rows)
            transaction.rows.add_all([record])
            record_change(self._trail, transaction, self._who(caller), "created", record)
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
        with self._store.write() as transaction:
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
            record_change(self._trail, transaction, self._who(caller), "changed", new)
        return info_of(new)

    def delete(self, credential_id: str, *, caller: Caller = CURRENT) -> None:
        """Delete a credential.

        Raises:
            NotFound: the caller sees no credential with this id.
        """
        who = self._check_visible(credential_id, caller)
        with self._store.write() as transaction:
            record = require_visible(row_of(transaction.rows, credential_id), who)
            transaction.rows.delete(record.id)
            record_change(self._trail, transaction, self._who(caller), "deleted", record)

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

    # Import and export

    def import_n8n(
        self,
        records: Source,
        key: str | None = None,
        deployment_keys: Source = (),
        dry_run: bool = False,
        owner: str | None = None,
        *,
        caller: Caller = CURRENT,
    ) -> Imported:
        """Import the output of `n8n export:credentials`, encrypted or `--decrypted`.

        Values are literal: `${NAME}` stays as it is. Data of unknown types is not checked. Records
        keep their ids; a record whose id exists already is skipped.

        Args:
            records: records, or the path of a JSON file of them, of at most 32 MiB.
            key: the instance key, `N8N_ENCRYPTION_KEY`, for encrypted data.
            deployment_keys: rows of n8n's table `deployment_key`, or the path of a JSON file of
                them, if that n8n rotates its keys.
            dry_run: read, decrypt and check, but change nothing.
            owner: the owner of the imported records; by default as in `create`.
            caller: the caller, which must be the app itself or an admin.

        Raises:
            UnreadableImport: the records cannot be read.
            TypeError, ValueError: an argument is not valid.
            AccessDenied: the caller may not import.
            SettingsError: there is no encryption key, or one that records need is missing.
            DatabaseUnavailable: the database failed; import again to add the rest.
        """
        self._check_may_import(caller)
        check_type(str | None, key=key)
        return self._import(records, opener(key, deployment_keys), dry_run, owner, caller)

    def import_m9m(
        self,
        records: Source,
        dry_run: bool = False,
        owner: str | None = None,
        *,
        caller: Caller = CURRENT,
    ) -> Imported:
        """Import the unencrypted JSON that m9m exports; like `import_n8n` otherwise.

        n8n's `--decrypted` exports have the same form.

        Raises:
            UnreadableImport: the records cannot be read.
        """
        self._check_may_import(caller)
        return self._import(records, open_plain, dry_run, owner, caller)

    def export_n8n(self, key: str, *, caller: Caller = CURRENT) -> Sequence[dict[str, Any]]:
        """Return the credentials that the caller sees as records for `n8n import:credentials`.

        They are encrypted in n8n's old form, which every version reads; `${NAME}` stays as it is.

        Args:
            key: the instance key of the n8n that will read them.
            caller: the caller; by default, that of the current request.

        Raises:
            ValueError: the instance key is empty or not Unicode.
            DecryptionFailed: a record's data was altered or moved; a note names the record.
            SettingsError: there is no encryption key, or one that records need is missing.
        """
        check_type(str, key=key)
        self._keys.check()
        write, (records, _) = writer(key), self._list_visible(caller)
        exported = [write(record, self._decrypt(record)) for record in records]
        record_reads(self._trail, self._who(caller), *records, exported=True)
        return exported

    def _import(
        self, records: Source, open_data: Open, dry_run: bool, owner: str | None, caller: Caller
    ) -> Imported:
        check_type(bool, dry_run=dry_run)
        owner, now = choose_owner(self._who(caller), owner), moment(self._clock())

        def record(transaction: StoreTransaction, added: Sequence[SealedCredential]) -> None:
            record_change(self._trail, transaction, self._who(caller), "imported", *added)

        work = Import(
            self._store, self.cipher, self._keys, self.types, owner, now, record, dry_run=dry_run
        )
        return work.run(records_of(records), open_data)

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
