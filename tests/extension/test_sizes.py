"""Bodies and forms that are larger than the settings or the app say."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
from flask import Flask, request
from werkzeug.exceptions import HTTPException

from flask_m9m import M9M
from flask_m9m.testing import make_settings

LIMITS = {"max_body_size": 2_000, "max_form_memory_size": 100, "max_form_parts": 3}


def made(configured: dict[str, Any] | None = None) -> Flask:
    app = Flask("app")
    app.config.update(configured or {})
    M9M(app, settings=make_settings({"server": {"limits": LIMITS}}))

    @app.post("/body")
    def body() -> dict[str, int]:
        return {"octets": len(request.get_data())}

    @app.post("/form")
    def form() -> dict[str, int]:
        return {"fields": len(request.form)}

    return app


def test_a_body_of_the_largest_size_is_read() -> None:
    answer = made().test_client().post("/body", data=b"x" * 2_000)
    assert answer.json == {"octets": 2_000}


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/body", {"data": b"x" * 2_001}),
        ("/form", {"data": {"one": "x" * 101, "file": (BytesIO(b"x"), "x")}}),
        ("/form", {"data": {str(n): (BytesIO(b"x"), "x") for n in range(4)}}),
        (
            "/body",
            {
                "input_stream": BytesIO(b"x" * 2_001),
                "environ_overrides": {"wsgi.input_terminated": True},
            },
        ),
    ],
    ids=["a body", "a field", "parts", "a body without a length"],
)
def test_what_is_larger_is_answered_413_in_our_format_with_all_headers(
    path: str, sent: dict[str, Any]
) -> None:
    answer = made().test_client().post(path, **sent)
    assert answer.status_code == 413
    assert answer.json is not None
    assert answer.json["code"] == "CONTENT_TOO_LARGE"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "DENY"


def test_a_client_that_asks_for_a_problem_gets_one() -> None:
    headers = {"Accept": "application/problem+json"}
    answer = made().test_client().post("/body", data=b"x" * 2_001, headers=headers)
    assert (answer.status_code, answer.mimetype) == (413, "application/problem+json")


def test_the_limits_that_an_app_has_set_stay() -> None:
    app = made({"MAX_CONTENT_LENGTH": 5_000, "MAX_FORM_PARTS": 7})
    assert app.config["MAX_CONTENT_LENGTH"] == 5_000
    assert app.config["MAX_FORM_PARTS"] == 7
    assert app.config["MAX_FORM_MEMORY_SIZE"] == 100
    assert app.test_client().post("/body", data=b"x" * 5_000).status_code == 200


@pytest.mark.parametrize("handled", [413, HTTPException])
def test_the_apps_own_handler_decides_about_the_body(handled: Any) -> None:
    app = made()

    @app.errorhandler(handled)
    def own(error: HTTPException) -> tuple[str, int]:
        return f"too large: {error.code}", 413

    answer = app.test_client().post("/body", data=b"x" * 2_001)
    assert (answer.status_code, answer.text) == (413, "too large: 413")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
