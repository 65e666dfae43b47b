"""`flask m9m config …`."""

from __future__ import annotations

import json

import click
from flask.cli import NoAppException, ScriptInfo

from ..context import EXTENSION
from ..errors import SettingsError
from ..settings import Loaded, describe, json_schema, load, nearest_path
from .output import fail, output_option, print_document, print_rows, settings_errors


@click.group()
def config() -> None:
    """Show and check the settings."""


@config.command()
@output_option
@click.pass_context
@settings_errors
def show(context: click.Context, output: str) -> None:
    """Show every setting in force and where it comes from; secrets are masked."""
    rows = describe(_loaded(context))
    if output == "table":
        print_rows(
            [
                {"setting": p, "value": v if isinstance(v, str) else json.dumps(v), "source": s}
                for p, v, s in rows
            ],
            output,
        )
    else:
        print_document({p: {"value": v, "source": s} for p, v, s in rows}, output)


@config.command()
@click.pass_context
def validate(context: click.Context) -> None:
    """Check the settings, also those of an app that cannot start; exit 1 on problems."""
    try:
        loaded = _loaded(context)
    except SettingsError as error:
        for problem in error.problems:
            click.echo(str(problem), err=True)
        click.echo(f"{len(error.problems)} problems", err=True)
        context.exit(1)
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo("the settings are valid")


@config.command()
@click.argument("path")
@click.pass_context
@settings_errors
def get(context: click.Context, path: str) -> None:
    """Print the value of one setting, as JSON; secrets are masked."""
    values = {one: value for one, value, _ in describe(_loaded(context))}
    if path in values:
        click.echo(json.dumps(values[path]))
        return
    below = {one: value for one, value in values.items() if one.startswith(f"{path}.")}
    if not below:
        raise fail(f"there is no setting {path!a}; the nearest one is {nearest_path(path)}")
    print_document(below, "json")


@config.command()
def schema() -> None:
    """Print a JSON Schema of config.yaml, so that editors complete it."""
    print_document(json_schema(), "json")


def _loaded(context: click.Context) -> Loaded:
    """Return the app's settings; those that the sources give where there is no app to ask."""
    try:
        app = context.ensure_object(ScriptInfo).load_app()
    except NoAppException:
        return load()
    except SettingsError:
        raise
    except Exception as error:
        # Whatever else keeps the app from starting is not what was asked about.
        click.echo(f"the app cannot be loaded: {type(error).__name__}", err=True)
        return load()
    state = app.extensions.get(EXTENSION)
    return load(app_config=app.config) if state is None else state.loaded
