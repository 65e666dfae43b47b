"""Parsing the YAML configuration file: one mapping without duplicate keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from .wording import quoted

_MAX_BYTES = 1_048_576
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class UnreadableFile(ValueError):
    """A file cannot be used as settings; the message quotes only keys from it."""


def read_mapping(path: Path) -> dict[Any, Any]:
    """Parse a YAML file.

    Args:
        path: a file of at most 1 MiB in UTF-8.

    Returns:
        Its top-level mapping; an empty mapping for an empty document.

    Raises:
        OSError: the file cannot be read.
        UnreadableFile: the file is too large, is not UTF-8 or YAML, repeats a key, or is not a
            mapping.
    """
    with path.open("rb") as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise UnreadableFile("larger than 1 MiB")
    text = ""
    try:
        text = content.decode("utf-8-sig")
        document = _parse(text)
    except UnreadableFile:
        raise
    except UnicodeDecodeError as error:
        raise UnreadableFile(f"not UTF-8 at byte {error.start}") from None
    except yaml.YAMLError as error:  # its message quotes the text, which may be a secret
        raise UnreadableFile(f"not valid YAML{_cause(error, text)}") from None
    except (ValueError, OverflowError, RecursionError):
        raise UnreadableFile("a value that cannot be read") from None
    if not isinstance(document, dict):
        raise UnreadableFile("not a mapping of settings")
    return document


def _parse(text: str) -> object:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        repeated = next(_duplicates(node, set()), None)
        if repeated is not None:
            key = quoted(repeated.value)
            raise UnreadableFile(
                f"the key {key} is repeated{_position(repeated)} (merge it into the first)"
            )
        return {} if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


def _duplicates(node: Any, visited: set[int]) -> Iterator[Any]:
    """Yield each key node that repeats an earlier key of the same mapping."""
    if not isinstance(node, yaml.CollectionNode) or id(node) in visited:
        return
    visited.add(id(node))
    if not isinstance(node, yaml.MappingNode):
        for item in node.value:
            yield from _duplicates(item, visited)
        return
    keys = set()
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode):
            if (key.tag, key.value) in keys:
                yield key
            keys.add((key.tag, key.value))
        yield from _duplicates(value, visited)


def _cause(error: Any, text: str) -> str:
    """Describe what is wrong and where, without any text of the file."""
    problem, mark = str(getattr(error, "problem", "")), getattr(error, "problem_mark", None)
    if "quoted scalar" in str(getattr(error, "context", "")):
        return f": the quote that is opened{_at(error.context_mark)} is not closed"
    if "cannot start any token" in problem and mark is not None:
        lines = text.splitlines()
        line = lines[mark.line] if mark.line < len(lines) else ""
        if line[mark.column : mark.column + 1] == "\t":
            return f": a tab{_at(mark)}; indent with blanks"
        return f": a sign{_at(mark)} that cannot begin a value; put the value in quotes"
    if "mapping values are not allowed" in problem:
        return f": a colon{_at(mark)} in a value; put the value in quotes"
    return _position(error)


def _at(mark: Any) -> str:
    return f" at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""


def _position(subject: Any) -> str:
    mark = getattr(subject, "problem_mark", None) or getattr(subject, "start_mark", None)
    return _at(mark)
