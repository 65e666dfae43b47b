"""Shared parts of commands: loading the app, printing tables and documents, failing."""

from __future__ import annotations

import errno
import functools
import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TypeVar, cast

import click
import yaml
from flask import Flask
from flask.cli import ScriptInfo

from ..errors import (
    Conflict,
    DatabaseUnavailable,
    DecryptionFailed,
    NotFound,
    SettingsError,
    UnreadableImport,
    UnresolvedVariable,
)
from ..extension.app_state import EXTENSION, AppState
from ..ratelimit.store import StoreFailure
from ..settings.wording import printable
from .tables import Row, is_terminal, print_table, wide_option

Command = TypeVar("Command", bound=Callable[..., Any])

_format_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "yaml"]),
    default="table",
    show_default=True,
    help="Output format.",
)


def output_option(command: Command) -> Command:
    """Decorate a command that lists something to take `-o` and `--wide`."""
    return _format_option(wide_option(command))


def fail(message: str) -> click.ClickException:
    """Make the exception that prints a message and ends a command with exit code 1."""
    return click.ClickException(message)


def log_nothing(context: click.Context) -> None:
    """Switch the package's log off while a command runs; a test runs it within its process."""
    logger = logging.getLogger("flask_m9m")
    before, logger.disabled = logger.disabled, True
    context.call_on_close(lambda: setattr(logger, "disabled", before))


def settings_errors(command: Command) -> Command:
    """Decorate a command to print problems of the settings and exit 1."""

    @functools.wraps(command)
    def checked(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except SettingsError as error:
            raise fail(str(error)) from None

    return cast(Command, checked)


def refusals(command: Command) -> Command:
    """Decorate a command to print expected errors, such as a missing record, and exit 1."""

    @functools.wraps(command)
    def checked(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except DatabaseUnavailable as error:
            raise fail(printable(str(error))) from None  # a driver's message may quote data
        except DecryptionFailed as error:
            notes = [note for note in getattr(error, "__notes__", ()) if note != error.hint]
            raise fail(": ".join([*notes, str(error), error.hint])) from None
        except (UnreadableImport, UnresolvedVariable) as error:
            raise fail(str(error)) from None
        except StoreFailure as error:
            raise fail(f"the rate limit store failed: {error}") from None
        except (ValueError, NotFound, Conflict) as error:
            raise fail(getattr(error, "description", None) or str(error)) from None
        except OSError as error:
            if error.errno == errno.EPIPE:  # click handles this one silently
                raise
            _drop_unprinted()
            raise fail(error.strerror or str(error)) from None

    return cast(Command, checked)


def _drop_unprinted() -> None:
    """Discard unprinted output, so that the interpreter does not try again at exit."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        with suppress(OSError):
            sys.stdout.close()


def with_app(command: Command) -> Command:
    """Decorate a command to run in the app's context, with the app's state as first argument."""

    @click.pass_context
    @settings_errors
    @functools.wraps(command)
    def in_app(context: click.Context, *args: Any, **kwargs: Any) -> Any:
        app = context.ensure_object(ScriptInfo).load_app()
        state = state_of(app)
        with app.app_context():
            return context.invoke(command, state, *args, **kwargs)

    return cast(Command, in_app)


def state_of(app: Flask) -> AppState:
    """Return an app's state.

    Raises:
        ClickException: the app has no `M9M`.
    """
    state: AppState | None = app.extensions.get(EXTENSION)
    if state is None:
        raise fail(f"the app {app.name!r} does not use flask-m9m: call M9M(app)")
    return state


def print_rows(rows: Sequence[Row], output: str, least_wanted: Sequence[str] = ()) -> None:
    """Print rows with the same columns as a table, as JSON or as YAML.

    Args:
        rows: the rows.
        output: `table`, `json` or `yaml`.
        least_wanted: columns that a table leaves out on a narrow terminal, the first one first.
    """
    if output != "table":
        print_document(list(rows), output)
        return
    print_table(rows, least_wanted)


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """Yield a callable that shows progress (done, total) on a terminal, or `None` elsewhere."""
    if not is_terminal(sys.stderr):
        yield None
        return
    with ExitStack() as stack:
        bars: list[Any] = []

        def show(done: int, total: int) -> None:
            if not bars:
                bar = click.progressbar(length=total, label=label, file=sys.stderr)
                bars.append(stack.enter_context(bar))
            bars[0].length = total
            bars[0].update(done - bars[0].pos)

        yield show


def print_document(document: object, output: str) -> None:
    """Print a document as JSON or as YAML."""
    if output == "yaml":
        click.echo(yaml.safe_dump(json.loads(json.dumps(document)), sort_keys=False), nl=False)
    else:
        # JSON escapes all control characters except DEL.
        click.echo(json.dumps(document, indent=2).replace("\x7f", "\\u007f"))
