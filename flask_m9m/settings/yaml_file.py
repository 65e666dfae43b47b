"""The configuration file: YAML, one mapping, no key twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from .wording import quoted

_LARGEST = 1_048_576
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class UnreadableFile(ValueError):
    """A file holds no settings; the message quotes nothing of it but keys."""


def read_mapping(path: Path) -> dict[Any, Any]:
    """Return what a file says.

    Raises:
        OSError: it cannot be read.
        UnreadableFile: it is too large, is not UTF-8 or YAML, has a key twice, or is no mapping.
    """
    with path.open("rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise UnreadableFile("larger than 1 MiB")
    try:
        document = _parse(content.decode("utf-8-sig"))
    except UnreadableFile:
        raise
    except UnicodeDecodeError as error:
        raise UnreadableFile(f"not UTF-8 at byte {error.start}") from None
    except yaml.YAMLError as error:  # its own message quotes the text, which may be a secret
        raise UnreadableFile(f"not valid YAML{_where(error)}") from None
    except (ValueError, OverflowError, RecursionError):
        raise UnreadableFile("a value that cannot be read") from None
    if not isinstance(document, dict):
        raise UnreadableFile("not a mapping of settings")
    return document


def _parse(text: str) -> object:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        twice = next(_duplicates(node, set()), None)
        if twice is not None:
            key = quoted(twice.value)
            raise UnreadableFile(
                f"the key {key} for the second time{_where(twice)}, which belongs to the first"
            )
        return {} if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


def _duplicates(node: Any, visited: set[int]) -> Iterator[Any]:
    """Yield each key node that repeats an earlier key of its mapping."""
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


def _where(subject: Any) -> str:
    mark = getattr(subject, "problem_mark", None) or getattr(subject, "start_mark", None)
    return f" at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
