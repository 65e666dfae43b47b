"""`flask m9m cors`: check which cross-origin requests browsers may send."""

from __future__ import annotations

import click
from flask import Flask, Request

from ..errors import CORSRefused
from ..extension.app_state import AppState
from ..settings.origins import parse_origin_rule
from .output import fail, with_app


@click.group()
def cors() -> None:
    """Check cross-origin requests against the CORS policies."""


@cors.command()
@click.argument("origin")
@click.argument("method")
@click.argument("path")
@click.option(
    "--header", "headers", multiple=True, help="A request header of the page; may be repeated."
)
@with_app
def check(state: AppState, origin: str, method: str, path: str, headers: tuple[str, ...]) -> None:
    """Tell whether a page of ORIGIN may send METHOD to PATH, and which rule decides it.

    Exit 1 if it may not.
    """
    method = method.upper()
    policy, methods = state.routes.find(_request(state.app, path), method)
    if policy.cors is None:
        click.echo("refused: CORS is switched off (security.cors.enabled)")
        click.get_current_context().exit(1)
    try:
        fields = policy.cors.preflight(origin, method, ",".join(headers) or None, methods)
    except CORSRefused as refusal:
        click.echo(f"refused: {refusal.description}{_right_form(origin)}")
        click.get_current_context().exit(1)
    click.echo(f"allowed: {policy.cors.explain(origin)}")
    if methods is None:
        click.echo("no route matches PATH: the browser will get the app's 404")
    for name, value in fields:
        click.echo(f"  {name}: {value}")


def _right_form(origin: str) -> str:
    try:
        parse_origin_rule(origin)
    except ValueError as error:
        return f" (browsers do not send an origin in this form: {error})"
    return ""


def _request(app: Flask, path: str) -> Request:
    try:
        with app.test_request_context(path, method="OPTIONS") as context:
            return context.request
    except ValueError:
        raise fail(f"{path!a} is not a path: write it like /workflows/1") from None
