"""Transfers: credentials to and from n8n and m9m."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..settings.arguments import check_type
from ..storage.records import SealedCredential, moment
from .audit_events import record_change, record_reads
from .caller import CURRENT, Caller, choose_owner
from .canaries import KeyCheck
from .encryption.cipher import Cipher
from .imports import Import, Imported, Open, Source, records_of
from .n8n_records import open_plain, opener, writer
from .stores import StoreTransaction
from .types import CredentialTypes
from .visible_records import VisibleRecords


class Transfers(VisibleRecords):
    """Imports and exports of the stored records."""

    types: CredentialTypes
    cipher: Cipher
    _keys: KeyCheck
    _clock: Callable[[], float]

    def _decrypt(self, record: SealedCredential) -> Mapping[str, Any]:
        raise NotImplementedError

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
