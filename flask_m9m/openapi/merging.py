"""Merging of a fragment into an OpenAPI document."""

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
    """Merge a fragment from `m9m.openapi()` into a copy of an OpenAPI document.

    Operations keep their content, including the responses that they describe. `security`, `x-m9m`
    and components with the fragment's names are replaced. Nothing is removed. In an OpenAPI 3.0
    document scopes are only in `x-m9m`, because `security` allows them only for OAuth and OpenID
    Connect there.

    Args:
        spec: the OpenAPI 3 document; it is not changed.
        fragment: the fragment; it is not changed.
        add: whether to add operations that only the fragment has.

    Returns:
        The merged document.

    Raises:
        ValueError: the document is not an OpenAPI 3 document.
    """
    version = str(spec.get("openapi", ""))
    if not version.startswith("3."):
        found = f"openapi: {version!r}" if version else "no openapi field"
        raise ValueError(f"spec must be an OpenAPI 3.0 or later document, found {found}")
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
    """Add the fragment's part of an operation to the document's."""
    responses = operation.setdefault("responses", {})
    described = {str(status) for status in responses}  # YAML parses statuses as numbers
    for status, response in ours.get("responses", {}).items():
        if status not in described:
            responses[status] = response
    operation["security"] = ours["security"]
    if EXTENSION in ours:
        operation[EXTENSION] = ours[EXTENSION]


def _complete(path: str, ours: dict[str, Any]) -> dict[str, Any]:
    """Complete an operation of the fragment with its path parameters and a default response."""
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(path)
    ]
    responses = {
        "default": {"description": "The response of the view."},
        **ours.get("responses", {}),
    }
    return {**({"parameters": parameters} if parameters else {}), **ours, "responses": responses}
