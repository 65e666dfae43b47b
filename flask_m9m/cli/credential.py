"""`flask m9m credential`: manage stored credentials and rotate their encryption keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from ..credentials.credentials import Credentials
from ..credentials.encryption.cipher import Cipher
from ..credentials.info import CredentialInfo
from ..credentials.rotation import Rotated
from ..errors import DecryptionFailed
from ..extension.app_state import AppState
from ..extension.model_columns import NAME_DATABASE, RotatedColumn
from ..settings.wording import printable
from .audit import audit_of_credential
from .columns import columns_to_rotate, rotate_columns
from .credential_files import export_credentials, import_credentials
from .credential_input import credentials_of, data_option, read_fields
from .output import (
    fail,
    output_option,
    print_document,
    print_rows,
    progress_bar,
    refusals,
    with_app,
)


@click.group()
def credential() -> None:
    """Manage stored credentials and re-encrypt them.

    Values are read from a file, from standard input or by a prompt. They are never an argument,
    which other users of the machine could read.
    """


credential.add_command(import_credentials)
credential.add_command(export_credentials)
credential.add_command(audit_of_credential)


@credential.command()
@click.argument("name")
@click.option("--type", "type", required=True, help="Credential type (apiKey, basicAuth).")
@click.option("--owner", help="Subject that owns it; by default the app.")
@click.option(
    "--resolve",
    is_flag=True,
    help="Replace ${NAME} in values by environment variables when the credential is read.",
)
@data_option
@with_app
@refusals
def create(
    state: AppState, name: str, type: str, owner: str | None, resolve: bool, data: str | None
) -> None:
    """Store a credential."""
    credentials = credentials_of(state)
    if type not in credentials.types:
        credentials.types.check(type, {})  # raises an error that lists the types
    fields = read_fields(data, type, credentials.types.required(type))
    click.echo(f"created {credentials.create(name, type, fields, owner, resolve).id}")


@credential.command("list")
@click.option("--type", "type", help="Only credentials of this type.")
@output_option
@with_app
@refusals
def list_credentials(state: AppState, type: str | None, output: str) -> None:
    """List credentials without their data, the oldest first."""
    print_rows([_row(info) for info in credentials_of(state).list(type)], output)


@credential.command()
@click.argument("credential_id", metavar="ID")
@click.option("--show", is_flag=True, help="Print the data too, with secrets in plain text.")
@click.option(
    "-o", "--output", type=click.Choice(["json", "yaml"]), default="yaml", help="Output format."
)
@with_app
@refusals
def get(state: AppState, credential_id: str, show: bool, output: str) -> None:
    """Show a credential; its data only with --show."""
    credentials = credentials_of(state)
    document = _row(_known(credentials, credential_id))
    if show:
        document["data"] = credentials.get(credential_id).data
    print_document(document, output)


@credential.command()
@click.argument("credential_id", metavar="ID")
@click.option("--name", help="New name; without --data the fields stay as they are.")
@data_option
@with_app
@refusals
def update(state: AppState, credential_id: str, name: str | None, data: str | None) -> None:
    """Change a credential's name, or replace all its fields."""
    credentials = credentials_of(state)
    type = _known(credentials, credential_id).type
    fields = None
    if data is not None or name is None:
        fields = read_fields(data, type, credentials.types.required(type))
    credentials.update(credential_id, name, fields)
    click.echo(f"changed {credential_id}")


@credential.command()
@click.argument("credential_id", metavar="ID")
@with_app
@refusals
def delete(state: AppState, credential_id: str) -> None:
    """Delete a credential."""
    credentials = credentials_of(state)
    _known(credentials, credential_id)
    credentials.delete(credential_id)
    click.echo(f"deleted {credential_id}")


@credential.command()
@click.option("--dry-run", is_flag=True, help="Read and decrypt everything, but change nothing.")
@click.option(
    "--cipher",
    type=click.Choice(["aes-256-gcm", "fernet"]),
    help="Cipher to encrypt credentials with; by default credentials.cipher.",
)
@with_app
@refusals
def rotate(state: AppState, dry_run: bool, cipher: str | None) -> None:
    """Re-encrypt every credential and encrypted column under the current key, while the app runs.

    You can stop the command at any moment and run it again. At the end it lists the keys that are
    still needed.
    """
    credentials, settings = credentials_of(state), state.loaded.settings.credentials
    other = None
    if cipher not in (None, settings.cipher):
        other = Cipher(settings.model_copy(update={"cipher": cipher}))
    click.echo(
        "what the app has encrypted by m9m.cipher is not looked at: it may need a previous key",
        err=True,
    )
    model_columns = columns_to_rotate(state)
    with progress_bar("re-encrypting") as progress:
        result = credentials.rotate(progress, dry_run=dry_run, cipher=other)
    click.echo(f"{'to be re-encrypted' if dry_run else 're-encrypted'}: {result.resealed}")
    columns = rotate_columns(model_columns.found, dry_run=dry_run)
    _print_needed(_needed(result, columns), state.cipher, model_columns.not_seen)
    if other is not None:
        click.echo(
            f"credentials.cipher is still {settings.cipher}, the cipher for new credentials and "
            f"for columns: set it to {cipher}",
            err=True,
        )
    _fail_if_unreadable(result, columns)


def _needed(result: Rotated, columns: Sequence[RotatedColumn]) -> dict[str, list[str]]:
    """List what needs each key: records, and values of columns."""
    needed = {key_id: [f"{count} records"] for key_id, count in result.keys_in_use.items()}
    for column in columns:
        for key_id, count in column.keys_in_use.items():
            if key_id:
                needed.setdefault(key_id, []).append(f"{count} values of {column.column}")
    return needed


def _print_needed(
    needed: Mapping[str, Sequence[str]], cipher: Cipher, not_seen: Sequence[str]
) -> None:
    """Print which keys the settings need from now on."""
    primary, *previous = cipher.keys.ids
    for key_id, users in needed.items():
        place = "encryption_key" if key_id == primary else "previous_keys"
        click.echo(f"the key {key_id} (credentials.{place}) is needed by {' and '.join(users)}")
    for key_id in previous:
        if key_id in needed:
            continue
        if not_seen:
            known = f"may be needed by {', '.join(not_seen)}: keep it; {NAME_DATABASE}"
        else:
            known = (
                "is not needed: remove it as soon as the app has re-encrypted what it encrypted by "
                "m9m.cipher"
            )
        click.echo(f"the key {key_id} (credentials.previous_keys) {known}")


def _fail_if_unreadable(result: Rotated, columns: Sequence[RotatedColumn]) -> None:
    for credential_id in result.unreadable:
        shown = printable(credential_id)
        click.echo(f"credential {shown} cannot be decrypted: {DecryptionFailed.hint}", err=True)
    counts = [f"{len(result.unreadable)} credentials"] if result.unreadable else []
    for column in columns:
        if column.unreadable:
            counts.append(f"{column.unreadable} values of {column.column}")
    if counts:
        raise fail(f"{' and '.join(counts)} cannot be decrypted and stay as they are")


def _known(credentials: Credentials, credential_id: str) -> CredentialInfo:
    for info in credentials.list():
        if info.id == credential_id:
            return info
    raise fail("no credential has that id: see flask m9m credential list")


def _row(info: CredentialInfo) -> dict[str, Any]:
    return {
        "id": info.id,
        "name": info.name,
        "type": info.type,
        "owner": info.owner,
        "resolve": info.resolve,
        "created_at": info.created_at.isoformat(timespec="seconds"),
        "updated_at": info.updated_at.isoformat(timespec="seconds"),
    }
