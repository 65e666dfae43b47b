"""`flask m9m config`: show, check and describe the settings."""

from __future__ import annotations

import json
from pathlib import Path

import click
from flask.cli import ScriptInfo

from ..errors import SettingsError
from ..extension.app_state import EXTENSION
from ..settings.checks import check_secret_key
from ..settings.describe import describe
from ..settings.durations import format_duration
from ..settings.loaded import Loaded
from ..settings.paths import LEAVES, nearest_path
from ..settings.schema import json_schema
from ..settings.sources import load
from ..settings.wording import printable
from .output import fail, log_nothing, output_option, print_document, print_rows, settings_errors

_APP_FILES = ("wsgi.py", "app.py")  # where Flask looks for an app by default


@click.group()
@click.pass_context
def config(context: click.Context) -> None:
    """Show and check the settings."""
    # Loading the app logs warnings about the settings; these commands print them themselves.
    log_nothing(context)


@config.command()
@output_option
@click.pass_context
@settings_errors
def show(context: click.Context, output: str) -> None:
    """Show every setting in force and its source; secrets are masked."""
    loaded = _loaded(context)
    rows = describe(loaded)
    click.echo(printable(loaded.origin), err=True)
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)
    if output == "table":
        print_rows(
            [
                # The value comes last: it may be long.
                {"setting": p, "source": s, "value": _as_written(p, v)}
                for p, v, s in rows
            ],
            output,
        )
    else:
        print_document({p: {"value": v, "source": s} for p, v, s in rows}, output)


@config.command()
@click.pass_context
def validate(context: click.Context) -> None:
    """Check the settings, also of an app that cannot start; exit 1 on problems."""
    try:
        loaded = _loaded(context)
    except SettingsError as error:
        for problem in error.problems:
            click.echo(str(problem), err=True)
        click.echo(f"problems: {len(error.problems)}", err=True)
        context.exit(1)
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)
    settings = loaded.settings
    if settings.security.jwt.secret is None and not settings.development.enabled:
        click.echo(
            "warning: JWT is switched off because security.jwt.secret is not set: routes accept no "
            "tokens (run: flask m9m init)",
            err=True,
        )
    click.echo(f"the settings are valid ({printable(loaded.origin)})")


@config.command()
@click.argument("path")
@click.pass_context
@settings_errors
def get(context: click.Context, path: str) -> None:
    """Print the value of one setting, as JSON; secrets are masked."""
    values = {name: value for name, value, _ in describe(_loaded(context))}
    if path in values:
        click.echo(json.dumps(values[path]))
        return
    below = {name: value for name, value in values.items() if name.startswith(f"{path}.")}
    if not below:
        near = nearest_path(path)
        raise fail(f"no setting is named {path!a}" + (f"; did you mean {near}?" if near else ""))
    print_document(below, "json")


@config.command()
def schema() -> None:
    """Print a JSON Schema of config.yaml, for completion in editors."""
    print_document(json_schema(), "json")


def _as_written(path: str, value: object) -> str:
    """Return a value as `config.yaml` takes it."""
    if LEAVES[path].is_duration and isinstance(value, int | float):
        return format_duration(value)
    return value if isinstance(value, str) else json.dumps(value)


def _loaded(context: click.Context) -> Loaded:
    """Return the app's settings; without a loadable app, those of files and the environment."""
    info = context.ensure_object(ScriptInfo)
    try:
        app = info.load_app()
    except Exception as error:
        if (cause := settings_error(error)) is not None:
            raise cause from None
        # Any other error of the app is not about the settings: go on without the app.
        if info.app_import_path or any(Path(name).exists() for name in _APP_FILES):
            click.echo(
                f"the app cannot be loaded ({type(error).__name__}): going on without its settings",
                err=True,
            )
        loaded = load()
        if loaded.idle:
            raise SettingsError(loaded.idle) from None
        return loaded
    state = app.extensions.get(EXTENSION)
    loaded = load(app_config=app.config) if state is None else state.loaded
    if problems := [*check_secret_key(loaded.settings, app.secret_key), *loaded.idle]:
        raise SettingsError(problems)
    return loaded


def settings_error(error: BaseException | None) -> SettingsError | None:
    """Find a `SettingsError` among the causes of an error."""
    for _ in range(20):
        if error is None or isinstance(error, SettingsError):
            return error
        error = error.__cause__ or error.__context__
    return None
