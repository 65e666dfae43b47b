"""The dotted paths of all settings, their environment variables and properties; path look-up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from .models import Settings
from .section import Section


@dataclass(frozen=True, slots=True)
class Leaf:
    """A setting: a key with a value, as opposed to a section.

    Attributes:
        path: the dotted path.
        default: the default value.
        is_list: whether the value is a list.
        is_secret: whether the value must never be shown.
        is_duration: whether the value is a number of seconds.
        bounds: the smallest and the largest accepted number, or `None` for each.
    """

    path: str
    default: Any
    is_list: bool
    is_secret: bool
    is_duration: bool
    bounds: tuple[Any, Any]

    @property
    def variable(self) -> str:
        """The environment variable named after the path, such as `M9M_SERVER_PORT`."""
        return "M9M_" + self.path.upper().replace(".", "_")


def _types(annotation: Any) -> Iterator[Any]:
    """Yield every type that occurs in an annotation."""
    arguments = get_args(annotation)
    yield get_origin(annotation) or annotation
    for argument in arguments:
        yield from _types(argument)


def _make_leaf(path: str, info: FieldInfo) -> Leaf:
    types = set(_types(info.annotation))
    return Leaf(
        path=path,
        default=info.default,
        is_list=tuple in types,
        is_secret=SecretStr in types,
        is_duration=float in types,
        bounds=(
            next((rule.ge for rule in info.metadata if hasattr(rule, "ge")), None),
            next((rule.le for rule in info.metadata if hasattr(rule, "le")), None),
        ),
    )


def _walk_section(model: type[Section], prefix: str) -> Iterator[tuple[str, Leaf | None]]:
    """Yield every path below a section with its leaf, or with `None` for a section."""
    for name, info in model.model_fields.items():
        path = prefix + name
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            yield path, None
            yield from _walk_section(info.annotation, f"{path}.")
        else:
            yield path, _make_leaf(path, info)


_PATHS = dict(_walk_section(Settings, ""))
SECTIONS = frozenset(path for path, leaf in _PATHS.items() if leaf is None)
LEAVES: Mapping[str, Leaf] = MappingProxyType(
    {path: leaf for path, leaf in _PATHS.items() if leaf is not None}
)


def nearest_path(path: str) -> str | None:
    """Find the known path that an unknown path probably means.

    Returns:
        A path of a setting or a section; `None` if no path is similar.
    """
    joined = {known.replace(".", "_"): known for known in _PATHS}
    if path.replace(".", "_") in joined:  # security.jwt_secret
        return joined[path.replace(".", "_")]
    section, _, key = path.rpartition(".")
    prefix = f"{section}." if section else ""
    siblings = {
        known.removeprefix(prefix): known
        for known in _PATHS
        if known.startswith(prefix) and "." not in known.removeprefix(prefix)
    }
    for match in get_close_matches(key, siblings, n=1, cutoff=0.6):
        return siblings[match]
    elsewhere = {known.rpartition(".")[2]: known for known in _PATHS}
    for match in get_close_matches(key, elsewhere, n=1, cutoff=0.85):
        return elsewhere[match]
    return None


def get(settings: Settings, path: str) -> Any:
    """Return the value of a setting or a section.

    Args:
        settings: the settings.
        path: a dotted path, such as `security.cors.max_age`.

    Raises:
        KeyError: no setting or section has this path.
    """
    if path not in _PATHS:
        raise KeyError(path)
    value: Any = settings
    for name in path.split("."):
        value = getattr(value, name)
    return value
