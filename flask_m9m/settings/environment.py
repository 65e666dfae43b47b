"""Settings by name: environment variables, `.env`, and flat `M9M_…` keys of `app.config`."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from os import PathLike, fspath
from pathlib import Path

from .interpolation import InterpolationError, Interpolator, read_literal
from .m9m import N8N_NAMES, SHORT_NAMES, is_passed_over
from .paths import LEAVES, Leaf
from .report import Report
from .wording import quoted

CONFIG = "M9M_CONFIG"

_FILE = "_FILE"
_SERVICE_LINK = re.compile(r"\w+_(SERVICE_(HOST|PORT)(_\w+)?|PORT_[0-9]+_\w+)")
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


@dataclass(frozen=True, slots=True)
class Variable:
    """A name that gives a setting, by its value or by a file's."""

    name: str
    leaf: Leaf
    names_file: bool


def _variables(names: Iterable[tuple[str, str]]) -> dict[str, Variable]:
    known: dict[str, Variable] = {}
    for name, path in names:
        leaf = LEAVES[path]
        known[name] = Variable(name, leaf, False)
        if leaf.is_secret:
            known[name + _FILE] = Variable(name + _FILE, leaf, True)
    return known


_KNOWN = _variables(
    [*((leaf.variable, leaf.path) for leaf in LEAVES.values()), *SHORT_NAMES.items()]
)
_N8N = _variables(N8N_NAMES.items())


def _spellings() -> dict[str, str]:
    """Return what a variable might be called, and its name: `M9M_CORS_MAX_AGE` is one, say."""
    spellings = {name: name for name in (*_KNOWN, CONFIG)}
    for leaf in LEAVES.values():
        parts = leaf.path.upper().split(".")
        for start in range(1, len(parts) - 1):
            spellings.setdefault("_".join(("M9M", *parts[start:])), leaf.variable)
    return spellings


def _last_words() -> dict[str, str]:
    """Return the last words of paths that only one path has: `M9M_TRUSTED_PROXIES`, say."""
    words = Counter(path.rpartition(".")[2] for path in LEAVES)
    return {
        f"M9M_{path.rpartition('.')[2].upper()}": leaf.variable
        for path, leaf in LEAVES.items()
        if words[path.rpartition(".")[2]] == 1
    }


_SPELLINGS = _spellings()
_LAST_WORDS = _last_words()


def is_service_link(name: str, value: object) -> bool:
    """Tell whether Kubernetes set a variable, to say where a service is."""
    if name.endswith("_PORT") and isinstance(value, str) and _SERVICE_ADDRESS.match(value):
        return True
    return name not in _KNOWN and _SERVICE_LINK.fullmatch(name) is not None


class NamedSettings:
    """Reads settings out of variables.

    Args:
        interpolator: completes their values.
        directory: where the relative path of a `…_FILE` starts.
        report: what is found goes here.
    """

    def __init__(self, interpolator: Interpolator, directory: Path, report: Report) -> None:
        self._interpolator = interpolator
        self._directory = directory
        self._report = report

    def read(self, variables: Mapping[str, object], source: str) -> None:
        """Read m9m's names, and name those that are unknown."""
        self._read(_KNOWN, variables, source)
        passed_over = []
        for name, value in variables.items():
            if not str(name).startswith("M9M_") or name in _KNOWN or name == CONFIG:
                continue
            if name.startswith("M9M_TEST_") or is_service_link(name, value):
                continue
            if is_passed_over(name):
                passed_over.append(name)
            else:
                self._unknown(name, source)
        if passed_over:
            names = ", ".join(sorted(passed_over))
            self._report.warnings.append(f"{source}: passed over, of use to m9m alone: {names}")

    def read_n8n(self, variables: Mapping[str, object], source: str, *, secrets: bool) -> None:
        """Read n8n's names, those of secrets or the others."""
        names = {name: known for name, known in _N8N.items() if known.leaf.is_secret is secrets}
        self._read(names, variables, source)

    def _read(
        self, known: Mapping[str, Variable], variables: Mapping[str, object], source: str
    ) -> None:
        given: defaultdict[str, list[Variable]] = defaultdict(list)
        for name, variable in known.items():
            if name in variables and not is_service_link(name, variables[name]):
                given[variable.leaf.path].append(variable)
        for path, found in given.items():
            self._read_one(path, found, variables, source)

    def _read_one(
        self, path: str, found: list[Variable], variables: Mapping[str, object], source: str
    ) -> None:
        """Take a setting from the one variable that gives it.

        An empty variable is none at all, except where it alone gives a setting that is a text.
        """
        filled = [variable for variable in found if variables[variable.name] != ""]
        if not filled and found[0].leaf.is_text:
            filled = [variable for variable in found if not variable.names_file][:1]
        if not filled:
            return
        if len({(variable.names_file, str(variables[variable.name])) for variable in filled}) > 1:
            names = " and ".join(variable.name for variable in filled)
            self._report.fail(path, f"both {names} are set", "set one of them", source)
            return
        variable = filled[0]
        value = variables[variable.name]
        self._report.give(
            path,
            f"{source} {variable.name}".strip(),
            lambda: self._value(variable, value),
            lambda: self._interpolator.references(value),
        )

    def _value(self, variable: Variable, value: object) -> object:
        leaf = variable.leaf
        if variable.names_file:
            path = self._interpolator.expand(str(value))
            content = read_literal(self._directory, path)
            return _lines(content) if leaf.is_list else content
        if isinstance(value, str) and leaf.is_list:
            if value.lstrip().startswith("["):
                return complete(_json_list(value), self._interpolator)
            parts = self._interpolator.expand(value).split(",")
            return [part.strip() for part in parts if part.strip()]
        return complete(value, self._interpolator)

    def _unknown(self, name: str, source: str) -> None:
        near = get_close_matches(name, _SPELLINGS, n=1, cutoff=0.76)
        meant = _LAST_WORDS.get(name) or (_SPELLINGS[near[0]] if near else None)
        if meant:
            self._report.problem(name, "not a setting", f"did you mean {meant}?", source)
        else:
            self._report.warnings.append(f"{source}: {quoted(name)[1:-1]} is not a setting")


def complete(value: object, interpolator: Interpolator) -> object:
    """Return a value with the references in its text, or in the texts of its list, replaced."""
    if isinstance(value, str):
        return interpolator.expand(value)
    if isinstance(value, PathLike):
        return fspath(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [interpolator.expand(item) if isinstance(item, str) else item for item in value]
    return value


def _json_list(text: str) -> list[object]:
    try:
        items = json.loads(text)
    except (ValueError, RecursionError):
        items = None
    if isinstance(items, list):
        return items
    raise InterpolationError("a list that is not JSON", 'write a,b or ["a", "b"]')


def _lines(content: str) -> list[object]:
    """Read a file of secrets: a JSON list, or one a line."""
    if content.lstrip().startswith("["):
        return _json_list(content)
    return [line for line in content.splitlines() if line]
