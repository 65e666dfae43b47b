"""`flask m9m user`: create, change and delete users; their passwords and sessions."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from ..auth.passwords import LONGEST
from ..auth.sessions import SessionInfo
from ..extension.app_state import AppState
from ..settings.wording import printable
from ..storage.records import User
from .output import fail, output_option, print_document, print_rows, refusals, with_app


@click.group()
def user() -> None:
    """Manage users, their passwords and their sessions.

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
    print_rows([_row(account) for account in state.identities.users.list()], output)


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


@user.command()
@click.argument("name")
@click.option(
    "-o", "--output", type=click.Choice(["json", "yaml"]), default="yaml", help="Output format."
)
@with_app
@refusals
def show(state: AppState, name: str, output: str) -> None:
    """Show a user, with the numbers of sessions and of API keys that are not revoked."""
    identities = state.identities
    account = identities.users.get(name)
    if account is None:
        raise fail(f"no user {printable(name[:64])} exists: see flask m9m user list")
    document = _row(account)
    document["sessions"] = len(_sessions_of(state, name))
    document["api_keys"] = identities.api_keys.page(name, 1)[1]
    print_document(document, output)


@user.command()
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, help="A scope; may be repeated.")
@click.option("--role", "roles", multiple=True, help="A role; may be repeated.")
@click.option("--no-scopes", is_flag=True, help="Take all scopes away.")
@click.option("--no-roles", is_flag=True, help="Take all roles away.")
@with_app
@refusals
def update(
    state: AppState,
    name: str,
    scopes: tuple[str, ...],
    roles: tuple[str, ...],
    no_scopes: bool,
    no_roles: bool,
) -> None:
    """Replace a user's scopes, roles, or both; what is not named stays.

    The new rights hold at once for API keys, and for tokens from the next refresh.
    """
    if (scopes and no_scopes) or (roles and no_roles):
        raise click.UsageError("--no-scopes excludes --scope, and --no-roles excludes --role")
    if not (scopes or roles or no_scopes or no_roles):
        raise click.UsageError("give --scope, --role, --no-scopes or --no-roles")
    new_scopes = " ".join(scopes) if scopes or no_scopes else None
    new_roles = roles if roles or no_roles else None
    state.identities.users.update(name, new_roles, new_scopes)
    click.echo(f"changed {name}")


@user.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_app
@refusals
def delete(state: AppState, name: str, yes: bool) -> None:
    """Delete a user, and revoke all tokens, sessions and API keys; the audit trail stays."""
    if not yes:
        click.confirm(f"Delete {name}?", abort=True, err=True)
    state.identities.users.delete(name)
    click.echo(f"deleted {name}; all tokens, sessions and API keys are revoked")


@user.command()
@click.argument("name")
@output_option
@with_app
@refusals
def sessions(state: AppState, name: str, output: str) -> None:
    """List a user's sessions that go on, the newest first."""
    rows = [
        {
            "session": session.sid,
            "created_at": session.created_at.isoformat(timespec="seconds"),
            "refreshed_at": session.refreshed_at.isoformat(timespec="seconds"),
            "ends_at": session.ends_at.isoformat(timespec="seconds"),
        }
        for session in _sessions_of(state, name)
    ]
    print_rows(rows, output)


@user.command("revoke-sessions")
@click.argument("name")
@click.option("--session", "sid", help="End this session alone.")
@with_app
@refusals
def revoke_sessions(state: AppState, name: str, sid: str | None) -> None:
    """End a user's sessions, and revoke all tokens; API keys stay."""
    tokens = state.identities.tokens
    if sid is None:
        tokens.revoke_subject(name)
        click.echo(f"ended all sessions of {name}; all earlier tokens are revoked")
    elif tokens.revoke_session(sid, name):
        click.echo(f"ended the session {printable(sid)}")
    else:
        raise fail(f"{name} has no such session: see flask m9m user sessions {name}")


def _sessions_of(state: AppState, name: str) -> Sequence[SessionInfo]:
    """List a user's sessions; without JWT there are none."""
    return state.identities.tokens.sessions(name) if state.identities.tokens.enabled else ()


def _row(account: User) -> dict[str, Any]:
    return {
        "username": account.username,
        "scopes": sorted(account.scopes),
        "roles": sorted(account.roles),
        "disabled": account.disabled,
        "created_at": account.created_at.isoformat(timespec="seconds"),
    }


def _read_password() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    try:
        line = sys.stdin.readline(LONGEST + 2)  # enough to find out that it is too long
    except UnicodeDecodeError:  # its message would quote part of the password
        raise fail("the password on standard input is not valid UTF-8") from None
    return line.removesuffix("\n").removesuffix("\r")
