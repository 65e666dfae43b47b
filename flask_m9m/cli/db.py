"""`flask m9m db`: upgrade and inspect the schema of the database tables."""

from __future__ import annotations

import click

from ..extension.app_state import AppState
from .output import output_option, print_rows, refusals, with_app


@click.group()
def db() -> None:
    """Upgrade and inspect flask-m9m's database tables."""


@db.command()
@with_app
@refusals
def upgrade(state: AppState) -> None:
    """Upgrade the tables to this version's schema (SQLite upgrades automatically)."""
    before, after = state.database.upgrade()
    if before == after:
        click.echo(f"up to date: {after}")
    else:
        click.echo(f"upgraded from {before or 'nothing'} to {after}")


@db.command()
@output_option
@with_app
@refusals
def status(state: AppState, output: str) -> None:
    """Show the database and its schema version; exit 1 if it is not this version's."""
    where, found, newest = state.database.status()
    print_rows([{"database": where, "schema": found, "newest": newest}], output)
    if found not in (None, newest):
        click.get_current_context().exit(1)
