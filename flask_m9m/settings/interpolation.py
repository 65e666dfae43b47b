"""Interpolation of `${NAME}`, `${NAME:-default}` and `${file:/path}` in settings' values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from .secret_files import read_regular_file

_FORMS = 'write ${NAME}, ${NAME:-default} or ${file:/path}, and "$${" for a literal "${"'
_REFERENCE = re.compile(
    r"(?P<escape>\$\$\{)|\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>(?:(?!\$\{)[^}])*))?"
    r"|file:(?P<file>[^}]+))\}|(?P<bad>\$\{)"
)
_MAX_BYTES = 65_536
_MAX_DEPTH = 20


class InterpolationError(ValueError):
    """A reference in a value cannot be replaced.

    Attributes:
        found: the cause; it never contains a value.
        accepted: the remedy.
        otherwise: another remedy, for values that are no secrets; it continues `accepted`.
    """

    def __init__(self, found: str, accepted: str, otherwise: str = "") -> None:
        super().__init__(f"{found}; {accepted}{otherwise}")
        self.found = found
        self.accepted = accepted
        self.otherwise = otherwise


class Interpolator:
    """Replaces references in values by text from the environment, `.env` and files.

    Text from the environment or from a file is literal. References in a value of `.env` are
    replaced in turn, as they are where `.env` sets a setting directly.

    Args:
        environ: the environment; it takes precedence over `.env`.
        dotenv: the raw values of `.env`.
        directory: the folder to which the path in `${file:path}` is relative.
    """

    def __init__(
        self, environ: Mapping[str, str], dotenv: Mapping[str, str], directory: Path
    ) -> None:
        self._environ = environ
        self._dotenv = dotenv
        self._directory = directory
        self._expanded: dict[str, str] = {}

    def expand(self, text: str, _outer: tuple[str, ...] = ()) -> str:
        """Replace every reference in a text; `$${` becomes a literal `${`.

        Raises:
            InterpolationError: a name is not set, a file cannot be read, a reference is
                malformed, references are nested too deep, or the result exceeds 64 KiB.
        """
        if "${" not in text:
            return text
        expanded = _REFERENCE.sub(lambda match: self._replace(match, _outer), text)
        if len(expanded) > _MAX_BYTES:
            raise InterpolationError(
                "more than 64 KiB of text after replacing references", "use shorter values"
            )
        return expanded

    def references(self, value: object) -> Iterator[str]:
        """Yield the references in a text, or in the texts of a list, that supply its value.

        A name that is not set is left out: its default supplies the value.
        """
        for text in value if isinstance(value, list | tuple) else (value,):
            for match in _REFERENCE.finditer(text) if isinstance(text, str) else ():
                name = match["name"]
                if match["file"] or (name and self._look_up(name, ())):
                    yield f"${{{name or 'file:' + match['file']}}}"

    def _replace(self, match: re.Match[str], outer: tuple[str, ...]) -> str:
        if match["escape"]:
            return "${"
        if match["bad"]:
            raise InterpolationError("a malformed reference", _FORMS)
        if match["file"]:
            return read_literal(self._directory, match["file"])
        name, default = match["name"], match["default"]
        value = self._look_up(name, outer)
        if default is not None:  # as in a shell, the default replaces an empty value too
            return value or default
        if value is None:
            found, otherwise = f"${{{name}}} is not set", f", or write ${{{name}:-default}}"
            raise InterpolationError(found, f"set {name}", otherwise)
        return value

    def _look_up(self, name: str, outer: tuple[str, ...]) -> str | None:
        if name in self._environ:
            return self._environ[name]
        if name in self._expanded:
            return self._expanded[name]
        if name not in self._dotenv or name in outer:
            return None
        if len(outer) == _MAX_DEPTH:
            raise InterpolationError(f"references nested more than {_MAX_DEPTH} deep", "use fewer")
        value = self._expanded[name] = self.expand(self._dotenv[name], (*outer, name))
        return value


def is_reference(value: object) -> bool:
    """Tell whether a text consists of references alone."""
    return isinstance(value, str) and "${" in value and not _REFERENCE.sub("", value).strip()


def read_literal(directory: Path, name: str) -> str:
    """Read a secret's file, without the line break at its end.

    Args:
        directory: the folder to which a relative name is relative.
        name: the file's path.

    Raises:
        InterpolationError: the file cannot be read, is no regular file, is longer than 64 KiB, or
            is not UTF-8.
    """
    path = directory / name
    try:
        content, _ = read_regular_file(path, _MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        shown = ascii(str(path))[1:-1] if _is_path(path, name) else "a file"
        raise InterpolationError(f"{shown}: {reason}", "name a readable file") from None
    if len(content) > _MAX_BYTES:
        raise InterpolationError("a file of more than 64 KiB", "name a smaller file")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise InterpolationError("a file that is not UTF-8", "save it as UTF-8 text") from None
    return text.removesuffix("\n").removesuffix("\r")


def _is_path(path: Path, name: str) -> bool:
    """Tell whether a name is a path, and not a secret given by mistake, which must stay hidden."""
    try:
        return "/" in name and path.parent.is_dir()
    except (OSError, ValueError):
        return False
