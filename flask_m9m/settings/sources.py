"""Loading the settings: all sources in order; unknown keys, suggestions and other problems."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from ..errors import SettingsError
from .checks import check
from .effects import find_idle
from .environment import CONFIG, NamedSettings, expand_value, parse_list
from .files import (
    ConfigFile,
    config_places,
    find_config_file,
    is_file,
    read_dotenv,
    read_exported_values,
    read_named_file,
    show_path,
)
from .interpolation import Interpolator, is_reference
from .loaded import Loaded
from .m9m import IGNORED
from .models import Settings
from .paths import LEAVES, SECTIONS, nearest_path
from .report import SourcedValue, SourcesReport
from .wording import describe_secret, describe_value, kind, quoted

SettingsSource = Settings | Mapping[str, Any] | str | PathLike[str]


def load(
    settings: SettingsSource | None = None,
    *,
    app_config: Mapping[str, Any] | None = None,
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    home: Path | None = None,
    folders: Sequence[Path] = (),
) -> Loaded:
    """Read the settings from every source.

    Each source overrides the one before it: defaults; the configuration file; `.env`; the
    environment; `app_config`; a mapping; flags.

    Args:
        settings: the configuration file's path; or a mapping; or a complete `Settings` object, in
            which case no other source is read.
        app_config: Flask's `app.config`; its key `M9M` and keys that begin with `M9M_` are read.
        flags: command-line values by path; `None` means not given.
        environ: the environment; by default the process's.
        cwd: the working directory; by default the process's.
        home: the user's home directory; by default the current user's.
        folders: the app's folders, in which the files are looked for after the working directory.

    Returns:
        The effective settings with their sources and warnings.

    Raises:
        SettingsError: the settings cannot be used; it lists every problem.
    """
    report = SourcesReport()
    reader = _Reader(
        report,
        os.environ if environ is None else environ,
        Path() if cwd is None else cwd,
        _home_directory() if home is None else home,
        folders,
    )
    if isinstance(settings, Settings):
        for path, value in _leaves(settings.model_dump(exclude_unset=True, warnings=False)):
            report.values[path] = SourcedValue(value, "settings=")
    else:
        reader.read(settings, app_config or {}, flags or {})
    effective = _validate(report)
    _add_contradictions(effective, report)
    if problems := report.all_problems():
        raise SettingsError(problems)
    return _loaded(effective, report, reader)


def _loaded(effective: Settings, report: SourcesReport, reader: _Reader) -> Loaded:
    sources = {
        path: report.values[path].source if path in report.values else "default" for path in LEAVES
    }
    idle = find_idle(effective, report.values)
    warnings = (*report.warnings, *_likely_mistakes(effective), *idle.warnings)
    references = {path: given.references for path, given in report.values.items()}
    return Loaded(
        effective,
        MappingProxyType(sources),
        warnings,
        tuple(reader.files),
        tuple(reader.places),
        tuple(replace(problem, source=sources[problem.path]) for problem in idle.problems),
        MappingProxyType({path: names for path, names in references.items() if names}),
        MappingProxyType(report.ignored_sections),
    )


def settings_of(given: Mapping[str, Any], source: str = "settings=") -> Settings:
    """Make settings from a mapping alone; no other source is read.

    Args:
        given: nested settings, as in the configuration file.
        source: the mapping's name in messages.

    Raises:
        SettingsError: the mapping has problems; it lists every one.
    """
    report = SourcesReport()
    _Reader(report, {}, Path(), None).read_mapping(given, source)
    settings = _validate(report)
    _add_contradictions(settings, report)
    if problems := report.all_problems():
        raise SettingsError(problems)
    return settings


def _home_directory() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:
        return None


class _Reader:
    """Reads every source except a `Settings` object into one report."""

    def __init__(
        self,
        report: SourcesReport,
        environ: Mapping[str, str],
        cwd: Path,
        home: Path | None,
        folders: Sequence[Path] = (),
    ) -> None:
        self.files: list[Path] = []
        self.places: list[Path] = []
        self._folders = folders
        self._report = report
        self._environ = environ
        self._cwd = cwd
        self._home_directory = home
        self._interpolator = Interpolator({}, {}, cwd)

    def read_mapping(self, settings: Mapping[str, Any], source: str) -> None:
        """Read a mapping and no other source."""
        self._read_nested(settings, source)

    def read(
        self,
        settings: object,
        app_config: Mapping[str, Any],
        flags: Mapping[str, object],
    ) -> None:
        config = self._find_config_file(settings, app_config)
        dotenv, exported, dotenv_name = self._read_dotenv(config)
        # Flask's command line exports the values of .env: .env is still their source.
        environ = {
            name: value
            for name, value in self._environ.items()
            if value not in (dotenv.get(name), exported.get(name))
        }
        self._interpolator = Interpolator(environ, dotenv, self._cwd)
        named = NamedSettings(self._interpolator, self._cwd, self._report)
        variables = [(dotenv, dotenv_name), (environ, "environment")]
        # n8n's encryption key is only a fallback, so every other source overrides it. n8n's host
        # and port override the configuration file, but not m9m's own variables.
        for names, source in variables:
            named.read_n8n(names, source, secrets=True)
        if config is not None:
            self._read_nested(config.settings, show_path(config.path, self._cwd))
        for names, source in variables:
            named.read_n8n(names, source, secrets=False)
        for names, source in variables:
            named.read(names, source)
        if (nested := app_config.get("M9M")) is not None:
            self._read_nested(nested, "app.config")
        named.read(app_config, "app.config")
        if isinstance(settings, Mapping):
            self._read_nested(settings, "settings=")
        for path, value in flags.items():
            if value is not None:
                self._read_leaf(path, value, "command line")

    def _find_config_file(
        self, settings: object, app_config: Mapping[str, Any]
    ) -> ConfigFile | None:
        """Read the named configuration file, or else the first suitable one of the search path."""
        name, source = self._find_config_name(settings, app_config)
        if name is None:
            places = config_places(self._cwd, self._folders, self._home_directory)
            self.places = [*places.project, *places.shared]
            config = find_config_file(places, self._cwd, self._report)
        else:
            path = self._cwd / name
            config = read_named_file(path, show_path(path, self._cwd), source, self._report)
        if config is not None:
            self.files.append(config.path)
        return config

    def _find_config_name(
        self, settings: object, app_config: Mapping[str, Any]
    ) -> tuple[str | PathLike[str] | None, str]:
        if isinstance(settings, str | PathLike):
            return settings, "settings="
        if settings is not None and not isinstance(settings, Mapping):
            self._report.add_problem(
                "settings=", kind(settings), "must be a path, a mapping or a Settings object"
            )
        for source, variables in (("app.config", app_config), ("environment", self._environ)):
            if not (name := variables.get(CONFIG)):
                continue
            if isinstance(name, str | PathLike):
                return name, f"{source} {CONFIG}"
            self._report.add_problem(CONFIG, kind(name), "must be a path", source)
        path = self._cwd / ".env"
        if is_file(path):
            name = read_dotenv(path, ".env", SourcesReport()).get(CONFIG)
            return name or None, f".env {CONFIG}"
        return None, ""

    def _read_dotenv(
        self, config: ConfigFile | None
    ) -> tuple[dict[str, str], Mapping[str, str | None], str]:
        """Read the `.env` next to the configuration file, else of the working directory or the app.

        Returns:
            Its raw values; the values that python-dotenv exports; the file's name in messages.
        """
        directories = [self._cwd, *self._folders]
        if config is not None:
            directories.insert(0, config.path.parent)
        for path in (directory / ".env" for directory in directories):
            if is_file(path):
                self.files.append(path)
                name = show_path(path, self._cwd)
                values = read_dotenv(path, name, self._report)
                return values, read_exported_values(path, values), name
        return {}, {}, ""

    def _read_nested(self, settings: object, source: str) -> None:
        if not isinstance(settings, Mapping):
            self._report.add_problem(source, kind(settings), "must be a mapping of settings")
            return
        ignored: list[str] = []
        self._read_section(settings, "", source, ignored)
        if ignored:
            names = ", ".join(sorted(ignored))
            self._report.warnings.append(f"{source}: ignored settings that only m9m uses: {names}")

    def _read_section(
        self, settings: Mapping[Any, Any], prefix: str, source: str, ignored: list[str]
    ) -> None:
        for key, value in settings.items():
            if not isinstance(key, str):
                where = prefix.rstrip(".") or source
                self._report.add_problem(
                    where, f"a key that is {kind(key)}", "keys must be text", source
                )
                continue
            path = prefix + key
            if path in IGNORED:
                ignored.append(path)
            elif path not in SECTIONS:
                self._read_leaf(path, value, source)
            elif isinstance(value, Mapping):
                self._read_section(value, f"{path}.", source, ignored)
            elif value is not None:  # null: every key of the section is commented out
                self._report.add_problem(path, kind(value), "must be a mapping of settings", source)

    def _read_leaf(self, path: str, value: object, source: str) -> None:
        if path in LEAVES:
            self._report.record_value(
                path,
                source,
                lambda: self._expand(path, value),
                lambda: self._interpolator.references(value),
                is_reference=is_reference(value),
                secret=LEAVES[path].is_secret,
            )
            return
        near = nearest_path(path)
        accepted = f"did you mean {near}?" if near else "remove it"
        self._report.add_problem(quoted(path)[1:-1], "not a setting", accepted, source)

    def _expand(self, path: str, value: object) -> object:
        """Replace the references in a value; a text that is one may supply a whole list."""
        expanded = expand_value(value, self._interpolator)
        if LEAVES[path].is_list and isinstance(expanded, str) and expanded != value:
            return parse_list(expanded)
        return expanded


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a tree of settings."""
    for key, value in tree.items():
        path = prefix + key
        if path in LEAVES:
            yield path, value
        elif path in SECTIONS:
            yield from _leaves(value, f"{path}.")


