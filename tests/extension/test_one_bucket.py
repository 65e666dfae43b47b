"""A limit on a function is one bucket, by whichever route or call the function is reached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from flask import Blueprint, Flask
from flask.views import MethodView

from flask_m9m import M9M, rate_limit
from flask_m9m.testing import make_settings


@pytest.fixture
def app() -> Flask:
    app = Flask("app")
    app.testing = True
    M9M(app, settings=make_settings())
    return app


def statuses(app: Flask, *paths: str) -> list[int]:
    client = app.test_client()
    return [client.get(path).status_code for path in paths]


@rate_limit("2/hour")
def limited() -> str:
    return "x"


def two_endpoints(app: Flask) -> None:
    app.add_url_rule("/a", "zebra", limited)
    app.add_url_rule("/b", "ape", limited)


def two_names_of_a_blueprint(app: Flask) -> None:
    blueprint = Blueprint("inner", __name__)
    blueprint.add_url_rule("/", "limited", limited)
    app.register_blueprint(blueprint, url_prefix="/a", name="one", strict_slashes=False)
    app.register_blueprint(blueprint, url_prefix="/b", name="other", strict_slashes=False)


def a_call_by_another_view(app: Flask) -> None:
    app.add_url_rule("/a", "limited", limited)
    app.add_url_rule("/b", "calling", lambda: limited())


def a_class_under_two_names(app: Flask) -> None:
    class Limited(MethodView):
        decorators = [rate_limit("2/hour")]  # noqa: RUF012  # as Flask documents it

        def get(self) -> str:
            return "x"

    view = Limited.as_view("limited")
    app.add_url_rule("/a", "one", view)
    app.add_url_rule("/b", "other", view)


@pytest.mark.parametrize(
    "register",
    [two_endpoints, two_names_of_a_blueprint, a_call_by_another_view, a_class_under_two_names],
)
def test_one_function_has_one_bucket(app: Flask, register: Callable[[Flask], Any]) -> None:
    register(app)
    if register is two_names_of_a_blueprint:
        assert statuses(app, "/a/", "/b/", "/a/", "/b/") == [200, 200, 429, 429]
    else:
        assert statuses(app, "/a", "/b", "/a", "/b") == [200, 200, 429, 429]


def test_two_functions_of_one_decorator_have_a_bucket_each(app: Flask) -> None:
    limit = rate_limit("1/hour")
    app.add_url_rule("/a", "one", limit(lambda: "a"))
    app.add_url_rule("/b", "other", limit(lambda: "b"))
    assert statuses(app, "/a", "/b", "/a", "/b") == [200, 200, 429, 429]


def test_a_blueprints_limit_counts_a_view_that_cannot_be_hashed() -> None:
    app = Flask("app")
    m9m = M9M(app, settings=make_settings())

    @dataclass
    class Report:
        text: str

        def __call__(self) -> str:
            return self.text

    blueprint = Blueprint("reports", __name__)
    blueprint.add_url_rule("/x", endpoint="x", view_func=Report("x"))
    m9m.protect(blueprint, rate_limit("2/hour"))
    app.register_blueprint(blueprint)
    assert statuses(app, "/x", "/x", "/x") == [200, 200, 429]


def test_a_function_without_a_route_has_one_bucket_for_all_views_that_call_it(app: Flask) -> None:
    app.add_url_rule("/a", "one", lambda: limited())
    app.add_url_rule("/b", "other", lambda: limited())
    assert statuses(app, "/a", "/b", "/a", "/b") == [200, 200, 429, 429]


shared_limit = rate_limit("2/hour")


@shared_limit
def first() -> str:
    return "x"


@shared_limit
def second() -> str:
    return "x"


@pytest.mark.parametrize("routed", [True, False])
def test_a_called_function_has_its_own_bucket_under_a_shared_decorator(
    app: Flask, routed: bool
) -> None:
    app.add_url_rule("/a", "a", first if routed else lambda: first())
    app.add_url_rule("/b", "b", second if routed else lambda: second())
    app.add_url_rule("/c", "c", lambda: first())
    assert statuses(app, "/a", "/c", "/a", "/c", "/b") == [200, 200, 429, 429, 200]


def test_functions_made_by_one_factory_have_a_bucket_each_when_they_are_called(app: Flask) -> None:
    def make() -> Callable[[], str]:
        @rate_limit("1/hour")
        def view() -> str:
            return "x"

        return view

    one, other = make(), make()
    app.add_url_rule("/a", "a", lambda: one())
    app.add_url_rule("/b", "b", lambda: other())
    assert statuses(app, "/a", "/b", "/a", "/b") == [200, 200, 429, 429]


def test_two_limits_of_a_called_function_have_a_bucket_each(app: Flask) -> None:
    app.add_url_rule("/a", "a", lambda: twice_limited())
    assert statuses(app, "/a", "/a", "/a") == [200, 200, 429]


@rate_limit("2/hour")
@rate_limit("2/hour")
def twice_limited() -> str:
    return "x"
