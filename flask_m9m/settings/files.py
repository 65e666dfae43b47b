"""Finding and reading the configuration file (`config.yaml`) and `.env`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from .paths import SECTIONS
from .report import SourcesReport

SYSTEM_FILE = Path("/etc/m9m/config.yaml")

_NAMES = ("config.yaml", "config.yml")

_OWN_SECTIONS = ("security", "credentials", "performance")
_OWN_SECTION_LINE = re.compile(
    rb"""^[\s{'"-]*(security|credentials|performance)["']?\s*:""", re.MULTILINE
)
_MAX_BYTES = 1_048_576


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A configuration file that is in use, and its parsed content."""

    path: Path
    settings: Mapping[Any, Any]


def read_named_file(
    path: Path, shown: str, source: str, report: SourcesReport
) -> ConfigFile | None:
    """Read an explicitly named configuration file; report a problem if it is unreadable."""
    from .yaml_file import UnreadableFile, read_mapping

    try:
        return ConfigFile(path, read_mapping(path))
    except UnreadableFile as error:
        report.add_problem(shown, str(error), "correct the file", source)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or "not a path"
        report.add_problem(shown, reason, "name a readable YAML file", source)
    return None


class ConfigPlaces(NamedTuple):
    """Where a configuration file may be.

    Attributes:
        project: in the working directory and the app's folders.
        shared: for the user, and for the machine.
    """

    project: Sequence[Path]
    shared: Sequence[Path]


def config_places(cwd: Path, folders: Sequence[Path], home: Path | None) -> ConfigPlaces:
    """List where a configuration file may be.

    Args:
        cwd: the working directory.
        folders: the app's folders.
        home: the user's home directory.
    """
    others = dict.fromkeys(folder for folder in folders if folder != _absolute(cwd))
    project = [folder / name for folder in (cwd, *others) for name in _NAMES]
    own = [] if home is None else [home / ".m9m" / "config" / "config.yaml"]
    return ConfigPlaces(project, [*own, SYSTEM_FILE])


def find_config_file(places: ConfigPlaces, cwd: Path, report: SourcesReport) -> ConfigFile | None:
    """Return the file of the search path that has one of flask-m9m's own sections.

    Two such files in the project are a problem. Those for the user or the machine count only where
    the project has none; the first wins. Other tools use these names too, so files without such a
    section are ignored with a warning.

    Args:
        places: as `config_places` lists them.
        cwd: the working directory.
        report: receives problems and warnings.
    """
    chosen: ConfigFile | None = None
    for path in _distinct(places.project):
        found = _read_own(path, cwd, report)
        if found is not None and chosen is not None:
            both = f"{show_path(chosen.path, cwd)} and {show_path(path, cwd)}"
            report.add_problem(both, "both are there", "keep one, or name one by M9M_CONFIG")
        chosen = chosen or found
    for path in _distinct(places.shared):
        if chosen is None and not report.problems:
            chosen = _read_own(path, cwd, report)
    return chosen


def _distinct(places: Sequence[Path]) -> Iterator[Path]:
    """Yield the files that exist; one that has several paths, once."""
    known = set()
    for path in filter(is_file, places):
        status = path.stat()
        if (status.st_dev, status.st_ino) not in known:
            known.add((status.st_dev, status.st_ino))
            yield path


def _read_own(path: Path, cwd: Path, report: SourcesReport) -> ConfigFile | None:
    """Read a file, unless it is another tool's."""
    shown = show_path(path, cwd)
    problems_before = len(report.problems)
    found = read_named_file(path, shown, "", report)
    if found is not None and _has_own_section(found.settings):
        return found
    if len(report.problems) > problems_before:
        if _names_own_section(path):
            return None
        del report.problems[problems_before:]
    names = () if found is None else _sections_in(found.settings)
    _warn_ignored(shown, names, report)
    return None


def _warn_ignored(shown: str, names: tuple[str, ...], report: SourcesReport) -> None:
    text = f"{shown} is ignored: it has no readable security, credentials or performance mapping"
    if names:
        report.ignored_sections[shown] = names
        text += f"; to use its {', '.join(names)} for flask-m9m, add security: {{}}"
    report.warnings.append(text)


def _sections_in(settings: Mapping[Any, Any]) -> tuple[str, ...]:
    """Return the section names in a file that are also sections of the settings."""
    return tuple(
        str(name)
        for name, value in settings.items()
        if name in SECTIONS and isinstance(value, Mapping)
    )


def _has_own_section(settings: Mapping[Any, Any]) -> bool:
    """Tell whether a file has a section of flask-m9m's own, perhaps misspelt."""
    for name, value in settings.items():
        if isinstance(value, Mapping) and get_close_matches(str(name), _OWN_SECTIONS, 1, 0.85):
            return True
    return False


def _names_own_section(path: Path) -> bool:
    """Tell whether a file that is not a valid mapping names one of flask-m9m's own sections."""
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES).translate(None, b"\x00\xef\xbb\xbf\xfe\xff")
            return _OWN_SECTION_LINE.search(text) is not None
    except OSError:
        return True


def read_dotenv(path: Path, shown: str, report: SourcesReport) -> dict[str, str]:
    """Read the names and raw values of an `.env` file.

    Args:
        path: the file.
        shown: the file's name in messages.
        report: receives problems and warnings.

    Returns:
        The values by name, with references such as `${NAME}` not yet replaced.
    """
    from dotenv.parser import parse_stream

    try:
        with path.open(encoding="utf-8") as stream:
            bindings = list(parse_stream(stream))
    except UnicodeDecodeError:
        report.add_problem(shown, "a file that is not UTF-8", "save it as UTF-8 text")
        return {}
    except OSError as error:
        report.add_problem(shown, error.strerror or "the file cannot be read", "make it readable")
        return {}
    values = {}
    for binding in bindings:
        if binding.error:
            _report_unreadable_line(binding.original.string, binding.original.line, shown, report)
        elif binding.key is not None and binding.value is not None:
            values[binding.key] = binding.value
    return values


def read_exported_values(path: Path, values: Mapping[str, str]) -> Mapping[str, str | None]:
    """Return the values that python-dotenv exports; it replaces references differently."""
    from dotenv import dotenv_values

    if not any("$" in value for value in values.values()):
        return values
    return dotenv_values(path)


def _report_unreadable_line(statement: str, line: int, shown: str, report: SourcesReport) -> None:
    found = f"line {line} cannot be read"
    if "M9M_" in statement or "N8N_" in statement:
        report.add_problem(
            shown, found, "write NAME=value, with quotes around a value that has spaces"
        )
    else:
        report.warnings.append(f"{shown}: {found} and is ignored")


def is_file(path: Path) -> bool:
    """Tell whether a regular file exists; false where that cannot be determined."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _absolute(folder: Path) -> Path:
    """Make a folder's path absolute; it stays as it is where the working directory is gone."""
    try:
        return folder.absolute()
    except OSError:
        return folder


def show_path(path: Path, cwd: Path) -> str:
    """Format a path for a message, relative to the working directory where possible."""
    for folder in (cwd, _absolute(cwd)):
        if path.is_relative_to(folder):
            path = path.relative_to(folder)
    return ascii(str(path))[1:-1]
