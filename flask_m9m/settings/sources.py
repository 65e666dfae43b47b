"""The sources of settings, each overriding the one before, and what they come to together."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from ..errors import SettingsError
from .checks import check
from .environment import CONFIG, NamedSettings, complete
from .files import (
    ConfigFile,
    exported_by_dotenv,
    is_file,
    named_file,
    read_dotenv,
    searched_file,
    show_path,
)
from .interpolation import Interpolator
from .m9m import PASSED_OVER
from .models import Settings
from .paths import LEAVES, SECTIONS, nearest_path
from .report import Given, Report
from .wording import found, kind, quoted, secret_found

logger = logging.getLogger("flask_m9m")

SettingsSource = Settings | Mapping[str, Any] | str | PathLike[str]


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and how they came about.

    Attributes:
        settings: what holds.
        sources: where the value of every setting came from, by its path.
        warnings: what is to be logged, a line each; no secrets.
        files: the files that were read.
        references: what the sources of some refer to for them, by path: `${NAME}`.
        passed_over: names of sections of ours in files that the search passed over, by the file.
    """

    settings: Settings
    sources: Mapping[str, str]
    warnings: tuple[str, ...]
    files: tuple[Path, ...]
    references: Mapping[str, tuple[str, ...]]
    passed_over: Mapping[str, tuple[str, ...]]

    def log(self) -> None:
        """Say which files were read, and what was passed over."""
        for file in self.files:
            logger.info("settings read from %a", str(file))
        for warning in self.warnings:
            logger.warning("%s", warning)


def load(
    settings: SettingsSource | None = None,
    *,
    app_config: Mapping[str, Any] | None = None,
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    home: Path | None = None,
) -> Loaded:
    """Read the settings from every source.

    In this order, each overriding the one before: defaults; the configuration file; `.env`; the
    environment; `app_config`; a mapping; flags.

    Args:
        settings: the configuration file's path; or a mapping; or `Settings`, which is complete: no
            other source is read.
        app_config: Flask's `app.config`, of which `M9M` and the keys beginning `M9M_` count.
        flags: the command line's values by path; `None` is no value.
        environ: the environment; left out, the process's.
        cwd: the working directory; left out, the process's.
        home: the user's directory; left out, the process's.

    Raises:
        SettingsError: something stops the start; it lists all that does.
    """
    report = Report()
    files: list[Path] = []
    if isinstance(settings, Settings):
        for path, value in _given(settings.model_dump(exclude_unset=True, warnings=False)):
            report.values[path] = Given(value, "settings=")
    else:
        reader = _Reader(
            report,
            os.environ if environ is None else environ,
            Path() if cwd is None else cwd,
            _home() if home is None else home,
        )
        reader.read(settings, app_config or {}, flags or {})
        files = reader.files
    effective = _validate(report)
    _contradictions(effective, report)
    if problems := report.all_problems():
        raise SettingsError(problems)
    sources = {
        path: report.values[path].source if path in report.values else "default" for path in LEAVES
    }
    warnings = (*report.warnings, *_doubts(effective))
    references = {path: given.references for path, given in report.values.items()}
    return Loaded(
        effective,
        MappingProxyType(sources),
        warnings,
        tuple(files),
        MappingProxyType({path: found for path, found in references.items() if found}),
        MappingProxyType(report.passed_over),
    )


def settings_of(given: Mapping[str, Any], source: str = "settings=") -> Settings:
    """Return the settings that a mapping gives, whatever other sources say.

    Raises:
        SettingsError: something in it is wrong; it lists all that is.
    """
    report = Report()
    _Reader(report, {}, Path(), None).read_mapping(given, source)
    settings = _validate(report)
    _contradictions(settings, report)
    if problems := report.all_problems():
        raise SettingsError(problems)
    return settings


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:
        return None


