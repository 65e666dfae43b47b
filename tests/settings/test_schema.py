from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
import yaml

from flask_m9m.settings.paths import LEAVES, SECTIONS
from flask_m9m.settings.schema import json_schema

from .test_m9m import M9M_CONFIG
from .test_sources import PRODUCTION

SCHEMA = json_schema()


def errors(document: Any) -> list[str]:
    return [
        error.message for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(document)
    ]


def at(path: str, value: object) -> dict[str, Any]:
    for name in reversed(path.split(".")):
        value = {name: value}
    assert isinstance(value, dict)
    return value


def test_the_schema_is_one_and_is_json() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA


@pytest.mark.parametrize("text", [PRODUCTION, M9M_CONFIG, "{}", "security:\nserver: {tls: }\n"])
def test_configurations_that_load_are_valid(text: str) -> None:
    assert errors(yaml.safe_load(text)) == []


@pytest.mark.parametrize("path", sorted(LEAVES))
def test_every_setting_is_known_and_takes_its_default_and_a_reference(path: str) -> None:
    leaf = LEAVES[path]
    default = json.loads(json.dumps(leaf.default))
    assert errors(at(path, default)) == []
    assert errors(at(path, ["${NAME}"] if leaf.is_list else "${NAME:-x}")) == []
    assert errors(at(path, {"a": 1}))


@pytest.mark.parametrize("path", sorted(SECTIONS))
def test_a_typo_in_any_section_is_found(path: str) -> None:
    assert errors(at(f"{path}.typo", 1))


@pytest.mark.parametrize("duration", ["90s", "15m", "1h30m", "7d", 90, 0.5, "${LIFE}"])
def test_durations_are_accepted(duration: object) -> None:
    assert errors(at("security.jwt.expiration", duration)) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("security.jwt.expiration", "soon"),
        ("security.jwt.expiration", -1),
        ("server.port", 0),
        ("server.port", 65536),
        ("security.cors.allowed_origins", "https://a"),
        ("security.cors.max_age", 86401),
        ("server.https", "on"),
        ("audit.sinks", ["syslog"]),
        ("security.jwt.algorithm", "none"),
        ("typo", {}),
    ],
)
def test_wrong_values_are_found(path: str, value: object) -> None:
    assert errors(at(path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [("server.https", False), ("server.tls.min_version", 1.2), ("server.tls.min_version", "1.3")],
)
def test_what_yaml_makes_of_bare_words_is_accepted_as_it_is_when_loading(
    path: str, value: object
) -> None:
    assert errors(at(path, value)) == []
