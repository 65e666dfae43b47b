"""Types of options: durations, checked where the option is read, so that errors name it."""

from __future__ import annotations

import click

from ..settings.durations import parse_duration
from .output import fail


class Duration(click.ParamType[str]):
    """A duration such as `90d`, `12h` or a number of seconds; given on as it was written."""

    name = "duration"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check a duration.

        Raises:
            ClickException: it is not a duration; the message names the option.
        """
        try:
            parse_duration(value)
        except ValueError as error:
            option = param.opts[0] if param is not None else self.name
            raise fail(f"{option} {value[:64]!a}: {error}") from None
        return value
