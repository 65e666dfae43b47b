"""Where the settings' secrets come from: which file holds each, and whether it stands there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from ..settings.files import read_dotenv
from ..settings.paths import LEAVES, get
from ..settings.report import Report
from .subject import Subject

_URL_PASSWORD = re.compile(r"^[\w+.-]+://[^/?#@]*:([^/?#@]+)@")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where one secret comes from.

    Attributes:
        path: its setting.
        values: its value, or its values where it is a list; a URL's is the password in it.
        file: the file that holds it, where one does.
        plain: whether it stands in a configuration file or in the code itself.
    """

    path: str
    values: tuple[str, ...]
    file: Path | None
    plain: bool


def secret_origins(subject: Subject) -> list[Origin]:
    """Return every secret that is set, and where it comes from."""
    reader = _Reader(subject)
    return [reader.origin(path, values) for path, values in _given(subject)]


def _given(subject: Subject) -> Iterator[tuple[str, tuple[str, ...]]]:
    for path, leaf in LEAVES.items():
        if not leaf.is_secret:
            continue
        value = get(subject.settings, path)
        secrets = value if isinstance(value, tuple) else (value,)
        texts = [one.get_secret_value() for one in secrets if isinstance(one, SecretStr)]
        if path.endswith("url"):
            texts = [match[1] for match in map(_URL_PASSWORD.match, texts) if match]
        if texts:
            yield path, tuple(texts)


class _Reader:
    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._folder = subject.folder
        self._dotenv_file: Path | None = None
        self._config_file: Path | None = None
        for file in subject.state.loaded.files:
            absolute = subject.folder / file
            if file.name == ".env":
                self._dotenv_file = absolute
            else:
                self._config_file = absolute
        self._dotenv: Mapping[str, str] = {}
        if self._dotenv_file is not None:
            self._dotenv = read_dotenv(self._dotenv_file, ".env", Report())

    def origin(self, path: str, values: tuple[str, ...]) -> Origin:
        source, _, variable = self._subject.source(path).rpartition(" ")
        if not variable.startswith(("M9M_", "N8N_")):
            source, variable = self._subject.source(path), ""
        references = self._subject.state.loaded.references.get(path, ())
        if references:
            return Origin(path, values, self._referred(references), False)
        if source in ("settings=", "app.config"):
            return Origin(path, values, None, not self._in_environment(values))
        if variable.endswith("_FILE"):
            name = os.environ.get(variable) or self._dotenv.get(variable)
            return Origin(path, values, self._folder / name if name else None, False)
        if source.endswith(".env"):
            return Origin(path, values, self._dotenv_file, False)
        if self._config_file is None or variable:
            return Origin(path, values, None, False)
        return Origin(path, values, self._config_file, True)

    def _referred(self, references: Iterable[str]) -> Path | None:
        """Return the file that holds what is referred to, where one does."""
        for reference in references:
            name = reference[2:-1]
            if name.startswith("file:"):
                return self._folder / name.removeprefix("file:")
            if name in self._dotenv:
                return self._dotenv_file
        return None

    def _in_environment(self, values: tuple[str, ...]) -> bool:
        known = {*os.environ.values(), *self._dotenv.values()}
        return all(value in known for value in values)
