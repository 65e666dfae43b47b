"""The JSON Schema of `config.yaml`, by which editors complete and check it."""

from __future__ import annotations

from typing import Any

from .m9m import PASSED_OVER
from .models import Settings

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REFERENCE = {"type": "string", "pattern": r"\$\{"}
_EMPTY = {"type": "null"}
_ABOUT = ("description", "default")


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of `config.yaml`.

    It accepts `${…}` wherever a value may stand, sections whose every key is commented out, and
    m9m's own settings.
    """
    schema = Settings.model_json_schema()
    definitions = schema["$defs"]
    _accept_m9m(schema, definitions)
    for section in (schema, *definitions.values()):
        properties = section.get("properties", {})
        for name, value in properties.items():
            properties[name] = _property(value, definitions)
    return {"$schema": _DIALECT, **schema}


def _accept_m9m(schema: dict[str, Any], definitions: dict[str, Any]) -> None:
    for path in sorted(PASSED_OVER):
        *parents, name = path.split(".")
        section = schema
        for parent in parents:
            section = _target(section["properties"][parent], definitions)
        section["properties"][name] = {"description": "m9m's own; passed over here."}


def _target(value: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the definition that a schema refers to, or the schema itself."""
    if "$ref" not in value:
        return value
    definition: dict[str, Any] = definitions[value["$ref"].rpartition("/")[2]]
    return definition


def _property(value: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return a key's schema, which takes a reference in place of each single value."""
    about = {key: value[key] for key in _ABOUT if key in value}
    rest = {key: part for key, part in value.items() if key not in (*_ABOUT, "title")}
    if _target(value, definitions).get("type") == "object":
        return {"anyOf": [rest, _EMPTY]}
    if not rest or rest == {"type": "string"}:
        return {**about, **rest}
    if rest.get("type") == "array":
        return {**about, **rest, "items": _property(rest["items"], definitions)}
    alternatives = rest.pop("anyOf", None) or [rest]
    return {**about, "anyOf": [*alternatives, _REFERENCE]}
