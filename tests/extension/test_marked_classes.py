"""Marks on classes: whatever calls a view of theirs is held to them, or told that it cannot be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
import pytest
from flask import Blueprint, Flask, current_app, request
from flask.views import MethodView, View

from flask_m9m import current_identity, current_user, public, rate_limit, require_auth
from flask_m9m.testing import client_as

admin = require_auth(roles="admin")


def statuses(app: Flask, path: str) -> tuple[int, int, int]:
    """Return what a stranger, ann and an admin get."""
    clients = app.test_client(), client_as(app, "ann"), client_as(app, "eve", roles=["admin"])
    return tuple(client.get(path).status_code for client in clients)  # type: ignore[return-value]


def opaque(view: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a view and hide it, as a decorator without functools.wraps does."""
    return lambda *args, **kwargs: view(*args, **kwargs)


class Reports:
    def index(self) -> str:
        return "secret"


@pytest.mark.parametrize("mark", [admin, public, rate_limit("5/minute")], ids=range(3))
def test_a_mark_on_a_class_that_is_no_view_is_refused(mark: Any) -> None:
    with pytest.raises(TypeError, match="the class Reports is no Flask View"):
        mark(Reports)


class Tool:
    @click.command
    def command() -> None:  # type: ignore[misc]
        pass

    @staticmethod
    def static() -> None:
        pass


@pytest.mark.parametrize(
    "target",
    [
        None,
        "view",
        property(Reports.index),
        classmethod(Reports.index),
        vars(Tool)["static"],
        Tool.command,
        current_identity,
        Flask("other"),
        Blueprint("other", "other"),
    ],
)
def test_a_mark_on_what_is_not_called_as_a_view_is_refused(target: Any) -> None:
    for mark in (require_auth, admin, public):
        with pytest.raises(TypeError, match="a view or a view class is needed"):
            mark(target)


def calling(name: str) -> Callable[[], Any]:
    """Return a public view that calls another one, past its route's policy."""
    return public(lambda: current_app.view_functions[name]())


@pytest.mark.parametrize("marked_first", [True, False])
def test_a_class_is_guarded_where_a_derived_one_dispatches_itself(
    app: Flask, marked_first: bool
) -> None:
    class Base(View):
        def dispatch_request(self) -> str:
            return "base"

    if marked_first:
        admin(Base)

    class Child(Base):
        def dispatch_request(self) -> str:
            return "secret"

    class Grandchild(Child):
        pass

    if not marked_first:
        admin(Base)

    for number, view_class in enumerate((Base, Child, Grandchild)):
        app.add_url_rule(f"/{number}", f"plain{number}", view_class.as_view(f"plain{number}"))
        view = opaque(view_class.as_view("hidden"))
        app.add_url_rule(f"/hidden{number}", f"hidden{number}", view)
        app.add_url_rule(f"/past{number}", f"past{number}", calling(f"plain{number}"))
    for number in range(3):
        for path in (f"/{number}", f"/hidden{number}", f"/past{number}"):
            assert statuses(app, path) == (401, 403, 200)


def test_a_marked_view_class_guards_the_views_that_it_is_mixed_into(
    app: Flask,
) -> None:
    initialized = []

    @admin
    class Closed(View):
        def __init_subclass__(cls, label: str = "", **options: Any) -> None:
            super().__init_subclass__(**options)
            initialized.append((cls.__name__, label))

    class Items(Closed, MethodView, label="items"):
        def get(self) -> str:
            return "secret"

    class Own(Closed, View):
        def dispatch_request(self) -> str:
            return "secret"

    class Mixin:
        def dispatch_request(self) -> str:
            return "secret"

    class Mixed(Mixin, Closed):
        pass

    assert initialized == [("Items", "items"), ("Own", ""), ("Mixed", "")]
    assert Items.methods == {"GET"}
    for name, view_class in (("items", Items), ("own", Own), ("mixed", Mixed)):
        app.add_url_rule(f"/{name}", view_func=view_class.as_view(name))
        app.add_url_rule(f"/hidden-{name}", f"hidden-{name}", opaque(view_class.as_view("x")))
        app.add_url_rule(f"/past-{name}", f"past-{name}", calling(name))
    for name in ("items", "own", "mixed"):
        for path in (f"/{name}", f"/hidden-{name}", f"/past-{name}"):
            assert statuses(app, path) == (401, 403, 200)


