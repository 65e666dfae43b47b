"""`${NAME}`, `${NAME:-default}`, `${file:/path}` and the escape `$${` in the values of settings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

_FORMS = 'write ${NAME}, ${NAME:-default} or ${file:/path}, and "$${" for a literal "${"'
_REFERENCE = re.compile(
    r"(?P<escape>\$\$\{)|\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>(?:(?!\$\{)[^}])*))?"
    r"|file:(?P<file>[^}]+))\}|(?P<bad>\$\{)"
)
_LARGEST = 65_536
_DEEPEST = 20


class InterpolationError(ValueError):
    """A value cannot be completed.

    Attributes:
        found: what is in the way; never a value.
        accepted: what to do about it.
    """

    def __init__(self, found: str, accepted: str) -> None:
        super().__init__(f"{found}; {accepted}")
        self.found = found
        self.accepted = accepted


class Interpolator:
    """Completes values from the environment and `.env`.

    What comes from the environment or from a file is taken literally. What comes from `.env` is
    completed in turn, as it is where `.env` gives a setting directly.

    Args:
        environ: the environment, which wins.
        dotenv: what `.env` says.
        directory: where a relative `${file:}` starts.
    """

    def __init__(
        self, environ: Mapping[str, str], dotenv: Mapping[str, str], directory: Path
    ) -> None:
        self._environ = environ
        self._dotenv = dotenv
        self._directory = directory
        self._completed: dict[str, str] = {}

    def expand(self, text: str, _within: tuple[str, ...] = ()) -> str:
        """Return a value with every reference replaced.

        Raises:
            InterpolationError: a name is not set, a file cannot be read, or a reference is
                written in no known way.
        """
        if "${" not in text:
            return text
        expanded = _REFERENCE.sub(lambda match: self._replace(match, _within), text)
        if len(expanded) > _LARGEST:
            raise InterpolationError("more than 64 KiB of text", "refer to less")
        return expanded

    def references(self, value: object) -> Iterator[str]:
        """Yield the references in a text, or in the texts of a list, that give something to it.

        One that is not set gives nothing: what stands there instead is its default.
        """
        for text in value if isinstance(value, list | tuple) else (value,):
            for match in _REFERENCE.finditer(text) if isinstance(text, str) else ():
                name = match["name"]
                if match["file"] or (name and self._look_up(name, ())):
                    yield f"${{{name or 'file:' + match['file']}}}"

    def _replace(self, match: re.Match[str], within: tuple[str, ...]) -> str:
        if match["escape"]:
            return "${"
        if match["bad"]:
            raise InterpolationError("a reference that cannot be read", _FORMS)
        if match["file"]:
            return read_literal(self._directory, match["file"])
        name, default = match["name"], match["default"]
        value = self._look_up(name, within)
        if default is not None:  # as in a shell, an empty value gives way to the default too
            return value or default
        if value is None:
            raise InterpolationError(
                f"${{{name}}} is not set", f"set {name}, or write ${{{name}:-default}}"
            )
        return value

    def _look_up(self, name: str, within: tuple[str, ...]) -> str | None:
        if name in self._environ:
            return self._environ[name]
        if name in self._completed:
            return self._completed[name]
        if name not in self._dotenv or name in within:
            return None
        if len(within) == _DEEPEST:
            raise InterpolationError(f"more than {_DEEPEST} references deep", "refer more directly")
        value = self._completed[name] = self.expand(self._dotenv[name], (*within, name))
        return value


def read_literal(directory: Path, name: str) -> str:
    """Return what a secret's file says, without the line end at its end.

    Args:
        directory: where a relative name starts.
        name: the file's.

    Raises:
        InterpolationError: it cannot be read, is longer than 64 KiB, or is not UTF-8.
    """
    path = directory / name
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        shown = ascii(str(path))[1:-1] if _is_a_path(path, name) else "a file"
        raise InterpolationError(f"{shown}: {reason}", "name a readable file") from None
    if len(content) > _LARGEST:
        raise InterpolationError("a file of more than 64 KiB", "name a smaller one")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise InterpolationError("a file that is not UTF-8", "write it as text") from None
    return text.removesuffix("\n").removesuffix("\r")


def _is_a_path(path: Path, name: str) -> bool:
    """Tell a path from a secret that was given in its place by mistake, and is not to be shown."""
    try:
        return "/" in name and path.parent.is_dir()
    except (OSError, ValueError):
        return False
