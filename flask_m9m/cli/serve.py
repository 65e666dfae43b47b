"""`flask m9m serve`: run the app with gunicorn, or with the development server."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from typing import NoReturn

import click
from flask.cli import ScriptInfo
from werkzeug.serving import is_running_from_reloader, run_simple

from ..extension.app_state import AppState
from ..extension.m9m import command_line
from ..ratelimit.store import LimitStore
from ..settings.models import RateLimitSettings, Settings
from ..settings.wording import printable
from ..wsgi.server import REMEDY, SERVER_SETTINGS_VARIABLE
from ..wsgi.server.bind_address import bind_address, check_development, check_free, is_loopback
from ..wsgi.server.tls import Certificate
from .output import fail, settings_errors, state_of
from .start_checks import check_database, check_keys

_Number = click.IntRange(1)


@click.command()
@click.option("--dev", is_flag=True, help="Use Flask's development server, on loopback only.")
@click.option("--host", help="Address to listen on; by default server.host.")
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Port to listen on; by default server.port."
)
@click.option(
    "--workers", type=_Number, help="Worker processes; by default server.workers. Not with --dev."
)
@click.option(
    "--threads", type=_Number, help="Threads per worker; by default server.threads. Not with --dev."
)
@click.option(
    "--reload/--no-reload", default=True, help="With --dev: restart when the code changes."
)
@click.option(
    "--access-log",
    is_flag=True,
    help="Print a line for each request to standard output, without its query. --dev always "
    "prints one.",
)
@click.pass_context
@settings_errors
def serve(
    context: click.Context,
    dev: bool,
    host: str | None,
    port: int | None,
    workers: int | None,
    threads: int | None,
    reload: bool,
    access_log: bool,
) -> None:
    """Serve the app with gunicorn, or for development."""
    if dev and (workers or threads):
        raise click.UsageError(
            "--dev takes no --workers and no --threads: it is a single process, which starts "
            "threads as needed"
        )
    # The reloader's child process runs this command again.
    command_line.set(
        {
            "development.enabled": dev or None,
            "server.host": host,
            "server.port": port,
            "server.workers": workers,
            "server.threads": threads,
        }
    )
    script = context.ensure_object(ScriptInfo)
    state = state_of(script.load_app())
    if dev:
        _serve_development(state, host, port, reload)
    else:
        _serve_production(state, script, access_log)


def _serve_development(state: AppState, host: str | None, port: int | None, reload: bool) -> None:
    server = state.loaded.settings.server
    host = host or server.host
    if not is_loopback(host):
        raise fail(
            f"server.host: {host!a} is not loopback, but development mode answers any origin; use "
            "127.0.0.1, ::1 or localhost"
        )
    click.echo(printable(state.loaded.origin), err=True)
    _name_undecided(state)
    check_database(state)
    check_keys(state)
    if not is_running_from_reloader():
        check_free(host, port or server.port)
    state.app.debug = True
    run_simple(host, port or server.port, state.app, use_reloader=reload, threaded=True)


def _serve_production(state: AppState, script: ScriptInfo, access_log: bool) -> NoReturn:
    """Check the settings, then replace this process by gunicorn."""
    if importlib.util.find_spec("gunicorn") is None:
        raise fail(f"gunicorn is not installed; {REMEDY}")
    if script.create_app is not None:
        raise fail("gunicorn cannot import the app of a custom command: name it with --app")
    state.app.debug = False
    settings = state.loaded.settings
    server = settings.server
    check_development(settings, server.host)
    certificate = Certificate(server.tls) if server.tls.enabled else None
    _name_undecided(state)
    state.guard.prepare()
    check_database(state)
    check_keys(state)
    check_free(server.host, server.port)
    for line in _summary(state, certificate):
        click.echo(printable(line), err=True)
    sys.stdout.flush()
    os.environ[SERVER_SETTINGS_VARIABLE] = server.model_dump_json()
    app = f"flask_m9m.cli.served:load({script.app_import_path!r})"
    command = [sys.executable, "-m", "gunicorn", "-c", "python:flask_m9m.serve"]
    command += [*(("--access-logfile", "-") if access_log else ()), app]
    os.execv(sys.executable, command)  # noqa: S606  # no shell is involved


def _summary(state: AppState, certificate: Certificate | None) -> Iterator[str]:
    """Yield a line for each feature, whether it is on; no secrets."""
    settings = state.loaded.settings
    server = settings.server
    where = bind_address(server.host, server.port)
    scheme = "http" if certificate is None else "https"
    yield state.loaded.origin
    yield f"{scheme}://{where}, {server.workers} workers of {server.threads} threads"
    if certificate is None:
        yield "TLS: off"
    else:
        until = f"{certificate.not_after:%Y-%m-%d}"
        yield f"TLS: {server.tls.min_version} and above, certificate valid until {until}"
    proxies = ", ".join(server.trusted_proxies) or "none"
    yield f"plain HTTP: {_https(settings)}; trusted proxies: {proxies}"
    authenticators = state.guard.authenticators
    schemes = ", ".join(authenticator.scheme for authenticator in authenticators) or "none"
    yield f"authentication: {schemes}; undecided routes: {settings.security.default_access}"
    yield f"rate limit: {_rate_limit(settings.performance.rate_limit, state.guard.store)}"
    cors, headers = settings.security.cors, settings.security.headers
    origins = ", ".join(cors.allowed_origins) or "no other origin"
    yield f"CORS: {origins if cors.enabled else 'off'}"
    yield f"security headers: {headers.preset if headers.enabled else 'off'}"


def _https(settings: Settings) -> str:
    meanings = {"off": "answered", "redirect": "redirected to HTTPS", "refuse": "refused"}
    return meanings[settings.server.https]


def _rate_limit(limit: RateLimitSettings, store: LimitStore) -> str:
    if not limit.enabled:
        return f"off; limits of routes are counted {store.where}"
    rate = f"{limit.requests_per_minute} per minute, burst {limit.burst}, by {limit.key}"
    return f"{rate}, counted {store.where}{', refusing no request (shadow)' * limit.shadow}"


def _name_undecided(state: AppState) -> None:
    """Compile every policy, so that conflicts stop the start, and print undecided routes."""
    state.routes.check()
    routes = {rule.endpoint for rule, _, policy in state.routes.all() if policy.undecided}
    if routes and state.loaded.settings.security.default_access == "authenticated":
        click.echo(f"undecided, so they need authentication: {', '.join(sorted(routes))}", err=True)
