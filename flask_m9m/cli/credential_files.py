"""`flask m9m credential import` and `export`: credentials in files of n8n and m9m."""

from __future__ import annotations

import json
import os

import click

from ..credentials.imports import Imported, listed
from ..credentials.n8n_records import is_encrypted
from ..extension.app_state import AppState
from .credential_input import credentials_of, key_file_option, read_instance_key, read_json
from .output import fail, output_option, print_rows, refusals, with_app


@click.command("import")
@click.argument("path", metavar="FILE")
@click.option(
    "--from",
    "source",
    type=click.Choice(["n8n", "m9m"]),
    required=True,
    help="Format of the file.",
)
@key_file_option
@click.option(
    "--deployment-keys",
    metavar="FILE",
    help="The rows of n8n's table deployment_key as JSON, if that n8n rotates its keys.",
)
@click.option("--owner", help="Subject that will own them; by default the app.")
@click.option("--dry-run", is_flag=True, help="Show what would be imported, but change nothing.")
@output_option
@with_app
@refusals
def import_credentials(
    state: AppState,
    path: str,
    source: str,
    key_file: str | None,
    deployment_keys: str | None,
    owner: str | None,
    dry_run: bool,
    output: str,
) -> None:
    """Import credentials of n8n or m9m, and list the result of each.

    FILE is the output of n8n export:credentials --all, with or without --decrypted, or m9m's JSON;
    use - for standard input. Ids stay the same; credentials with a known id are skipped. If some
    are unreadable, the others are imported and the exit code is 1.
    """
    if source == "m9m" and (key_file or deployment_keys):
        raise click.UsageError("--key-file and --deployment-keys are for --from n8n")
    credentials = credentials_of(state)
    records = listed(read_json(path))
    if source == "m9m":
        result = credentials.import_m9m(records, dry_run, owner)
    else:
        key = None
        if key_file is not None or is_encrypted(records):
            key = read_instance_key(key_file, confirm=False)
        rows = () if deployment_keys is None else deployment_keys
        result = credentials.import_n8n(records, key, rows, dry_run, owner)
    _print_imported(result, output, dry_run=dry_run)


def _print_imported(result: Imported, output: str, *, dry_run: bool) -> None:
    """Print the result of each record and the totals; exit 1 if some are unreadable."""
    outcomes = {
        "to be imported" if dry_run else "imported": result.imported,
        "skipped": result.skipped,
        "unreadable": result.unreadable,
    }
    rows = [
        {
            "result": outcome,
            "id": record.id,
            "name": record.name,
            "type": record.type,
            "reason": record.reason,
        }
        for outcome, records in outcomes.items()
        for record in records
    ]
    print_rows(rows, output)
    totals = ", ".join(f"{outcome}: {len(records)}" for outcome, records in outcomes.items())
    click.echo(totals, err=True)
    if result.unreadable:
        click.get_current_context().exit(1)


@click.command("export")
@click.option(
    "--to", "target", type=click.Choice(["n8n"]), required=True, help="Format of the output."
)
@key_file_option
@click.option(
    "--output",
    metavar="FILE",
    help="New file, readable by you alone; by default standard output.",
)
@with_app
@refusals
def export_credentials(
    state: AppState, target: str, key_file: str | None, output: str | None
) -> None:
    """Export all credentials as JSON for n8n import:credentials, encrypted with n8n's key."""
    credentials = credentials_of(state)
    key = read_instance_key(key_file, confirm=True)
    records = credentials.export_n8n(key)
    text = json.dumps(records, indent=2) + "\n"
    if output is None:
        click.echo(text, nl=False)
    else:
        _write_new(output, text)
        click.echo(f"wrote {len(records)} credentials to {output!a}", err=True)


def _write_new(path: str, text: str) -> None:
    """Create a file that only its owner can read; refuse an existing file or link."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except (OSError, ValueError) as error:
        raise fail(
            f"{path!a}: {getattr(error, 'strerror', None) or 'this is not a path'}"
        ) from None
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
    except OSError as error:
        os.unlink(path)
        raise fail(f"{path!a}: {error.strerror}") from None
