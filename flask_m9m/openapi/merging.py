"""Putting a fragment into a document."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

from .fragment import EXTENSION

_PARAMETER = re.compile(r"\{(\w+)\}")


def merge(
    spec: Mapping[str, Any], fragment: Mapping[str, Any], *, add: bool = False
) -> dict[str, Any]:
    """Return an OpenAPI document with a fragment from `m9m.openapi()` in it.

    Operations of the document keep what they say and the answers that they describe; `security`
    and `x-m9m` are the fragment's, and so are components of its names. Nothing is removed. Under
    OpenAPI 3.0, where only OAuth and OpenID Connect have scopes in `security`, they are left to
    `x-m9m`.

    Args:
        spec: the document, an OpenAPI 3 one; it stays as it is.
        fragment: what to merge into it.
        add: whether operations that the document does not have are added to it.

    Raises:
        ValueError: the document is no OpenAPI 3 one.
    """
    version = str(spec.get("openapi", ""))
    if not version.startswith("3."):
        found = f"openapi: {version!r}" if version else "no openapi field"
        raise ValueError(f"the document has {found}: it has to be OpenAPI 3.0 or later")
    merged, ours = deepcopy(dict(spec)), deepcopy(dict(fragment))
    components = merged.setdefault("components", {})
    for section, members in ours.get("components", {}).items():
        components.setdefault(section, {}).update(members)
    paths = merged.setdefault("paths", {})
    for path, item in ours.get("paths", {}).items():
        for method, operation in item.items():
            if version.split(".")[1] == "0":
                operation["security"] = _without_scopes(operation["security"])
            if method in paths.get(path, {}):
                _add_to(paths[path][method], operation)
            elif add:
                paths.setdefault(path, {})[method] = _complete(path, operation)
    return merged


def _without_scopes(security: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{scheme: [] for scheme in alternative} for alternative in security]


def _add_to(operation: dict[str, Any], ours: Mapping[str, Any]) -> None:
    responses = operation.setdefault("responses", {})
    described = {str(status) for status in responses}  # YAML reads them as numbers
    for status, answer in ours.get("responses", {}).items():
        if status not in described:
            responses[status] = answer
    operation["security"] = ours["security"]
    if EXTENSION in ours:
        operation[EXTENSION] = ours[EXTENSION]


def _complete(path: str, ours: dict[str, Any]) -> dict[str, Any]:
    """Return an operation with what it cannot do without, where there is nothing but ours."""
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(path)
    ]
    answers = {"default": {"description": "What the view answers."}, **ours.get("responses", {})}
    return {**({"parameters": parameters} if parameters else {}), **ours, "responses": answers}
