"""`flask m9m token …`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import click

from ..errors import InvalidToken
from ..state import AppState
from ..tokens import inspect as inspect_token
from .output import fail, print_document, refusals, with_app

_DATES = ("iat", "nbf", "exp")


@click.group()
def token() -> None:
    """Issue and inspect access tokens."""


@token.command()
@click.argument("subject")
@click.option("--scope", "scopes", multiple=True, help="What it may do; may be repeated.")
@click.option("--role", "roles", multiple=True, help="What the subject is; may be repeated.")
@click.option("--expires", help="Its life (15m, 1h); left out, security.jwt.expiration.")
@with_app
@refusals
def issue(
    state: AppState, subject: str, scopes: tuple[str, ...], roles: tuple[str, ...], expires: str
) -> None:
    """Print an access token for SUBJECT."""
    tokens = state.identities.tokens
    click.echo(tokens.issue(subject, " ".join(scopes), roles, expires_in=expires))


@token.command()
@click.argument("source", required=False)
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), default="yaml")
@with_app
@refusals
def inspect(state: AppState, source: str | None, output: str) -> None:
    """Show what a token says and whether it holds; exit 1 if it does not.

    The token comes from a file SOURCE (- for standard input), from standard input, or by a
    prompt; never as an argument, which others could read.
    """
    text = _read_token(source).strip()
    try:
        header, claims = inspect_token(text)
    except InvalidToken:
        raise fail("this is no JWT") from None
    holds, reason = True, None
    try:
        state.identities.tokens.verify(text)
    except InvalidToken as error:
        holds, reason = False, error.reason
    dates = {
        name: datetime.fromtimestamp(claims[name], UTC).isoformat()
        for name in _DATES
        if isinstance(claims.get(name), int) and 0 <= claims[name] < 2**37
    }
    document = {"header": header, "claims": claims, "dates": dates, "valid": holds}
    print_document(document if holds else {**document, "reason": reason}, output)
    if not holds:
        click.get_current_context().exit(1)


def _read_token(source: str | None) -> str:
    if source is None and sys.stdin.isatty():
        return str(click.prompt("Token", hide_input=True))
    if source is not None and (source.startswith("eyJ") or source.count(".") == 2):
        raise click.UsageError("a token is no argument: pipe it to flask m9m token inspect -")
    try:
        with click.open_file(source or "-", errors="replace") as file:
            return str(file.read(16_384))
    except OSError as error:
        raise fail(f"{source!a}: {error.strerror}") from None