def _nest(values: Mapping[str, SourcedValue]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, given in values.items():
        *sections, name = path.split(".")
        section = tree
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = given.value
    return tree


def _validate(report: SourcesReport) -> Settings:
    """Build the settings from the valid values, and report the invalid ones."""
    while True:
        try:
            return Settings.model_validate(_nest(report.values))
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                path = ".".join(part for part in detail["loc"] if isinstance(part, str))
                index = "".join(f"[{part}]" for part in detail["loc"] if isinstance(part, int))
                given = report.values[path]
                # A value that comes from a reference may be a secret, whichever setting it is.
                value = detail["input"]
                found = describe_secret(value) if given.references else describe_value(path, value)
                report.record_failure(
                    path, found, _describe_accepted(path, detail), given.source, index
                )
            for path in report.failed:
                report.values.pop(path, None)


def _describe_accepted(path: str, error: Mapping[str, Any]) -> str:
    """Describe the accepted values in place of one that pydantic rejects."""
    context = error.get("ctx", {})
    if "error" in context:
        return str(context["error"])
    if "expected" in context:
        return f"must be {context['expected']}"
    low, high = LEAVES[path].bounds
    if low is not None:
        return f"must be a whole number from {low} to {high}"
    if error["type"] == "tuple_type":
        return "must be a list, such as [a, b]"
    return "must be text"


def _add_contradictions(settings: Settings, report: SourcesReport) -> None:
    for problem in check(settings):
        path = problem.path.partition("[")[0]
        if path not in report.failed:
            given = report.values.get(path)
            report.problems.append(replace(problem, source=given.source if given else ""))


def _likely_mistakes(settings: Settings) -> Iterator[str]:
    """Yield warnings about settings that are allowed but probably a mistake."""
    database, cors = settings.database, settings.security.cors
    if database.type == "postgres" and database.url is None and database.postgres.url is None:
        yield "database.type is postgres, but neither database.postgres.url nor database.url is set"
    if "*" in cors.allowed_headers and "Authorization" not in cors.allowed_headers:
        yield 'security.cors.allowed_headers: "*" does not cover Authorization: add "Authorization"'
    if "*" in cors.expose_headers and cors.allow_credentials:
        yield 'security.cors.expose_headers: "*" exposes nothing with credentials: list the names'
