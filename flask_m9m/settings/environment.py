"""Settings from environment variables, `.env`, and flat `M9M_…` keys of `app.config`."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from os import PathLike, fspath
from pathlib import Path

from .interpolation import InterpolationError, Interpolator, is_reference, read_literal
from .m9m import N8N_NAMES, SHORT_NAMES, is_ignored
from .paths import LEAVES, Leaf
from .report import SourcesReport
from .wording import quoted

CONFIG = "M9M_CONFIG"

_FILE_SUFFIX = "_FILE"
_SERVICE_LINK = re.compile(r"\w+_(SERVICE_(HOST|PORT)(_\w+)?|PORT_[0-9]+_\w+)")
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable that sets a setting.

    Attributes:
        name: the variable's name.
        leaf: the setting.
        names_file: whether the variable's value is the path of a file with the setting's value.
    """

    name: str
    leaf: Leaf
    names_file: bool


def _variables(names: Iterable[tuple[str, str]]) -> dict[str, Variable]:
    known: dict[str, Variable] = {}
    for name, path in names:
        leaf = LEAVES[path]
        known[name] = Variable(name, leaf, False)
        if leaf.is_secret:
            known[name + _FILE_SUFFIX] = Variable(name + _FILE_SUFFIX, leaf, True)
    return known


_KNOWN = _variables(
    [*((leaf.variable, leaf.path) for leaf in LEAVES.values()), *SHORT_NAMES.items()]
)
_N8N = _variables(N8N_NAMES.items())


def _alternative_names() -> dict[str, str]:
    """Map names that users may guess, such as `M9M_CORS_MAX_AGE`, to the real names."""
    names = {name: name for name in (*_KNOWN, CONFIG)}
    for leaf in LEAVES.values():
        parts = leaf.path.upper().split(".")
        for start in range(1, len(parts) - 1):
            names.setdefault("_".join(("M9M", *parts[start:])), leaf.variable)
    return names


def _unique_key_names() -> dict[str, str]:
    """Map names made of a unique last key, such as `M9M_TRUSTED_PROXIES`, to the real names."""
    counts = Counter(path.rpartition(".")[2] for path in LEAVES)
    return {
        f"M9M_{path.rpartition('.')[2].upper()}": leaf.variable
        for path, leaf in LEAVES.items()
        if counts[path.rpartition(".")[2]] == 1
    }


_ALTERNATIVE_NAMES = _alternative_names()
_UNIQUE_KEY_NAMES = _unique_key_names()


def is_service_link(name: str, value: object) -> bool:
    """Tell whether a variable is a Kubernetes service link: the address of a service."""
    if name.endswith("_PORT") and isinstance(value, str) and _SERVICE_ADDRESS.match(value):
        return True
    return name not in _KNOWN and _SERVICE_LINK.fullmatch(name) is not None


class NamedSettings:
    """Reads settings from variables.

    Args:
        interpolator: replaces the references in their values.
        directory: the folder to which the path in a `…_FILE` variable is relative.
        report: receives values, problems and warnings.
    """

    def __init__(self, interpolator: Interpolator, directory: Path, report: SourcesReport) -> None:
        self._interpolator = interpolator
        self._directory = directory
        self._report = report

    def read(self, variables: Mapping[str, object], source: str) -> None:
        """Read m9m's variables, and report unknown `M9M_` names."""
        self._read(_KNOWN, variables, source)
        ignored = []
        for name, value in variables.items():
            if not str(name).startswith("M9M_") or name in _KNOWN or name == CONFIG:
                continue
            if name.startswith("M9M_TEST_") or is_service_link(name, value):
                continue
            if is_ignored(name):
                ignored.append(name)
            elif value != "":
                self._report_unknown(name, source)
        if ignored:
            names = ", ".join(quoted(name)[1:-1] for name in sorted(ignored))
            self._report.warnings.append(f"{source}: ignored settings that only m9m uses: {names}")

    def read_n8n(self, variables: Mapping[str, object], source: str, *, secrets: bool) -> None:
        """Read n8n's variables: those for secrets, or the others."""
        names = {name: known for name, known in _N8N.items() if known.leaf.is_secret is secrets}
        self._read(names, variables, source)

    def _read(
        self, known: Mapping[str, Variable], variables: Mapping[str, object], source: str
    ) -> None:
        given: defaultdict[str, list[Variable]] = defaultdict(list)
        for name, variable in known.items():
            if name in variables and not is_service_link(name, variables[name]):
                given[variable.leaf.path].append(variable)
        for path, candidates in given.items():
            self._read_setting(path, candidates, variables, source)

    def _read_setting(
        self, path: str, candidates: list[Variable], variables: Mapping[str, object], source: str
    ) -> None:
        """Read a setting from the variable that sets it; an empty one counts as not set."""
        filled = [variable for variable in candidates if variables[variable.name] != ""]
        if not filled:
            return
        if len({(variable.names_file, str(variables[variable.name])) for variable in filled}) > 1:
            names = " and ".join(variable.name for variable in filled)
            self._report.record_failure(
                path, f"both {names} are set", "set only one of them", source
            )
            return
        variable = filled[0]
        value = variables[variable.name]
        self._report.record_value(
            path,
            f"{source} {variable.name}".strip(),
            lambda: self._read_value(variable, value),
            lambda: self._interpolator.references(value),
            is_reference=is_reference(value),
            secret=variable.leaf.is_secret,
        )

    def _read_value(self, variable: Variable, value: object) -> object:
        leaf = variable.leaf
        if variable.names_file:
            path = self._interpolator.expand(str(value))
            content = read_literal(self._directory, path)
            return _parse_secrets_file(content) if leaf.is_list else content
        if isinstance(value, str) and leaf.is_list:
            if value.lstrip().startswith("["):
                return expand_value(_parse_json_list(value), self._interpolator)
            return parse_list(self._interpolator.expand(value))
        return expand_value(value, self._interpolator)

    def _report_unknown(self, name: str, source: str) -> None:
        near = get_close_matches(name, _ALTERNATIVE_NAMES, n=1, cutoff=0.76)
        meant = _UNIQUE_KEY_NAMES.get(name) or (_ALTERNATIVE_NAMES[near[0]] if near else None)
        shown = quoted(name)[1:-1]
        if meant:
            self._report.add_problem(shown, "not a setting", f"did you mean {meant}?", source)
        else:
            self._report.warnings.append(f"{source}: {shown} is not a setting")


def expand_value(value: object, interpolator: Interpolator) -> object:
    """Replace the references in a text, or in the texts of a list."""
    if isinstance(value, str):
        return interpolator.expand(value)
    if isinstance(value, PathLike):
        return fspath(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [interpolator.expand(item) if isinstance(item, str) else item for item in value]
    return value


def parse_list(text: str) -> list[object]:
    """Parse a list in a text: items with commas between them, or a JSON list.

    Raises:
        InterpolationError: the text begins with a bracket and is not a JSON list.
    """
    if text.lstrip().startswith("["):
        return _parse_json_list(text)
    return [part.strip() for part in text.split(",") if part.strip()]


def _parse_json_list(text: str) -> list[object]:
    try:
        items = json.loads(text)
    except (ValueError, RecursionError):
        items = None
    if isinstance(items, list):
        return items
    raise InterpolationError("a list that is not valid JSON", 'write a,b or ["a", "b"]')


def _parse_secrets_file(content: str) -> list[object]:
    """Parse a file of secrets: a JSON list, or one secret a line."""
    if content.lstrip().startswith("["):
        return _parse_json_list(content)
    return [line for line in content.splitlines() if line]
