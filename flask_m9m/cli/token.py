"""`flask m9m token`: issue, inspect and revoke access tokens."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import click

from ..auth.jwt.jws import inspect as inspect_token
from ..errors import InvalidToken
from ..extension.app_state import AppState
from ..settings.wording import printable
from .output import fail, print_document, refusals, with_app
from .parameters import Duration

_DATES = ("iat", "nbf", "exp")


@click.group()
def token() -> None:
    """Issue, inspect and revoke access tokens."""


@token.command()
@click.argument("subject")
@click.option("--scope", "scopes", multiple=True, help="Scope of the token; may be repeated.")
@click.option("--role", "roles", multiple=True, help="Role of the subject; may be repeated.")
@click.option(
    "--expires", type=Duration(), help="Lifetime (15m, 1h); by default security.jwt.expiration."
)
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
@click.option(
    "-o", "--output", type=click.Choice(["json", "yaml"]), default="yaml", help="Output format."
)
@with_app
@refusals
def inspect(state: AppState, source: str | None, output: str) -> None:
    """Show a token's header and claims, and verify it; exit 1 if it is not valid.

    The token is read from the file SOURCE (- for standard input), from standard input, or by a
    prompt. It is never an argument, which other users of the machine could read.
    """
    text = _read_token(source).strip()
    try:
        header, claims = inspect_token(text)
    except InvalidToken:
        raise fail("the text is not a JWT") from None
    valid, reason = True, None
    try:
        state.identities.tokens.verify(text)
    except InvalidToken as error:
        valid, reason = False, error.reason
    dates = {
        name: datetime.fromtimestamp(claims[name], UTC).isoformat()
        for name in _DATES
        if isinstance(claims.get(name), int) and 0 <= claims[name] < 2**37
    }
    document = {"header": header, "claims": claims, "dates": dates, "valid": valid}
    print_document(document if valid else {**document, "reason": reason}, output)
    if not valid:
        click.get_current_context().exit(1)


@token.command()
@click.argument("source", required=False)
@click.option(
    "--jti", metavar="ID", help="Revoke the token with this jti, instead of reading a token."
)
@click.option(
    "--session", metavar="SID", help="Revoke a session, with its refresh and access tokens."
)
@click.option("--subject", metavar="NAME", help="Revoke every token and session of a subject.")
@click.option("--keys", is_flag=True, help="With --subject: revoke the subject's API keys too.")
@with_app
@refusals
def revoke(
    state: AppState,
    source: str | None,
    jti: str | None,
    session: str | None,
    subject: str | None,
    keys: bool,
) -> None:
    """Revoke a token, a session, or every token and session of a subject.

    The token is read from the file SOURCE (- for standard input), from standard input, or by a
    prompt. It is never an argument, which other users of the machine could read.
    """
    ways = [way for way in (source, jti, session, subject) if way is not None]
    if len(ways) > 1:
        raise click.UsageError("give only one of SOURCE, --jti, --session and --subject")
    if "" in ways:
        raise click.UsageError("SOURCE, --jti, --session and --subject must not be empty")
    if keys and subject is None:
        raise click.UsageError("--keys needs --subject")
    tokens = state.identities.tokens
    if session is not None:
        if not tokens.revoke_session(session):
            raise fail(f"no session has the id {session[:64]!a}, or it has ended already")
        click.echo(f"revoked the session {printable(session)}")
    elif subject is not None:
        tokens.revoke_subject(subject, keys=keys)
        what = "every token, session and API key" if keys else "every token and session"
        click.echo(f"revoked {what} of {printable(subject)}")
    elif jti is not None:
        _refuse_token(jti)
        tokens.revoke(jti)
        click.echo(f"revoked the token {printable(jti)}")
    else:
        _revoke_token(state, _read_token(source).strip())


def _revoke_token(state: AppState, text: str) -> None:
    tokens = state.identities.tokens
    try:
        identity = tokens.verify(text)
        if not identity.credential_id:
            raise fail("the token has no jti: revoke every token of its subject with --subject")
        tokens.revoke(text)
    except InvalidToken as error:
        raise fail(f"the text is not a valid access token: {error.reason}") from None
    click.echo(printable(f"revoked the token {identity.credential_id} of {identity.subject}"))


def _read_token(source: str | None) -> str:
    if source is None and sys.stdin.isatty():
        return str(click.prompt("Token", hide_input=True))
    _refuse_token(source or "")
    try:
        with click.open_file(source or "-", errors="replace") as file:
            return str(file.read(16_384))
    except OSError as error:
        raise fail(f"{source!a}: {error.strerror}") from None


def _refuse_token(argument: str) -> None:
    if argument.startswith("eyJ") or argument.count(".") == 2:
        command = click.get_current_context().info_name
        raise click.UsageError(
            f"a token as an argument could be read by others: pipe it to flask m9m token "
            f"{command} -"
        )
