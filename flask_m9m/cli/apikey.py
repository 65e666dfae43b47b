"""`flask m9m apikey`: create, list, rotate, revoke and prune API keys."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import click

from ..extension.app_state import AppState
from ..settings.durations import parse_duration
from ..storage.records import ApiKey
from .output import output_option, print_rows, refusals, with_app
from .parameters import Duration

_LEAST_WANTED = ("rate_limit", "roles", "created_at", "revoked_at", "last_used_at", "expires_at")


@click.group()
def apikey() -> None:
    """Create, list, rotate, revoke and prune API keys."""


@apikey.command()
@click.argument("name")
@click.option("--owner", required=True, help="The subject that the key authenticates.")
@click.option("--scope", "scopes", multiple=True, help="A scope of the key; may be repeated.")
@click.option("--role", "roles", multiple=True, help="A role of the key; may be repeated.")
@click.option(
    "--expires", type=Duration(), help="Lifetime (90d, 12h); by default the key does not expire."
)
@click.option("--rate-limit", help="Rate limit of the key (100/hour).")
@with_app
@refusals
def create(
    state: AppState,
    name: str,
    owner: str,
    scopes: tuple[str, ...],
    roles: tuple[str, ...],
    expires: str | None,
    rate_limit: str | None,
) -> None:
    """Create an API key and print it; it cannot be shown again."""
    expires_at = None
    if expires is not None:
        expires_at = datetime.now(UTC) + timedelta(seconds=parse_duration(expires))
    api_keys, joined = state.identities.api_keys, " ".join(scopes)
    _print_new(*api_keys.create(name, owner, joined, roles, expires_at, rate_limit))


@apikey.command("list")
@click.option("--owner", help="Only keys of this subject.")
@click.option(
    "--unused", type=Duration(), help="Only valid keys that were not used for this long (90d)."
)
@output_option
@with_app
@refusals
def list_keys(state: AppState, owner: str | None, unused: str | None, output: str) -> None:
    """List API keys, the oldest first."""
    _print_keys(state.identities.api_keys.list(owner, unused), output)


@apikey.command()
@click.argument("key_id", metavar="ID")
@with_app
@refusals
def revoke(state: AppState, key_id: str) -> None:
    """Revoke an API key."""
    state.identities.api_keys.revoke(key_id)
    click.echo(f"revoked {key_id}")


@apikey.command()
@click.argument("key_id", metavar="ID")
@click.option(
    "--grace",
    type=Duration(),
    default="24h",
    show_default=True,
    help="How long the old key stays valid.",
)
@with_app
@refusals
def rotate(state: AppState, key_id: str, grace: str) -> None:
    """Replace an API key with a new one, and print the new one."""
    _print_new(*state.identities.api_keys.rotate(key_id, grace))


@apikey.command()
@click.option(
    "--unused",
    type=Duration(),
    required=True,
    help="Delete keys that were not used for this long (90d).",
)
@output_option
@with_app
@refusals
def prune(state: AppState, unused: str, output: str) -> None:
    """Delete API keys that were not used for a long time, and list them."""
    _print_keys(state.identities.api_keys.prune(unused), output)


def _print_new(key: ApiKey, text: str) -> None:
    """Print the key alone on standard output, so that it can be piped, and the id on stderr."""
    click.echo(f"created the API key {key.id}; its text is shown only this once:", err=True)
    click.echo(text)


def _print_keys(keys: Sequence[ApiKey], output: str) -> None:
    rows = [
        {
            "id": key.id,
            "name": key.name,
            "owner": key.owner,
            "scopes": sorted(key.scopes),
            "roles": sorted(key.roles),
            "rate_limit": key.rate_limit,
            "created_at": _moment(key.created_at),
            "expires_at": _moment(key.expires_at),
            "revoked_at": _moment(key.revoked_at),
            "last_used_at": _moment(key.last_used_at),
        }
        for key in keys
    ]
    print_rows(rows, output, _LEAST_WANTED)


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds")
