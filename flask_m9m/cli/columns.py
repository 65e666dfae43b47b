"""`flask m9m columns`: the encrypted columns of an app's own models, and their keys."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ..errors import SettingsError
from ..extension.app_state import AppState
from ..extension.model_columns import (
    NAME_DATABASE,
    ModelColumn,
    ModelColumns,
    RotatedColumn,
    find_columns,
    missing_keys,
)
from .output import fail, output_option, print_rows, progress_bar, refusals, with_app


@click.group()
def columns() -> None:
    """List the encrypted columns of the app's models, and encrypt plain text in them."""


@columns.command("list")
@output_option
@with_app
@refusals
def list_columns(state: AppState, output: str) -> None:
    """List the encrypted columns, with the keys that their values need."""
    model_columns = find_columns(state)
    print_rows(
        [
            {"column": column.name, "key": key_id, "listed": listed, "values": count}
            for column in model_columns.found
            for key_id, listed, count in _keys_of(column)
        ],
        output,
    )
    name_unseen(model_columns)


@columns.command()
@click.argument("names", metavar="[TABLE.COLUMN]...", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Count the values, but change nothing.")
@with_app
@refusals
def encrypt(state: AppState, names: Sequence[str], dry_run: bool) -> None:
    """Encrypt the values of encrypted columns that are still plain text.

    Run it once after a column of text became an encrypted one, while the app runs or not. You can
    stop it at any moment and run it again. Without names it looks at every encrypted column.
    """
    model_columns = find_columns(state)
    for name in names:
        if name not in {column.name for column in model_columns.found}:
            raise fail(f"no encrypted column is named {name!a}: see flask m9m columns list")
    name_unseen(model_columns)
    for column in model_columns.found:
        if not names or column.name in names:
            with progress_bar(f"encrypting {column.name}") as progress:
                count = column.encrypt_plain_text(progress, dry_run=dry_run)
            click.echo(f"{column.name}: {'to be encrypted' if dry_run else 'encrypted'}: {count}")


def columns_to_rotate(state: AppState) -> ModelColumns:
    """Find the encrypted columns, and name what cannot be looked at.

    Raises:
        SettingsError: values need a key that is not listed.
    """
    model_columns = find_columns(state)
    name_unseen(model_columns)
    if problems := missing_keys(model_columns.found):
        raise SettingsError(problems)
    return model_columns


def rotate_columns(columns: Sequence[ModelColumn], *, dry_run: bool) -> list[RotatedColumn]:
    """Re-encrypt every value under the current key, and print a line for each column."""
    rotated = []
    for column in columns:
        with progress_bar(f"re-encrypting {column.name}") as progress:
            result = column.rotate(progress, dry_run=dry_run)
        done = "to be re-encrypted" if dry_run else "re-encrypted"
        click.echo(f"{result.column}: {done}: {result.resealed}")
        if plain := result.keys_in_use.get(""):
            click.echo(
                f"{result.column}: {plain} values are plain text: run flask m9m columns encrypt",
                err=True,
            )
        rotated.append(result)
    return rotated


def name_unseen(model_columns: ModelColumns) -> None:
    """Print the columns whose values were not looked at."""
    for name in model_columns.not_seen:
        click.echo(f"the column {name} is not looked at: {NAME_DATABASE}", err=True)


def _keys_of(column: ModelColumn) -> list[tuple[str, str, int]]:
    """List the keys that a column's values need: id, where it is listed, number of values."""
    current, *previous = column.listed_keys
    places = {current: "current", **dict.fromkeys(previous, "previous"), "": "plain text"}
    return [
        (key_id, places.get(key_id, "missing"), count)
        for key_id, count in sorted(column.keys_in_use().items())
    ]
