"""Finding and reading the configuration file and `.env`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from .paths import SECTIONS
from .report import Report

SYSTEM_FILE = Path("/etc/m9m/config.yaml")

_SECTIONS_OF_OURS = ("security", "credentials", "performance")
_NAMES_ONE_OF_OURS = re.compile(
    rb"""^[\s{'"-]*(security|credentials|performance)["']?\s*:""", re.MULTILINE
)
_LARGEST = 1_048_576


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A configuration file that counts."""

    path: Path
    settings: Mapping[Any, Any]


def named_file(path: Path, shown: str, source: str, report: Report) -> ConfigFile | None:
    """Read the file that somebody named; that it cannot be read is a problem."""
    from .yaml_file import UnreadableFile, read_mapping

    try:
        return ConfigFile(path, read_mapping(path))
    except UnreadableFile as error:
        report.problem(shown, str(error), "correct it", source)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or "not a path"
        report.problem(shown, reason, "name a readable YAML file", source)
    return None


def searched_file(cwd: Path, home: Path | None, report: Report) -> ConfigFile | None:
    """Return the first file of the search that has one of our sections."""
    places = [cwd / "config.yaml", SYSTEM_FILE]
    if home is not None:
        places.insert(1, home / ".m9m" / "config" / "config.yaml")
    for path in filter(is_file, places):
        shown = show_path(path, cwd)
        before = len(report.problems)
        found = named_file(path, shown, "", report)
        if found is not None and _is_ours(found.settings):
            return found
        if len(report.problems) > before:
            if _is_probably_ours(path):
                return None
            del report.problems[before:]
        names = () if found is None else _sections_in(found.settings)
        _pass_over(shown, names, report)
    return None


def _pass_over(shown: str, names: tuple[str, ...], report: Report) -> None:
    text = f"{shown} is passed over: no security, credentials or performance mapping can be read"
    if names:
        report.passed_over[shown] = names
        text += f"; if its {', '.join(names)} is meant for us, add security: {{}}"
    report.warnings.append(text)


def _sections_in(settings: Mapping[Any, Any]) -> tuple[str, ...]:
    """Return the names that a section of ours has, too."""
    return tuple(
        str(name)
        for name, value in settings.items()
        if name in SECTIONS and isinstance(value, Mapping)
    )


def _is_ours(settings: Mapping[Any, Any]) -> bool:
    """Tell whether a file has one of our sections, or one whose name was mistyped."""
    for name, value in settings.items():
        if isinstance(value, Mapping) and get_close_matches(str(name), _SECTIONS_OF_OURS, 1, 0.85):
            return True
    return False


def _is_probably_ours(path: Path) -> bool:
    """Tell whether a file that cannot be read as a mapping was meant for us."""
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST).translate(None, b"\x00\xef\xbb\xbf\xfe\xff")
            return _NAMES_ONE_OF_OURS.search(text) is not None
    except OSError:
        return True


def read_dotenv(path: Path, shown: str, report: Report) -> dict[str, str]:
    """Return the names and values of an `.env`, not interpolated."""
    from dotenv.parser import parse_stream

    try:
        with path.open(encoding="utf-8") as stream:
            bindings = list(parse_stream(stream))
    except UnicodeDecodeError:
        report.problem(shown, "a file that is not UTF-8", "write it as text")
        return {}
    except OSError as error:
        report.problem(shown, error.strerror or "it cannot be read", "make it readable")
        return {}
    values = {}
    for binding in bindings:
        if binding.error:
            _unreadable(binding.original.string, binding.original.line, shown, report)
        elif binding.key is not None and binding.value is not None:
            values[binding.key] = binding.value
    return values


def exported_by_dotenv(path: Path, values: Mapping[str, str]) -> Mapping[str, str | None]:
    """Return what python-dotenv exports of an `.env`, whose references it replaces its own way."""
    from dotenv import dotenv_values

    if not any("$" in value for value in values.values()):
        return values
    return dotenv_values(path)


def _unreadable(statement: str, line: int, shown: str, report: Report) -> None:
    found = f"line {line} cannot be read"
    if "M9M_" in statement or "N8N_" in statement:
        report.problem(shown, found, "write NAME=value, the value in quotes if it has spaces")
    else:
        report.warnings.append(f"{shown}: {found}, and is passed over")


def is_file(path: Path) -> bool:
    """Tell whether there is a file that this user can know of."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def show_path(path: Path, cwd: Path) -> str:
    """Return a path as a message names it: short below the working directory."""
    return ascii(str(path.relative_to(cwd) if path.is_relative_to(cwd) else path))[1:-1]
