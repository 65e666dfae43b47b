"""`flask m9m user`: create, list, enable and disable users, and change passwords."""

from __future__ import annotations

import sys

import click

from ..auth.passwords import LONGEST
from ..extension.app_state import AppState
from .output import fail, output_option, print_rows, refusals, with_app


@click.group()
def user() -> None:
    """Manage users and their passwords.

    A password is read by a prompt, or from the first line of standard input. It is never an
    argument, which other users of the machine could read.
    """


@user.command()
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, help="Scope of the user; may be repeated.")
@click.option("--role", "roles", multiple=True, help="Role of the user; may be repeated.")
@with_app
@refusals
def create(state: AppState, name: str, scopes: tuple[str, ...], roles: tuple[str, ...]) -> None:
    """Create a user; the password is read by a prompt or from standard input."""
    created = state.identities.users.create(name, _read_password(), roles, " ".join(scopes))
    click.echo(f"created {created.username}")


@user.command("list")
@output_option
@with_app
@refusals
def list_users(state: AppState, output: str) -> None:
    """List all users by name, also disabled ones."""
    rows = [
        {
            "username": account.username,
            "scopes": sorted(account.scopes),
            "roles": sorted(account.roles),
            "disabled": account.disabled,
            "created_at": account.created_at.isoformat(timespec="seconds"),
        }
        for account in state.identities.users.list()
    ]
    print_rows(rows, output)


@user.command()
@click.argument("name")
@with_app
@refusals
def passwd(state: AppState, name: str) -> None:
    """Change a user's password, and revoke all the user's tokens and sessions.

    The new password is read by a prompt or from the first line of standard input.
    """
    state.identities.users.set_password(name, _read_password())
    click.echo(f"changed the password of {name}; all earlier tokens and sessions are revoked")


@user.command()
@click.argument("name")
@with_app
@refusals
def disable(state: AppState, name: str) -> None:
    """Disable a user: the password, all tokens and sessions, and the API keys."""
    state.identities.users.disable(name)
    click.echo(f"disabled {name}; all earlier tokens and sessions are revoked")


@user.command()
@click.argument("name")
@with_app
@refusals
def enable(state: AppState, name: str) -> None:
    """Enable a disabled user; earlier tokens stay revoked."""
    state.identities.users.enable(name)
    click.echo(f"enabled {name}")


def _read_password() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    try:
        line = sys.stdin.readline(LONGEST + 2)  # enough to find out that it is too long
    except UnicodeDecodeError:  # its message would quote part of the password
        raise fail("the password on standard input is not valid UTF-8") from None
    return line.removesuffix("\n").removesuffix("\r")
