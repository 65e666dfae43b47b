"""The report of a settings load: values with their sources, problems and warnings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from ..errors import Problem
from .interpolation import InterpolationError


class SourcedValue(NamedTuple):
    """A value and its source.

    Attributes:
        value: the value, with its references replaced.
        source: the source's name in messages, such as `environment M9M_JWT_SECRET`.
        references: the references that the source's text contains, such as `${NAME}`.
    """

    value: object
    source: str
    references: tuple[str, ...] = ()


@dataclass(slots=True)
class SourcesReport:
    """The results of reading the sources so far.

    Attributes:
        values: the value of each path, from the last source that sets it.
        problems: the problems that stop the start.
        warnings: lines to log; they do not stop the start.
        ignored_sections: names of known sections in ignored files, by the file.
        failed: the problems of each path's last value. Another source's value replaces them.
    """

    values: dict[str, SourcedValue] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    ignored_sections: dict[str, tuple[str, ...]] = field(default_factory=dict)
    failed: dict[str, list[Problem]] = field(default_factory=dict)

    def record_value(
        self,
        path: str,
        source: str,
        read: Callable[[], object],
        references: Callable[[], Iterable[str]],
        *,
        is_reference: bool = False,
        secret: bool = False,
    ) -> None:
        """Record a path's value and its references, or the problem that reading it raises.

        Args:
            path: the setting's dotted path.
            source: the source's name in messages.
            read: returns the value; raises `InterpolationError`.
            references: returns the references in the value's text.
            is_reference: whether the value's text consists of references alone.
            secret: whether the value is a secret, which must have no default in a file.
        """
        try:
            value = read()
            unique = tuple(dict.fromkeys(references()))
            if value in ("", []) and is_reference:
                # An empty variable is not set, wherever it is named. A secret has no default.
                if not secret:
                    return
                raise InterpolationError("a reference to what is empty", "set it")
        except InterpolationError as error:
            accepted = error.accepted if secret else error.accepted + error.otherwise
            self.record_failure(path, error.found, accepted, source)
        else:
            self.values[path] = SourcedValue(value, source, unique)
            self.failed.pop(path, None)

    def record_failure(
        self, path: str, found: str, accepted: str, source: str, index: str = ""
    ) -> None:
        """Record a problem of a path's value, or of the item at `index` such as `[0]`."""
        problem = Problem(path + index, found, accepted, source)
        self.failed.setdefault(path, []).append(problem)

    def add_problem(self, path: str, found: str, accepted: str, source: str = "") -> None:
        """Add a problem that stops the start and that no other source can correct."""
        self.problems.append(Problem(path, found, accepted, source))

    def all_problems(self) -> list[Problem]:
        """Return every problem that stops the start, sorted by path."""
        failed = (problem for problems in self.failed.values() for problem in problems)
        return sorted((*self.problems, *failed), key=lambda problem: problem.path)
