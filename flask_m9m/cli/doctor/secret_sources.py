"""Secret sources: the file, variable or code that each secret of the settings comes from."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from ...settings.files import read_dotenv
from ...settings.paths import LEAVES, get
from ...settings.report import SourcesReport
from .subject import Subject

_URL_PASSWORD = re.compile(r"^[\w+.-]+://[^/?#@]*:([^/?#@]+)@")


@dataclass(frozen=True, slots=True)
class SecretSource:
    """Where a secret comes from.

    Attributes:
        path: the path of its setting.
        values: its value, or the values of a list; of a URL, the password in it.
        file: the file that contains it; `None` if it comes from elsewhere.
        plain: whether it is written in the configuration file or in the code.
    """

    path: str
    values: tuple[str, ...]
    file: Path | None
    plain: bool


def secret_sources(subject: Subject) -> list[SecretSource]:
    """List the source of every secret that is set."""
    reader = _Reader(subject)
    return [reader.source_of(path, values) for path, values in _secrets(subject)]


def _secrets(subject: Subject) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the path and the values of every secret that is set."""
    for path, leaf in LEAVES.items():
        if not leaf.is_secret:
            continue
        value = get(subject.settings, path)
        secrets = value if isinstance(value, tuple) else (value,)
        texts = [secret.get_secret_value() for secret in secrets if isinstance(secret, SecretStr)]
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
            self._dotenv = read_dotenv(self._dotenv_file, ".env", SourcesReport())

    def source_of(self, path: str, values: tuple[str, ...]) -> SecretSource:
        place, _, variable = self._subject.source(path).rpartition(" ")
        if not variable.startswith(("M9M_", "N8N_")):
            place, variable = self._subject.source(path), ""
        references = self._subject.state.loaded.references.get(path, ())
        if references:
            return SecretSource(path, values, self._file_of(references), False)
        if place in ("settings=", "app.config"):
            return SecretSource(path, values, None, not self._in_environment(values))
        if variable.endswith("_FILE"):
            name = os.environ.get(variable) or self._dotenv.get(variable)
            return SecretSource(path, values, self._folder / name if name else None, False)
        if place.endswith(".env"):
            return SecretSource(path, values, self._dotenv_file, False)
        if self._config_file is None or variable:
            return SecretSource(path, values, None, False)
        return SecretSource(path, values, self._config_file, True)

    def _file_of(self, references: Iterable[str]) -> Path | None:
        """Find the file that a reference such as `${NAME}` or `${file:PATH}` reads from."""
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
