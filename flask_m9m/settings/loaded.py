"""Loaded: the effective settings, with their sources and what a start says about them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import Problem
from .files import show_path
from .models import Settings

logger = logging.getLogger("flask_m9m")


@dataclass(frozen=True, slots=True)
class Loaded:
    """The effective settings and their sources.

    Attributes:
        settings: the effective settings.
        sources: the source of every setting's value, by path.
        warnings: lines to log; they contain no secrets.
        files: the files that were read.
        places: where a configuration file was looked for; empty if one was named.
        idle: problems of settings that have no effect, which stop a start.
        references: the references in a source's text, such as `${NAME}`, by path.
        ignored_sections: names of known sections in files that the search ignored, by the file.
    """

    settings: Settings
    sources: Mapping[str, str]
    warnings: tuple[str, ...]
    files: tuple[Path, ...]
    places: tuple[Path, ...]
    idle: tuple[Problem, ...]
    references: Mapping[str, tuple[str, ...]]
    ignored_sections: Mapping[str, tuple[str, ...]]

    def log(self) -> None:
        """Log which files were read, or where they were looked for, and the warnings."""
        logger.info("%s", self.origin)
        for warning in self.warnings:
            logger.warning("%s", warning)

    @property
    def origin(self) -> str:
        """A line about the files that were read, or where none was found."""
        if self.files:
            return f"settings read from {_listed(self.files)}"
        if self.places:
            folders = dict.fromkeys(path.parent for path in self.places if path.suffix == ".yml")
            others = [path for path in self.places if path.parent not in folders]
            return (
                "no settings file was found: looked for config.yaml, config.yml and .env in "
                f"{_listed(folders)}, and for {_listed(others)}"
            )
        return "no settings file was read"


def _listed(paths: Iterable[Path]) -> str:
    return ", ".join(show_path(path, Path()) for path in paths)