class _Reader:
    """Reads all sources but `Settings` into one report."""

    def __init__(
        self, report: Report, environ: Mapping[str, str], cwd: Path, home: Path | None
    ) -> None:
        self.files: list[Path] = []
        self._report = report
        self._environ = environ
        self._cwd = cwd
        self._home = home
        self._interpolator = Interpolator({}, {}, cwd)

    def read_mapping(self, settings: Mapping[str, Any], source: str) -> None:
        """Read a mapping and nothing else."""
        self._nested(settings, source)

    def read(
        self,
        settings: object,
        app_config: Mapping[str, Any],
        flags: Mapping[str, object],
    ) -> None:
        config = self._config_file(settings, app_config)
        dotenv, exported, dotenv_name = self._dotenv(config)
        # Flask's command line exports what .env says: that is still .env speaking.
        environ = {
            name: value
            for name, value in self._environ.items()
            if value not in (dotenv.get(name), exported.get(name))
        }
        self._interpolator = Interpolator(environ, dotenv, self._cwd)
        named = NamedSettings(self._interpolator, self._cwd, self._report)
        variables = [(dotenv, dotenv_name), (environ, "environment")]
        # n8n's key stands in for ours only where nothing gives one; its host and port count for
        # as much as m9m's own variables, where those are absent.
        for names, source in variables:
            named.read_n8n(names, source, secrets=True)
        if config is not None:
            self._nested(config.settings, show_path(config.path, self._cwd))
        for names, source in variables:
            named.read_n8n(names, source, secrets=False)
        for names, source in variables:
            named.read(names, source)
        if (nested := app_config.get("M9M")) is not None:
            self._nested(nested, "app.config")
        named.read(app_config, "app.config")
        if isinstance(settings, Mapping):
            self._nested(settings, "settings=")
        for path, value in flags.items():
            if value is not None:
                self._leaf(path, value, "command line")

    def _config_file(self, settings: object, app_config: Mapping[str, Any]) -> ConfigFile | None:
        """Return the file that was named, or that the search finds."""
        name, source = self._config_name(settings, app_config)
        if name is None:
            config = searched_file(self._cwd, self._home, self._report)
        else:
            path = self._cwd / name
            config = named_file(path, show_path(path, self._cwd), source, self._report)
        if config is not None:
            self.files.append(config.path)
        return config

    def _config_name(
        self, settings: object, app_config: Mapping[str, Any]
    ) -> tuple[str | PathLike[str] | None, str]:
        if isinstance(settings, str | PathLike):
            return settings, "settings="
        if settings is not None and not isinstance(settings, Mapping):
            self._report.problem("settings=", kind(settings), "a path, a mapping or Settings")
        for source, variables in (("app.config", app_config), ("environment", self._environ)):
            if not (name := variables.get(CONFIG)):
                continue
            if isinstance(name, str | PathLike):
                return name, f"{source} {CONFIG}"
            self._report.problem(CONFIG, kind(name), "a path", source)
        path = self._cwd / ".env"
        if is_file(path):
            name = read_dotenv(path, ".env", Report()).get(CONFIG)
            return name or None, f".env {CONFIG}"
        return None, ""

    def _dotenv(
        self, config: ConfigFile | None
    ) -> tuple[dict[str, str], Mapping[str, str | None], str]:
        """Read the `.env` beside the configuration file, else the working directory's.

        Returns:
            What it says; what python-dotenv exports of it; its name in messages.
        """
        directories = [self._cwd] if config is None else [config.path.parent, self._cwd]
        for path in (directory / ".env" for directory in directories):
            if is_file(path):
                self.files.append(path)
                name = show_path(path, self._cwd)
                values = read_dotenv(path, name, self._report)
                return values, exported_by_dotenv(path, values), name
        return {}, {}, ""

    def _nested(self, settings: object, source: str) -> None:
        if not isinstance(settings, Mapping):
            self._report.problem(source, kind(settings), "a mapping of settings")
            return
        passed_over: list[str] = []
        self._section(settings, "", source, passed_over)
        if passed_over:
            names = ", ".join(sorted(passed_over))
            self._report.warnings.append(f"{source}: passed over, of use to m9m alone: {names}")

    def _section(
        self, settings: Mapping[Any, Any], prefix: str, source: str, passed_over: list[str]
    ) -> None:
        for key, value in settings.items():
            if not isinstance(key, str):
                where = prefix.rstrip(".") or source
                self._report.problem(where, f"a key that is {kind(key)}", "keys are text", source)
                continue
            path = prefix + key
            if path in PASSED_OVER:
                passed_over.append(path)
            elif path not in SECTIONS:
                self._leaf(path, value, source)
            elif isinstance(value, Mapping):
                self._section(value, f"{path}.", source, passed_over)
            elif value is not None:  # a section whose every key is commented out
                self._report.problem(path, kind(value), "a mapping of settings", source)

    def _leaf(self, path: str, value: object, source: str) -> None:
        if path in LEAVES:
            self._report.give(
                path,
                source,
                lambda: complete(value, self._interpolator),
                lambda: self._interpolator.references(value),
            )
            return
        near = nearest_path(path)
        accepted = f"did you mean {near}?" if near else "remove it"
        self._report.problem(quoted(path)[1:-1], "not a setting", accepted, source)


def _given(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a tree of settings."""
    for key, value in tree.items():
        path = prefix + key
        if path in LEAVES:
            yield path, value
        elif path in SECTIONS:
            yield from _given(value, f"{path}.")


def _tree(values: Mapping[str, Given]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, given in values.items():
        *sections, name = path.split(".")
        section = tree
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = given.value
    return tree


def _validate(report: Report) -> Settings:
    """Return the settings without the values that are wrong, which are reported."""
    while True:
        try:
            return Settings.model_validate(_tree(report.values))
        except ValidationError as error:
            for one in error.errors(include_url=False):
                path = ".".join(part for part in one["loc"] if isinstance(part, str))
                index = "".join(f"[{part}]" for part in one["loc"] if isinstance(part, int))
                given = report.values[path]
                # What a setting refers to may be a secret, whatever the setting is.
                sent = one["input"]
                what = secret_found(sent) if given.references else found(path, sent)
                report.fail(path, what, _accepted(path, one), given.source, index)
            for path in report.failed:
                report.values.pop(path, None)


def _accepted(path: str, error: Mapping[str, Any]) -> str:
    """Say what would be right in place of a value that pydantic refuses."""
    context = error.get("ctx", {})
    if "error" in context:
        return str(context["error"])
    if "expected" in context:
        return str(context["expected"])
    low, high = LEAVES[path].bounds
    if low is not None:
        return f"a whole number from {low} to {high}"
    if error["type"] == "tuple_type":
        return "a list, such as [a, b]"
    return "text"


def _contradictions(settings: Settings, report: Report) -> None:
    for problem in check(settings):
        path = problem.path.partition("[")[0]
        if path not in report.failed:
            given = report.values.get(path)
            report.problems.append(replace(problem, source=given.source if given else ""))


def _doubts(settings: Settings) -> Iterator[str]:
    """Yield what is probably not meant, and does not stop the start."""
    database, cors = settings.database, settings.security.cors
    if database.type == "postgres" and database.url is None and database.postgres.url is None:
        yield "database.type is postgres, and neither database.postgres.url nor database.url is set"
    if "*" in cors.allowed_headers and "Authorization" not in cors.allowed_headers:
        yield 'security.cors.allowed_headers: "*" does not cover Authorization: list it by name'
    if "*" in cors.expose_headers and cors.allow_credentials:
        yield 'security.cors.expose_headers: "*" exposes nothing to requests with credentials'
