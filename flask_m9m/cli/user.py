"""`flask m9m user …`."""

from __future__ import annotations

import sys

import click

from ..crypto import LONGEST
from ..state import AppState
from .output import fail, output_option, print_rows, refusals, with_app


@click.group()
def user() -> None:
    """Make, list and disable users, and change their passwords.

    A password comes by a prompt, or as one line of standard input; never as an argument, which
    others could read.
    """


@user.command()
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, help="What the user may do; may be repeated.")
@click.option("--role", "roles", multiple=True, help="What the user is; may be repeated.")
@with_app
@refusals
def create(state: AppState, name: str, scopes: tuple[str, ...], roles: tuple[str, ...]) -> None:
    """Make a user; the password comes by a prompt or as one line of standard input."""
    made = state.identities.users.create(name, _read_password(), roles, " ".join(scopes))
    click.echo(f"created {made.username}")


@user.command("list")
@output_option
@with_app
@refusals
def list_users(state: AppState, output: str) -> None:
    """List all users by name, disabled ones too."""
    rows = [
        {
            "username": one.username,
            "scopes": sorted(one.scopes),
            "roles": sorted(one.roles),
            "disabled": one.disabled,
            "created_at": one.created_at.isoformat(timespec="seconds"),
        }
        for one in state.identities.users.list()
    ]
    print_rows(rows, output)


@user.command()
@click.argument("name")
@with_app
@refusals
def passwd(state: AppState, name: str) -> None:
    """Change a password, which revokes all the user's tokens and sessions.

    The new one comes by a prompt or as one line of standard input.
    """
    state.identities.users.set_password(name, _read_password())
    click.echo(f"changed the password of {name}; tokens and sessions of before are revoked")


@user.command()
@click.argument("name")
@with_app
@refusals
def disable(state: AppState, name: str) -> None:
    """Keep a user out: the password, all tokens and sessions, and the user's API keys."""
    state.identities.users.disable(name)
    click.echo(f"disabled {name}; tokens and sessions of before are revoked")


@user.command()
@click.argument("name")
@with_app
@refusals
def enable(state: AppState, name: str) -> None:
    """Let a disabled user in again; tokens of before stay revoked."""
    state.identities.users.enable(name)
    click.echo(f"enabled {name}")


def _read_password() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    try:
        line = sys.stdin.readline(LONGEST + 2)  # enough to tell that it is too long
    except UnicodeDecodeError:  # whose message would tell a part of it
        raise fail("the password on standard input is not text") from None
    return line.removesuffix("\n").removesuffix("\r")
