"""The JSON Schema of `config.yaml`, for completion and checks in editors."""

from __future__ import annotations

from typing import Any

from .m9m import IGNORED
from .models import Settings

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REFERENCE = {"type": "string", "pattern": r"\$\{"}
_NULL = {"type": "null"}
_ANNOTATIONS = ("description", "default")


def json_schema() -> dict[str, Any]:
    """Make the JSON Schema (draft 2020-12) of `config.yaml`.

    It accepts a reference such as `${NAME}` for any value, `null` for a section whose keys are all
    commented out, and the settings that only m9m uses.
    """
    schema = Settings.model_json_schema()
    definitions = schema["$defs"]
    _add_m9m_keys(schema, definitions)
    for section in (schema, *definitions.values()):
        properties = section.get("properties", {})
        for name, value in properties.items():
            properties[name] = _key_schema(value, definitions)
    return {"$schema": _DIALECT, **schema}


def _add_m9m_keys(schema: dict[str, Any], definitions: dict[str, Any]) -> None:
    for path in sorted(IGNORED):
        *parents, name = path.split(".")
        section = schema
        for parent in parents:
            section = _resolve(section["properties"][parent], definitions)
        section["properties"][name] = {"description": "Used by m9m only; flask-m9m ignores it."}


def _resolve(value: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the definition that a schema references, or else the schema itself."""
    if "$ref" not in value:
        return value
    definition: dict[str, Any] = definitions[value["$ref"].rpartition("/")[2]]
    return definition


def _key_schema(value: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return a key's schema that also accepts a reference for each single value."""
    annotations = {key: value[key] for key in _ANNOTATIONS if key in value}
    rest = {key: part for key, part in value.items() if key not in (*_ANNOTATIONS, "title")}
    if _resolve(value, definitions).get("type") == "object":
        return {"anyOf": [rest, _NULL]}
    if not rest or rest == {"type": "string"}:
        return {**annotations, **rest}
    if rest.get("type") == "array":
        return {**annotations, **rest, "items": _key_schema(rest["items"], definitions)}
    alternatives = rest.pop("anyOf", None) or [rest]
    return {**annotations, "anyOf": [*alternatives, _REFERENCE]}
