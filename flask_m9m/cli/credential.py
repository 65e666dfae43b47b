"""`flask m9m credential …`."""

from __future__ import annotations

from typing import Any

import click

from ..credentials import CredentialInfo, Credentials
from ..credentials.rotation import Rotated
from ..crypto.cipher import Cipher
from ..errors import DecryptionFailed
from ..state import AppState
from ..text import printable
from .audit import audit_of_credential
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
    """Make, show, change, rotate, import, export and audit stored credentials.

    Values come from a file, standard input or by a prompt; never as an argument, which others
    could read.
    """


credential.add_command(import_credentials)
credential.add_command(export_credentials)
credential.add_command(audit_of_credential)


@credential.command()
@click.argument("name")
@click.option("--type", "type", required=True, help="Its credential type (apiKey, basicAuth).")
@click.option("--owner", help="The subject whose it is; left out, the app's own.")
@click.option("--resolve", is_flag=True, help="Let ${NAME} in values stand for the environment's.")
@data_option
@with_app
@refusals
def create(
    state: AppState, name: str, type: str, owner: str | None, resolve: bool, data: str | None
) -> None:
    """Keep a credential."""
    credentials = credentials_of(state)
    if type not in credentials.types:
        credentials.types.check(type, {})  # says which there are
    fields = read_fields(data, type, credentials.types.required(type))
    click.echo(f"created {credentials.create(name, type, fields, owner, resolve).id}")


@credential.command("list")
@click.option("--type", "type", help="Only those of one type.")
@output_option
@with_app
@refusals
def list_credentials(state: AppState, type: str | None, output: str) -> None:
    """List credentials without their data, the oldest first."""
    print_rows([_row(one) for one in credentials_of(state).list(type)], output)


@credential.command()
@click.argument("credential_id", metavar="ID")
@click.option("--show", is_flag=True, help="Print its data too, secrets in plain text.")
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), default="yaml")
@with_app
@refusals
def get(state: AppState, credential_id: str, show: bool, output: str) -> None:
    """Show a credential, its data only with --show."""
    credentials = credentials_of(state)
    document = _row(_known(credentials, credential_id))
    if show:
        document["data"] = credentials.get(credential_id).data
    print_document(document, output)


@credential.command()
@click.argument("credential_id", metavar="ID")
@click.option("--name", help="Its new name; alone, the data stays as it is.")
@data_option
@with_app
@refusals
def update(state: AppState, credential_id: str, name: str | None, data: str | None) -> None:
    """Change a credential's name, or all its fields."""
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
    """Forget a credential."""
    credentials = credentials_of(state)
    _known(credentials, credential_id)
    credentials.delete(credential_id)
    click.echo(f"deleted {credential_id}")


@credential.command()
@click.option("--dry-run", is_flag=True, help="Read and decrypt all, but change nothing.")
@click.option(
    "--cipher",
    type=click.Choice(["aes-256-gcm", "fernet"]),
    help="What to seal with; left out, credentials.cipher.",
)
@with_app
@refusals
def rotate(state: AppState, dry_run: bool, cipher: str | None) -> None:
    """Seal every credential anew under today's key, while the app goes on.

    It can be stopped at any moment, and run again. At the end it says which keys are needed.
    """
    credentials, settings = credentials_of(state), state.loaded.settings.credentials
    other = None
    if cipher not in (None, settings.cipher):
        other = Cipher(settings.model_copy(update={"cipher": cipher}))
    with progress_bar("sealing anew") as progress:
        result = credentials.rotate(progress, dry_run=dry_run, cipher=other)
    _print_rotated(result, state.cipher, dry_run=dry_run)
    if other is not None:
        click.echo(
            f"credentials.cipher is {settings.cipher}, with which new ones are sealed: set it to "
            f"{cipher}",
            err=True,
        )
    if result.unreadable:
        raise fail(f"{len(result.unreadable)} do not open, and stay as they are")


def _print_rotated(result: Rotated, cipher: Cipher, *, dry_run: bool) -> None:
    """Say what was done, and which keys the settings need from now on."""
    click.echo(f"{'to be sealed' if dry_run else 'sealed'} anew: {result.resealed}")
    primary, *previous = cipher.keys.ids
    for key_id, count in result.keys_in_use.items():
        place = "encryption_key" if key_id == primary else "previous_keys"
        click.echo(f"the key {key_id} (credentials.{place}) is needed: {count}")
    for key_id in previous:
        if key_id not in result.keys_in_use:
            click.echo(
                f"the key {key_id} (credentials.previous_keys) is not needed: drop it, once what "
                "m9m.cipher encrypted under it is encrypted anew, which is the app's to do"
            )
    for credential_id in result.unreadable:
        shown = printable(credential_id)
        click.echo(f"credential {shown} does not open: {DecryptionFailed.hint}", err=True)


def _known(credentials: Credentials, credential_id: str) -> CredentialInfo:
    for one in credentials.list():
        if one.id == credential_id:
            return one
    raise fail("no credential of that id is there")


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
