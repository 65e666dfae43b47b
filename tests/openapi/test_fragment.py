"""The fragment of `m9m.openapi()`, compared with the responses of the guard."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from flask import Flask
from flask.views import MethodView
from werkzeug.routing import Rule

from flask_m9m import (
    M9M,
    Identity,
    SettingsError,
    public,
    rate_limit,
    require_auth,
    require_signed_url,
    unlimited,
)
from flask_m9m.testing import client_as

from .conftest import Secured, answers_of, fragment_of

KEYS_OFF = {"security": {"api_keys": {"enabled": False}, "lockout": {"enabled": False}}}
EVERY_SCHEME = {
    "security": {
        "jwt": {"cookie": {"enabled": True}},
        "api_keys": {"header": "X-Key"},
        "basic_auth": {"enabled": True, "username": "ann", "password": "correct horse"},
    }
}


def limiting(**options: Any) -> dict[str, Any]:
    return {"performance": {"rate_limit": {"enabled": True, **options}}}


def view(**_: object) -> str:
    return "answered"


def test_security_schemes_are_those_that_are_switched_on(secured: Secured) -> None:
    schemes = fragment_of(*secured(**EVERY_SCHEME))["components"]["securitySchemes"]
    assert {
        name: {key: value for key, value in scheme.items() if key != "description"}
        for name, scheme in schemes.items()
    } == {
        "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
        "api_key": {"type": "apiKey", "in": "header", "name": "X-Key"},
        "basic": {"type": "http", "scheme": "basic"},
        "cookie": {"type": "apiKey", "in": "cookie", "name": "__Host-m9m-access"},
        "csrf_token": {"type": "apiKey", "in": "header", "name": "X-CSRF-Token"},
    }
    only = fragment_of(*secured(**KEYS_OFF))["components"]["securitySchemes"]
    assert list(only) == ["bearer"]


def test_each_accepted_scheme_is_an_alternative(secured: Secured) -> None:
    app, m9m = secured(**EVERY_SCHEME)
    app.add_url_rule("/all", "all", require_auth(view), methods=["GET", "POST"])
    app.add_url_rule("/one", "one", require_auth(schemes="bearer", scopes="a b")(lambda: "x"))
    app.add_url_rule("/open", "open", public(lambda: "x"))
    app.add_url_rule("/known", "known", require_auth(schemes="bearer", optional=True)(lambda: "x"))
    paths = fragment_of(app, m9m)["paths"]
    every = [{"bearer": []}, {"api_key": []}, {"basic": []}, {"cookie": []}]
    assert paths["/all"]["get"]["security"] == every
    assert paths["/all"]["post"]["security"] == [*every[:-1], {"cookie": [], "csrf_token": []}]
    assert paths["/one"]["get"]["security"] == [{"bearer": ["a", "b"]}]
    assert paths["/open"]["get"] == {"security": []}
    assert paths["/known"]["get"]["security"] == [{"bearer": []}, {}]


def test_requirements_that_security_cannot_express_are_in_an_extension(secured: Secured) -> None:
    app, m9m = secured(**KEYS_OFF)

    @app.get("/x")
    @require_auth(scopes="a", any_scope="b c", fresh=True)
    @require_auth(roles=["admin", "owner"])
    def x() -> str:
        return "x"

    operation = fragment_of(app, m9m)["paths"]["/x"]["get"]
    assert operation["security"] == [{"bearer": ["a"]}]
    assert operation["x-m9m"] == {
        "requirements": [
            {"roles": ["admin", "owner"]},
            {"scopes": ["a"], "any_scope": ["b", "c"], "fresh": True},
        ]
    }


def test_a_signed_url_is_a_key_in_the_query(secured: Secured) -> None:
    app, m9m = secured(**KEYS_OFF)
    app.add_url_rule("/alone", "alone", require_signed_url(purpose="export")(lambda: "x"))
    both = require_signed_url(require_auth(lambda: "x"))
    app.add_url_rule("/both", "both", both)
    maybe = require_signed_url(require_auth(optional=True)(lambda: "x"))
    app.add_url_rule("/maybe", "maybe", maybe)
    fragment = fragment_of(app, m9m)
    scheme = fragment["components"]["securitySchemes"]["signed_url"]
    assert (scheme["type"], scheme["in"], scheme["name"]) == ("apiKey", "query", "signature")
    with app.app_context():
        assert "?signature=" in m9m.sign_url("/alone", 60, purpose="export")
    alone = fragment["paths"]["/alone"]["get"]
    assert alone["security"] == [{"signed_url": []}]
    assert alone["x-m9m"] == {"signed_url": {"purpose": "export"}}
    assert answers_of(alone) == {"403"}
    assert fragment["paths"]["/both"]["get"]["security"] == [{"bearer": [], "signed_url": []}]
    optional = fragment["paths"]["/maybe"]["get"]
    assert optional["security"] == [{"bearer": [], "signed_url": []}, {"signed_url": []}]
    assert answers_of(optional) == {"401", "403"}


def test_a_scheme_of_the_apps_own_is_described_by_the_app(secured: Secured) -> None:
    app, m9m = secured(**KEYS_OFF)

    @m9m.authenticator("partner/key")
    def partner() -> Identity | None:
        return None

    app.add_url_rule("/x", "x", require_auth(schemes=["partner/key"])(lambda: "x"))
    undescribed = fragment_of(app, m9m)["components"]["securitySchemes"]
    (name,) = set(undescribed) - {"bearer"}
    assert name.startswith("partner-key-")
    assert undescribed[name]["type"] == "http"
    assert "not known" in undescribed[name]["description"]
    own = {"type": "apiKey", "in": "header", "name": "X-Partner"}
    fragment = fragment_of(app, m9m, schemes={"partner/key": own})
    assert fragment["components"]["securitySchemes"][name] == own
    assert fragment["paths"]["/x"]["get"]["security"] == [{name: []}]
    with pytest.raises(ValueError, match=r"'partnr'.*bearer, partner/key"):
        fragment_of(app, m9m, schemes={"partnr": own})


@pytest.mark.parametrize("scheme", ["csrf_token", "signed_url"])
def test_a_scheme_of_the_apps_own_hides_none_of_ours(secured: Secured, scheme: str) -> None:
    app, m9m = secured(**EVERY_SCHEME)
    m9m.authenticator(scheme)(lambda: None)
    app.add_url_rule("/x", "x", require_auth(require_signed_url(lambda: "x")), methods=["POST"])
    fragment = fragment_of(app, m9m)
    schemes = fragment["components"]["securitySchemes"]
    assert [schemes[name]["type"] for name in ("csrf_token", "signed_url")] == ["apiKey"] * 2
    assert len(fragment["paths"]["/x"]["post"]["security"]) == 5
    assert {
        name for alternative in fragment["paths"]["/x"]["post"]["security"] for name in alternative
    } == set(schemes)


@pytest.mark.parametrize(
    ("marks", "method", "settings", "answers"),
    [
        ([public], "GET", {}, set()),
        ([require_auth], "GET", KEYS_OFF, {"401"}),
        ([require_auth], "GET", {}, {"401", "429"}),  # a key may have a limit of its own
        ([require_auth(schemes="bearer")], "GET", {}, {"401", "429"}),  # lockout
        ([require_auth(scopes="a")], "GET", KEYS_OFF, {"401", "403"}),
        ([require_auth(any_scope="a")], "GET", KEYS_OFF, {"401", "403"}),
        ([require_auth(roles="a")], "GET", KEYS_OFF, {"401", "403"}),
        ([require_auth(fresh=True)], "GET", KEYS_OFF, {"401"}),
        ([require_auth(schemes="cookie")], "GET", EVERY_SCHEME, {"401", "429"}),
        ([require_auth(schemes="cookie")], "POST", EVERY_SCHEME, {"401", "403", "429"}),
        ([require_auth(schemes="basic")], "DELETE", EVERY_SCHEME, {"401", "403", "429"}),
        ([public], "GET", {"server": {"allowed_networks": ["10.0.0.0/8"]}}, {"403"}),
        ([public], "GET", {"server": {"https": "refuse"}}, {"403"}),
        ([public], "GET", {"server": {"https": "redirect"}}, set()),
        ([public], "POST", {"server": {"https": "redirect"}}, {"403"}),
        ([rate_limit("1/minute")], "GET", {}, {"429"}),
        ([rate_limit("1/minute", shadow=True)], "GET", {}, set()),
        ([rate_limit("1/minute", methods=["POST"])], "GET", {}, set()),
        ([public], "GET", {"performance": {"rate_limit": {"enabled": True}}}, {"429"}),
        ([unlimited], "GET", {"performance": {"rate_limit": {"enabled": True}}}, set()),
        (
            [public],
            "GET",
            {"performance": {"rate_limit": {"enabled": True, "shadow": True}}},
            set(),
        ),
    ],
)
def test_a_refusal_is_described_only_where_it_can_occur(
    secured: Secured, marks: list[Any], method: str, settings: dict[str, Any], answers: set[str]
) -> None:
    app, m9m = secured(**settings)
    app.add_url_rule("/x", "x", marks[0](lambda: "x"), methods=[method])
    assert answers_of(fragment_of(app, m9m)["paths"]["/x"][method.lower()]) == answers


@pytest.mark.parametrize("error_format", ["m9m", "problem"])
def test_refusals_match_their_schemas(secured: Secured, error_format: str) -> None:
    settings = {"security": {"errors": {"format": error_format}}}
    app, m9m = secured(**settings)
    limited = rate_limit("1/hour")(require_auth(scopes="a")(lambda: "x"))
    app.add_url_rule("/x", "x", limited)
    fragment = fragment_of(app, m9m)
    operation, seen = fragment["paths"]["/x"]["get"], {}
    for client in (app.test_client(), client_as(app, "ann"), client_as(app, "ann")):
        for accept in ("application/json", "application/problem+json"):
            answer = client.get("/x", headers={"Accept": accept})
            described = _resolve(fragment, operation["responses"][str(answer.status_code)])
            schema = described["content"][answer.mimetype]["schema"]
            jsonschema.validate(json.loads(answer.text), _resolve(fragment, schema))
            expected = set(described["headers"])
            if answer.status_code == 429:
                assert expected <= set(answer.headers.keys())
            seen.setdefault(answer.status_code, set()).add(answer.mimetype)
    assert set(seen) == {401, 403, 429}
    assert all(set(described["content"]) >= mimetypes for mimetypes in seen.values())
    assert ("application/json" in described["content"]) == (error_format == "m9m")


def _resolve(fragment: dict[str, Any], reference: dict[str, Any]) -> Any:
    found: Any = fragment
    for part in reference["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return found


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ("/files/<path:name>", "/files/{name}"),
        ("/<int(min=1, max=9):page>/<any(a, b):kind>", "/{page}/{kind}"),
        ("/<string(length=2):lang>.<ext>/", "/{lang}.{ext}/"),
        ("/plain", "/plain"),
    ],
)
def test_a_rule_becomes_a_path(secured: Secured, rule: str, path: str) -> None:
    app, m9m = secured()
    app.add_url_rule(rule, "x", view)
    assert list(fragment_of(app, m9m)["paths"]) == [path]


def test_operations_are_the_methods_of_the_view(secured: Secured) -> None:
    app, m9m = secured()
    app.add_url_rule("/usual", "usual", view, methods=["POST", "GET"])
    app.add_url_rule("/head", "head", view, methods=["HEAD"])
    app.add_url_rule("/options", "options", view, methods=["GET", "OPTIONS"])
    app.add_url_rule("/dav", "dav", view, methods=["GET", "PROPFIND"])
    app.url_map.add(Rule("/built", endpoint="built", build_only=True))

    class Item(MethodView):
        def get(self) -> str:
            return "x"

        @require_auth(schemes="bearer")
        def delete(self) -> str:
            return "x"

    app.add_url_rule("/item", view_func=Item.as_view("item"))
    paths = fragment_of(app, m9m)["paths"]
    assert {path: list(item) for path, item in paths.items()} == {
        "/usual": ["get", "post"],
        "/head": ["head"],
        "/options": ["get", "options"],
        "/dav": ["get"],
        "/item": ["delete", "get"],
    }
    assert paths["/item"]["delete"]["security"] == [{"bearer": []}]
    assert paths["/item"]["get"]["security"] == []


def test_our_own_routes_are_described_and_static_files_are_not(secured: Secured) -> None:
    paths = fragment_of(*secured(api={"enabled": True}, metrics={"enabled": True}))["paths"]
    assert paths["/api/v1/auth/login"]["post"]["security"] == []
    assert {"bearer": []} in paths["/api/v1/auth/logout"]["post"]["security"]
    assert "/api/v1/credentials/{credential_id}" in paths
    assert {"bearer": ["m9m:metrics"]} in paths["/metrics"]["get"]["security"]
    assert "/static/{filename}" not in paths


def test_each_call_returns_an_equal_independent_fragment(secured: Secured) -> None:
    app, m9m = secured(**EVERY_SCHEME)
    app.add_url_rule("/x", "x", require_auth(scopes="b a")(lambda: "x"))
    first = fragment_of(app, m9m)
    text = json.dumps(first)
    first["components"]["schemas"]["M9MError"]["properties"].clear()
    first["paths"]["/x"]["get"]["security"][0]["bearer"].clear()
    assert json.dumps(fragment_of(app, m9m)) == text
    assert json.dumps(fragment_of(app, m9m)) == text


def test_an_invalid_route_is_named(secured: Secured) -> None:
    app, m9m = secured()
    app.add_url_rule("/x", "x", require_auth(schemes="basic")(lambda: "x"))
    with pytest.raises(SettingsError, match="route x"):
        fragment_of(app, m9m)


def test_outside_of_an_app_the_error_names_what_is_missing(secured: Secured) -> None:
    _, m9m = secured()
    with pytest.raises(RuntimeError, match="application context"):
        m9m.openapi()
    with Flask("other").app_context(), pytest.raises(RuntimeError, match=r"m9m\.openapi needs"):
        M9M().openapi()
