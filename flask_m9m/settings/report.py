"""What reading the settings brings to light, source by source."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from ..errors import Problem
from .interpolation import InterpolationError


class Given(NamedTuple):
    """A value, and where it came from in words (`environment M9M_JWT_SECRET`).

    Attributes:
        value: what it is.
        source: the source that gives it.
        references: what that refers to for it: `${NAME}`.
    """

    value: object
    source: str
    references: tuple[str, ...] = ()


@dataclass(slots=True)
class Report:
    """What has been found so far.

    Attributes:
        values: what each path was given, the last source's word.
        problems: what stops the start.
        warnings: what does not.
        passed_over: names of sections in files that the search passed over, by the file.
        failed: what is wrong with a path's last word: nothing else follows from it.
    """

    values: dict[str, Given] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    passed_over: dict[str, tuple[str, ...]] = field(default_factory=dict)
    failed: dict[str, list[Problem]] = field(default_factory=dict)

    def give(
        self,
        path: str,
        source: str,
        read: Callable[[], object],
        references: Callable[[], Iterable[str]],
    ) -> None:
        """Note a path's value and what it refers to, or the problem that reading it meets."""
        try:
            value = read()
            referred_to = tuple(dict.fromkeys(references()))
        except InterpolationError as error:
            self.fail(path, error.found, error.accepted, source)
        else:
            self.values[path] = Given(value, source, referred_to)
            self.failed.pop(path, None)

    def fail(self, path: str, found: str, accepted: str, source: str, index: str = "") -> None:
        """Note what is wrong with a path's value, or with one in its list."""
        problem = Problem(path + index, found, accepted, source)
        self.failed.setdefault(path, []).append(problem)

    def problem(self, path: str, found: str, accepted: str, source: str = "") -> None:
        """Note something that stops the start, whatever other sources say."""
        self.problems.append(Problem(path, found, accepted, source))

    def all_problems(self) -> list[Problem]:
        """Return all that stops the start, in the order of the paths."""
        failed = (problem for problems in self.failed.values() for problem in problems)
        return sorted((*self.problems, *failed), key=lambda problem: problem.path)
