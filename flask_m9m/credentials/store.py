"""Credentials: what `m9m.credentials` offers an app."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

from ..audit import AuditTrail, EventName
from ..auth.identity import Identity
from ..auth.names import checked_name
from ..crypto.cipher import Cipher
from ..errors import AccessDenied, Conflict, DecryptionFailed, NotFound
from ..storage import SealedCredential, moment
from .caller import CURRENT, SYSTEM, Caller, WhoCalls, as_known, existing_for, is_admin, sees_all
from .events import event_of
from .fields import deserialized, serialized
from .imports import Import, Imported, Open, Source, records_of
from .info import Credential, CredentialInfo, info_of
from .keys import KeyCheck
from .n8n import open_plain, opener, writer
from .rotation import Progress, Rotated, Rotation
from .shelf import CredentialStore, StoreTransaction, bound_to, row_of
from .types import CredentialTypes
from .variables import resolved


class Credentials:
    """Keeps credentials, encrypted and each bound to its id, type and owner.

    A record that is owned by another does not exist for a caller without the role `admin`, nor
    does one without an owner, which is the app's own. Inside a request the caller is its
    identity, or nobody; outside, and with `caller=SYSTEM`, the app itself asks.

    Args:
        store: where they are kept.
        cipher: encrypts and decrypts them.
        trail: told what is read and changed.
        environment: names that records made with `resolve=True` may read.
        who_calls: tells who does where a call does not say.
        types: the credential types that the app knows.
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

    def asked_by(self, who_calls: WhoCalls) -> Credentials:
        """Return the same records, with somebody else to tell who asks."""
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
    ) -> CredentialInfo:
        """Keep a credential.

        Args:
            name: what it is for, 1 to 255 printable characters.
            type: a type of `types`.
            data: its fields, JSON of at most 1 MiB.
            owner: whose it is; left out, the caller's, or nobody's where the app itself asks.
            resolve: whether `${NAME}` in its values stands for an environment variable.
            caller: who asks.

        Raises:
            ValueError: an argument is wrong.
            AccessDenied: the caller may not make one for that owner.
            SettingsError: there is no encryption key, or one that records need is not there.
            DatabaseUnavailable: it could not be kept.
        """
        now = moment(self._clock())
        record = SealedCredential(
            id=str(uuid.uuid4()),
            name=checked_name("a credential's name", name),
            type=type,
            owner=self._owner_for(caller, owner),
            resolve=bool(resolve),
            envelope="",
            created_at=now,
            updated_at=now,
        )
        self.types.check(type, data)
        self._keys.check()
        record = replace(record, envelope=self._sealed(record, data))
        with self._store.write() as transaction:
            self._keys.keep_canary(transaction.rows)
            transaction.rows.add_all([record])
            self._changed(transaction, "created", caller, record)
        return info_of(record)

    def get(self, credential_id: str, *, caller: Caller = CURRENT) -> Credential:
        """Return a credential, decrypted.

        Raises:
            NotFound: there is none of that id for this caller.
            DecryptionFailed: its data was changed, or belongs elsewhere.
            UnresolvedVariable: it names an environment variable that is not set, or not to be read.
            SettingsError: there is no encryption key, or one that records need is not there.
            DatabaseUnavailable: it cannot be told.
        """
        self._keys.check()
        record = self._found(credential_id, caller)
        data = self._opened(record)
        if record.resolve:
            data = resolved(data, self._environment, self._environ)
        read = EventName.CREDENTIAL_READ
        self._trail.record_change(None, event_of(self._trail, read, record, self._who(caller)))
        info = info_of(record)
        known = {name: getattr(info, name) for name in CredentialInfo.__slots__}
        return Credential(**known, data=data)

    def list(
        self, type: str | None = None, *, caller: Caller = CURRENT
    ) -> Sequence[CredentialInfo]:
        """Return what is known of the caller's credentials without decrypting them.

        Args:
            type: only those of one type.
            caller: who asks.
        """
        return [info_of(one) for one in self._visible(caller, type, envelopes=False)]

    def info(self, credential_id: str, *, caller: Caller = CURRENT) -> CredentialInfo:
        """Return what is known of a credential without decrypting it.

        Raises:
            NotFound: there is none of that id for this caller.
            DatabaseUnavailable: it cannot be told.
        """
        return info_of(self._found(credential_id, caller))

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
            name: the new name; left out, as it is.
            data: all its fields from now on; left out, as they are.
            caller: who asks.

        Raises:
            NotFound: there is none of that id for this caller.
            ValueError: an argument is wrong.
            Conflict: it changed at the same moment; nothing was changed here.
            DecryptionFailed: its data was changed, or belongs elsewhere.
        """
        self._keys.check()
        who = self._asking_for(credential_id, caller)
        with self._store.write() as transaction:
            rows = transaction.rows
            old = existing_for(row_of(rows, credential_id), who)
            new = replace(old, updated_at=moment(self._clock()))
            if name is not None:
                new = replace(new, name=checked_name("a credential's name", name))
            if data is not None:
                self._opened(old)  # else whoever moved a row would have it sealed where it is now
                if old.type in self.types:  # an import may bring others
                    self.types.check(old.type, data)
                new = replace(new, envelope=self._sealed(new, data))
                self._keys.keep_canary(rows)
            if not rows.replace(old, new):
                raise Conflict("the credential changed at the same moment")
            self._changed(transaction, "changed", caller, new)
        return info_of(new)

    def delete(self, credential_id: str, *, caller: Caller = CURRENT) -> None:
        """Forget a credential.

        Raises:
            NotFound: there is none of that id for this caller.
        """
        who = self._asking_for(credential_id, caller)
        with self._store.write() as transaction:
            record = existing_for(row_of(transaction.rows, credential_id), who)
            transaction.rows.delete(record.id)
            self._changed(transaction, "deleted", caller, record)

    def test(self, credential_id: str, *, caller: Caller = CURRENT) -> Any:
        """Ask the app's checker for the credential's type, and return what it returns.

        Raises:
            NotFound: there is none of that id for this caller, or no checker for its type.
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
        """Seal every credential anew under today's key and cipher, while the app goes on.

        Args:
            progress: told how many are done, and of how many, after each batch.
            dry_run: read and decrypt, but change nothing.
            cipher: another one of the same keys, in place of the settings'.

        Raises:
            SettingsError: there is no encryption key, or one that records need is not there.
            DatabaseUnavailable: what was sealed anew stays so; call it again.
        """
        sealing, keys = cipher or self.cipher, self._keys
        rotation = Rotation(self._store, sealing, keys, self._trail, progress, dry_run=dry_run)
        return rotation.run()

    # Other programs' records

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
        """Take in what `n8n export:credentials` wrote, encrypted or with `--decrypted`.

        Values are taken literally, and types that the app does not know as they are. Ids are
        kept; a record whose id is there already is skipped.

        Args:
            records: records, or the path of a JSON file of them, of at most 32 MiB.
            key: the instance key, `N8N_ENCRYPTION_KEY`, where data is encrypted.
            deployment_keys: rows of n8n's table `deployment_key`, or the path of a JSON file of
                them, where its keys rotate.
            dry_run: read, decrypt and check, but change nothing.
            owner: whose they become; left out, as in `create`.
            caller: who asks: the app itself or an admin.

        Raises:
            UnreadableImport: there are no records to be read.
            ValueError: an argument is wrong.
            AccessDenied: the caller may not import.
            SettingsError: there is no encryption key, or one that records need is not there.
            DatabaseUnavailable: what was kept stays; import again, and the rest follows.
        """
        self._check_may_import(caller)
        return self._import(records, opener(key, deployment_keys), dry_run, owner, caller)

    def import_m9m(
        self,
        records: Source,
        dry_run: bool = False,
        owner: str | None = None,
        *,
        caller: Caller = CURRENT,
    ) -> Imported:
        """Take in what m9m exports as JSON, not encrypted; arguments and errors as in `import_n8n`.

        `--decrypted` exports of n8n are of this form.
        """
        self._check_may_import(caller)
        return self._import(records, open_plain, dry_run, owner, caller)

    def export_n8n(self, key: str, *, caller: Caller = CURRENT) -> Sequence[dict[str, Any]]:
        """Return the caller's credentials as `n8n import:credentials` takes them.

        They are encrypted in n8n's old form, which every version reads; `${NAME}` stays as it is.

        Args:
            key: the instance key of the n8n that is to read them.
            caller: who asks.

        Raises:
            ValueError: the instance key is empty or no text.
            DecryptionFailed: the data of one was changed, or belongs elsewhere; a note names it.
            SettingsError: there is no encryption key, or one that records need is not there.
        """
        self._keys.check()
        write, found = writer(key), self._visible(caller)
        made = [write(one, self._opened(one)) for one in found]
        read, who = EventName.CREDENTIAL_READ, self._who(caller)
        events = [event_of(self._trail, read, one, who, exported=True) for one in found]
        self._trail.record_change(None, *events)
        return made

    def _import(
        self, records: Source, open_data: Open, dry_run: bool, owner: str | None, caller: Caller
    ) -> Imported:
        owner, now = self._owner_for(caller, owner), moment(self._clock())

        def kept(transaction: StoreTransaction, made: Sequence[SealedCredential]) -> None:
            self._changed(transaction, "imported", caller, *made)

        work = Import(
            self._store, self.cipher, self._keys, self.types, owner, now, kept, dry_run=dry_run
        )
        return work.run(records_of(records), open_data)

    # Who may

    def _who(self, caller: Caller) -> Caller:
        return as_known(self._who_calls() if caller is CURRENT else caller)

    def _owner_for(self, caller: Caller, owner: str | None) -> str:
        """Return the owner of what a caller makes."""
        who = self._who(caller)
        if owner is not None:
            owner = checked_name("an owner", owner)
        if who is SYSTEM:
            return owner or ""
        if not isinstance(who, Identity):
            raise AccessDenied
        if owner is not None and owner != who.subject and not is_admin(who):
            raise AccessDenied
        return owner or who.subject

    def _check_may_import(self, caller: Caller) -> None:
        """Refuse those from whom records are hidden: a skipped one would tell that it is there."""
        if not sees_all(self._who(caller)):
            raise AccessDenied

    def _visible(
        self, caller: Caller, type: str | None = None, *, envelopes: bool = True
    ) -> Sequence[SealedCredential]:
        who = self._who(caller)
        if who is None:
            return []
        owner = None if sees_all(who) else who.subject  # type: ignore[union-attr]
        return self._store.read(lambda rows: rows.all(owner, type, envelopes=envelopes))

    def _found(self, credential_id: str, caller: Caller) -> SealedCredential:
        """Return a record that exists for a caller; who asks for another's is written down.

        Who that is, is asked here: the query may run in a thread of its own, outside the request.
        """
        record, who = self._store.read(lambda rows: row_of(rows, credential_id)), self._who(caller)
        try:
            return existing_for(record, who)
        except NotFound as error:
            if record is not None:
                event = event_of(self._trail, EventName.ACCESS_DENIED, record, who)
                self._trail.record_event(event._replace(outcome=error.error_code))
            raise

    def _asking_for(self, credential_id: str, caller: Caller) -> Caller:
        """Return who asks for a record, before a transaction in which nobody could be told."""
        self._found(credential_id, caller)
        return self._who(caller)

    # The audit trail

    def _changed(
        self, transaction: StoreTransaction, change: str, caller: Caller, *records: SealedCredential
    ) -> None:
        changed = EventName.CREDENTIAL_CHANGED
        who, trail = self._who(caller), self._trail
        events = [event_of(trail, changed, one, who, change=change) for one in records]
        trail.record_change(transaction.database, *events, committed=transaction.committed)

    # What is in it

    def _sealed(self, record: SealedCredential, data: Mapping[str, Any]) -> str:
        return self.cipher.encrypt_record(serialized(data), bound_to(record))

    def _opened(self, record: SealedCredential) -> Mapping[str, Any]:
        try:
            return deserialized(self.cipher.decrypt_record(record.envelope, bound_to(record)))
        except DecryptionFailed as error:
            error.add_note(f"credential {record.id}")
            raise
        except (ValueError, AttributeError):  # the row is none of ours: no type, or no text
            raise DecryptionFailed from None
