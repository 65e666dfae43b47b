"""The help of every command: whole sentences, and examples that run."""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner
from flask import Flask

from flask_m9m import M9M, __version__
from flask_m9m.cli import m9m
from flask_m9m.cli.examples import EXAMPLES


def commands(command: click.Command, name: str = "") -> Iterator[tuple[str, click.Command]]:
    yield name, command
    for below, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{name} {below}".strip())


ALL = dict(commands(m9m))
LINES = [line.strip() for text in EXAMPLES.values() for line in text.strip().splitlines()]


def test_every_command_has_examples_and_no_example_is_left_over() -> None:
    assert set(EXAMPLES) == set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_help_is_whole_and_ends_with_examples(name: str) -> None:
    said = CliRunner().invoke(m9m, [*name.split(), "--help"]).output
    assert "..." not in re.sub(r"\[ARGS\]\.\.\.|\]\.\.\.", "", said)
    body, _, examples = said.partition("\n  Examples:\n")
    assert body
    assert examples.splitlines() == [f"    {line}" for line in EXAMPLES[name].strip().splitlines()]
    for below in getattr(ALL[name], "commands", {}):
        sentence = (ALL[f"{name} {below}".strip()].help or "").partition("\n\n")[0]
        assert " ".join(sentence.split()) in " ".join(body.split())


@pytest.mark.parametrize("line", LINES)
def test_examples_have_options_and_arguments_that_exist(line: str) -> None:
    words = shlex.split(line.partition("   ")[0].partition(" < ")[0].partition(" > ")[0])
    words = words[words.index("m9m") + 1 :]
    command: click.Command = m9m
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    context = click.Context(command)
    values, rest, order = command.make_parser(context).parse_args(words)
    assert not rest
    for parameter in order:
        if parameter.nargs != -1 or parameter.required:
            parameter.type_cast_value(context, values.get(parameter.name))
    required = {parameter.name for parameter in command.params if parameter.required}
    assert required <= {name for name, value in values.items() if value is not None}


@pytest.mark.parametrize("command", ["config", "doctor"])
def test_a_command_that_a_test_runs_leaves_the_log_as_it_was(command: str) -> None:
    app = Flask(__name__)
    M9M(app, settings={"security": {"jwt": {"enabled": False}}})
    arguments = [command, *(["show"] if command == "config" else [])]
    assert "rate_limit" in app.test_cli_runner().invoke(m9m, arguments).output
    assert not logging.getLogger("flask_m9m").disabled


def test_the_version_is_shown() -> None:
    said = CliRunner().invoke(m9m, ["--version"]).output
    assert said.startswith(f"flask-m9m {__version__} (Python 3.")
