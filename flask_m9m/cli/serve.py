"""`flask m9m serve`."""

from __future__ import annotations

import ipaddress

import click
from flask.cli import ScriptInfo
from werkzeug.serving import run_simple

from ..extension import command_line
from ..state import AppState
from .output import fail, settings_errors, state_of


@click.command()
@click.option("--dev", is_flag=True, help="Flask's development server, on loopback.")
@click.option("--host", help="Left out, server.host.")
@click.option("--port", type=click.IntRange(1, 65535), help="Left out, server.port.")
@click.option("--reload/--no-reload", default=True, help="Restart when the code changes.")
@click.pass_context
@settings_errors
def serve(
    context: click.Context, dev: bool, host: str | None, port: int | None, reload: bool
) -> None:
    """Serve the app under its settings."""
    if not dev:
        raise click.UsageError("only --dev can be served so far; in production use a WSGI server")
    # The process that reloads runs this command again.
    command_line.set({"development.enabled": True, "server.host": host, "server.port": port})
    app = context.ensure_object(ScriptInfo).load_app()
    state = state_of(app)
    server = state.loaded.settings.server
    host = host or server.host
    if not _is_loopback(host):
        raise fail(
            f"server.host: {host!a} is not loopback, and development mode answers any origin; "
            "use 127.0.0.1, ::1 or localhost"
        )
    _name_undecided(state)
    app.debug = True
    run_simple(host, port or server.port, app, use_reloader=reload, threaded=True)


def _name_undecided(state: AppState) -> None:
    """Compile every policy, so that contradictions stop the start, and name undecided routes."""
    routes = {rule.endpoint for rule, _, policy in state.routes.all() if policy.undecided}
    if routes and state.loaded.settings.security.default_access == "authenticated":
        click.echo(f"undecided, so they need authentication: {', '.join(sorted(routes))}", err=True)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
