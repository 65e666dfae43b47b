"""The dotted path of every setting, and what has to be known about each to read and show it."""

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
    """One setting.

    Attributes:
        path: its dotted path.
        default: what holds where no source gives a value.
        is_list: it takes several values.
        is_secret: its value is never shown.
        is_text: an empty text is a value of its own, and not the absence of one.
        bounds: the smallest and the largest number that it takes.
    """

    path: str
    default: Any
    is_list: bool
    is_secret: bool
    is_text: bool
    bounds: tuple[Any, Any]

    @property
    def variable(self) -> str:
        """The environment variable that is named after the path."""
        return "M9M_" + self.path.upper().replace(".", "_")


def _types(annotation: Any) -> Iterator[Any]:
    """Yield every type that an annotation mentions."""
    arguments = get_args(annotation)
    yield get_origin(annotation) or annotation
    for argument in arguments:
        yield from _types(argument)


def _leaf(path: str, info: FieldInfo) -> Leaf:
    types = set(_types(info.annotation))
    return Leaf(
        path=path,
        default=info.default,
        is_list=tuple in types,
        is_secret=SecretStr in types,
        is_text=bool(types & {str, SecretStr}) and tuple not in types,
        bounds=(
            next((rule.ge for rule in info.metadata if hasattr(rule, "ge")), None),
            next((rule.le for rule in info.metadata if hasattr(rule, "le")), None),
        ),
    )


def _walk(model: type[Section], prefix: str) -> Iterator[tuple[str, Leaf | None]]:
    """Yield every path below a section, with its leaf, or with nothing where it is a section."""
    for name, info in model.model_fields.items():
        path = prefix + name
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            yield path, None
            yield from _walk(info.annotation, f"{path}.")
        else:
            yield path, _leaf(path, info)


_PATHS = dict(_walk(Settings, ""))
SECTIONS = frozenset(path for path, leaf in _PATHS.items() if leaf is None)
LEAVES: Mapping[str, Leaf] = MappingProxyType(
    {path: leaf for path, leaf in _PATHS.items() if leaf is not None}
)


def nearest_path(path: str) -> str | None:
    """Return the known path that an unknown one was probably meant to be."""
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
    """Return the value at a path, such as `security.cors.max_age`.

    Raises:
        KeyError: there is no such path.
    """
    if path not in _PATHS:
        raise KeyError(path)
    value: Any = settings
    for name in path.split("."):
        value = getattr(value, name)
    return value
