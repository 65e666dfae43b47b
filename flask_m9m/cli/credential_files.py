"""`flask m9m credential import` and `export`."""

from __future__ import annotations

import json
import os

import click

from ..credentials import Imported
from ..credentials.imports import listed
from ..credentials.n8n import is_encrypted
from ..state import AppState
from .credential_input import credentials_of, key_file_option, read_instance_key, read_json
from .output import fail, output_option, print_rows, refusals, with_app


@click.command("import")
@click.argument("path", metavar="FILE")
@click.option("--from", "source", type=click.Choice(["n8n", "m9m"]), required=True)
@key_file_option
@click.option(
    "--deployment-keys",
    metavar="FILE",
    help="The rows of n8n's table deployment_key as JSON, where its keys rotate.",
)
@click.option("--owner", help="The subject whose they become; left out, the app's own.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, but change nothing.")
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
    """Take in credentials of n8n or m9m, and say of each what came of it.

    FILE, - for standard input, is what n8n export:credentials --all wrote, with --decrypted or
    without, or m9m's JSON. Ids are kept; those that are there already are skipped. Where some are
    unreadable the others are taken in, and the exit code is 1.
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
    """Print what came of each record, and the sums; exit 1 if some are unreadable."""
    outcomes = {
        "to be imported" if dry_run else "imported": result.imported,
        "skipped": result.skipped,
        "unreadable": result.unreadable,
    }
    rows = [
        {"result": outcome, "id": one.id, "name": one.name, "type": one.type, "reason": one.reason}
        for outcome, records in outcomes.items()
        for one in records
    ]
    print_rows(rows, output)
    sums = ", ".join(f"{outcome}: {len(records)}" for outcome, records in outcomes.items())
    click.echo(sums, err=True)
    if result.unreadable:
        click.get_current_context().exit(1)


@click.command("export")
@click.option("--to", "target", type=click.Choice(["n8n"]), required=True)
@key_file_option
@click.option(
    "--output",
    metavar="FILE",
    help="A new file, which only you can read; left out, standard output.",
)
@with_app
@refusals
def export_credentials(
    state: AppState, target: str, key_file: str | None, output: str | None
) -> None:
    """Write all credentials as JSON that n8n import:credentials reads, encrypted for that n8n."""
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
    """Write a file that was not there, through no link, and which only its owner can read."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except (OSError, ValueError) as error:
        raise fail(f"{path!a}: {getattr(error, 'strerror', None) or 'this is no path'}") from None
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
    except OSError as error:
        os.unlink(path)
        raise fail(f"{path!a}: {error.strerror}") from None