def test_a_method_that_the_app_exchanges_is_held_to_the_class(app: Flask) -> None:
    @app.before_request
    def exchange_method() -> None:
        request.method = request.headers.get("X-HTTP-Method-Override", request.method)

    @require_auth
    class Items(MethodView):
        @public
        def post(self) -> str:
            return "open"

        @public
        def put(self) -> str:
            return "put"

        def delete(self) -> str:
            return "deleted"

    app.add_url_rule("/x", view_func=Items.as_view("x"))
    client, override = app.test_client(), {"X-HTTP-Method-Override": "DELETE"}
    assert client.post("/x").text == "open"
    assert client.post("/x", headers=override).status_code == 401
    assert client_as(app, "ann").post("/x", headers=override).text == "deleted"
    for put in ("PUT", "put"):
        assert client.post("/x", headers={"X-HTTP-Method-Override": put}).text == "put"


@pytest.mark.parametrize("override", ["DELETE", "delete"])
def test_a_limit_of_one_method_counts_requests_that_the_app_gives_it(
    app: Flask, override: str
) -> None:
    @app.before_request
    def exchange_method() -> None:
        request.method = request.headers.get("X-HTTP-Method-Override", request.method)

    class Items(MethodView):
        decorators = [rate_limit("2/hour", methods=["DELETE"])]  # noqa: RUF012

        def post(self) -> str:
            return "posted"

        def delete(self) -> str:
            return "deleted"

    app.add_url_rule("/x", view_func=Items.as_view("x"))
    client = app.test_client()
    headers = {"X-HTTP-Method-Override": override}
    found = [client.post("/x", headers=headers).status_code for _ in range(3)]
    assert found == [200, 200, 429]
    assert client.post("/x").text == "posted"


def test_whoever_asks_too_early_who_calls_is_no_hindrance_later(app: Flask) -> None:
    app.extensions["m9m"].callbacks.user_loader = lambda identity: identity.subject.upper()

    @app.url_value_preprocessor
    def early(endpoint: str | None, values: Any) -> None:
        assert not current_user

    app.add_url_rule("/x", "x", require_auth(lambda: str(current_user)))
    assert client_as(app, "ann").get("/x").text == "ANN"


def test_a_limit_of_a_class_counts_its_methods_together(app: Flask) -> None:
    @rate_limit("3/hour", burst=3)
    class Items(MethodView):
        @rate_limit("100/hour", burst=100)
        def get(self) -> str:
            return "get"

        @rate_limit("100/hour", burst=100)
        @rate_limit("200/hour", burst=200)
        def put(self) -> str:
            return "put"

        def post(self) -> str:
            return "post"

    app.add_url_rule("/x", view_func=Items.as_view("x"))
    client = app.test_client()
    found = [client.open("/x", method=method).status_code for method in ("GET", "PUT", "POST") * 2]
    assert found == [200, 200, 200, 429, 429, 429]


def test_limits_of_methods_count_each_alone(app: Flask) -> None:
    class Items(MethodView):
        @rate_limit("3/hour", burst=3)
        def get(self) -> str:
            return "get"

        @rate_limit("3/hour", burst=3)
        def post(self) -> str:
            return "post"

    app.add_url_rule("/x", view_func=Items.as_view("x"))
    client = app.test_client()
    assert [client.get("/x").status_code for _ in range(4)] == [200, 200, 200, 429]
    assert [client.post("/x").status_code for _ in range(4)] == [200, 200, 200, 429]
