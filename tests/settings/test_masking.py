"""No secret in anything that is printed, whatever is wrong with it."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_m9m.errors import SettingsError
from flask_m9m.settings import Settings, load
from flask_m9m.settings.describe import MASK, describe
from flask_m9m.settings.paths import LEAVES

from .conftest import Load, Problems

CANARY = "Kanarienvogel"
SECRETS = [path for path, leaf in LEAVES.items() if leaf.is_secret]


def right_value(path: str) -> Any:
    text = f"redis://user:{CANARY}@host/0" if path.endswith("url") else CANARY * 4 + path
    return [text] if LEAVES[path].is_list else text


def test_settings_that_hold_secrets_show_none(loading: Load) -> None:
    loaded = loading(flags={path: right_value(path) for path in SECRETS})
    shown = [
        str(loaded),
        repr(loaded),
        str(loaded.settings),
        repr(loaded.settings),
        repr(loaded.settings.security.jwt),
        loaded.settings.model_dump_json(),
        str(loaded.settings.model_dump()),
        json.dumps(describe(loaded)),
    ]
    for text in shown:
        assert CANARY not in text
    described = {path: value for path, value, _ in describe(loaded)}
    assert described["security.jwt.secret"] == MASK
    assert described["security.jwt.previous_secrets"] == [MASK]
    assert described["database.url"] == MASK


WRONG: list[Any] = [
    CANARY,
    [CANARY],
    [CANARY, 5],
    {CANARY: CANARY},
    f"${{{CANARY}",
    f"{CANARY}${{UNSET}}",
    f"\x00{CANARY}",
    f"{CANARY}\udcff",
    f"-----BEGIN {CANARY}",
    f"changeme{CANARY * 4}",
    f"postgres://{CANARY}\x00@host",
    CANARY.encode(),
    [[CANARY]],
]


@pytest.mark.parametrize("path", SECRETS)
@pytest.mark.parametrize("value", WRONG, ids=range(len(WRONG)))
def test_no_problem_shows_a_secret(path: str, value: Any) -> None:
    extra = {
        "security.basic_auth.enabled": True,
        "security.basic_auth.username": "a",
        "server.port": "wrong",
        "security.cors.allowed_origins": [f"https://user:{CANARY}@host.example"],
    }
    with pytest.raises(SettingsError) as caught:
        load(flags={**extra, path: value}, environ={})
    for text in (
        str(caught.value),
        repr(caught.value),
        repr(caught.value.problems),
        "".join(traceback.format_exception(caught.value)),
    ):
        assert CANARY not in text


@pytest.mark.parametrize("path", SECRETS)
def test_no_problem_of_a_variable_shows_a_secret(path: str, problems: Problems) -> None:
    variable = LEAVES[path].variable
    for text in (CANARY, f'["{CANARY}"', f'["{CANARY}", 5]', f"{CANARY}${{", f"{CANARY}\udcff"):
        for environ in ({variable: text, "M9M_PORT": "x"}, {f"{variable}_FILE": f"/{path}/none"}):
            assert all(CANARY not in str(problem) for problem in problems(environ=environ))


def test_pydantics_own_errors_show_no_secret() -> None:
    for value in (5, [CANARY], {CANARY: 1}):
        with pytest.raises(ValueError) as caught:
            Settings.model_validate({"security": {"jwt": {"secret": value}}})
        assert CANARY not in str(caught.value)


def test_a_secret_in_a_place_for_something_else_is_named_by_its_kind(problems: Problems) -> None:
    (problem,) = problems({"security": CANARY})
    assert (problem.path, problem.found) == ("security", "text")
    (problem,) = problems({"security": {"jwt": {"sekret": CANARY}}})
    assert CANARY not in str(problem)


def test_secrets_of_files_are_not_shown(problems: Problems, folder: Path) -> None:
    (folder / "config.yaml").write_text(f"security:\n  jwt: {{secret: {CANARY}}}\n  - x\n")
    (folder / ".env").write_text(f"M9M_JWT_SECRET='{CANARY}\n")
    for problem in problems("config.yaml"):
        assert CANARY not in str(problem)


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=200))
def test_values_are_shown_on_one_line_short_and_escaped(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(flags={"server.https": f"x{text.replace('${', '')}"}, environ={})
    (problem,) = caught.value.problems
    assert problem.found.isprintable()
    assert len(problem.found) < 700


def test_describe_is_json_and_says_where_each_value_comes_from(loading: Load) -> None:
    loaded = loading({"security": {"headers": {"preset": "web"}, "errors": {"format": "problem"}}})
    described = {path: (value, source) for path, value, source in describe(loaded)}
    assert json.loads(json.dumps(list(described))) == list(LEAVES)
    assert described["server.port"] == (8080, "default")
    assert described["security.errors.format"] == ("problem", "settings=")
    value, source = described["security.headers.content_security_policy"]
    assert value.startswith("default-src 'self'")
    assert source == "preset web"
    assert described["security.jwt.algorithm"] == ("HS256", "default")
    assert described["audit.sinks"] == (["log"], "default")
