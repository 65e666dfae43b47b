"""A demand of a new kind is one class and one decorator: nothing else has to know it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from flask import Flask

from flask_m9m import M9M
from flask_m9m.cli import m9m as commands
from flask_m9m.errors import InvalidSignature, M9MError
from flask_m9m.extension.decorators import ViewDecorator
from flask_m9m.guard.marks import Demand
from flask_m9m.testing import make_settings


@dataclass(frozen=True, eq=False, slots=True)
class ProviderMark(Demand):
    """`@from_provider`: a request that bears the provider's word."""

    word: str

    decorator = "@from_provider"
    component = "provider_word"
    closes = True

    def unmet_by(self, exchange: Any, environ: Any, links: Any) -> M9MError | None:
        return None if environ.get("HTTP_X_WORD") == self.word else InvalidSignature()

    def wording(self) -> list[str]:
        return ["the provider's word"]

    def parameters(self) -> dict[str, Any]:
        return {"header": "X-Word"}


def from_provider(word: str) -> ViewDecorator:
    return ViewDecorator(ProviderMark(word))


def make_app() -> tuple[Flask, M9M]:
    app = Flask("app")
    app.testing = True
    m9m = M9M(app, settings=make_settings({"security": {"default_access": "authenticated"}}))

    @app.post("/hook")
    @from_provider("sesame")
    def hook() -> str:
        return "taken"

    app.add_url_rule("/indirect", "indirect", lambda: hook(), methods=["POST"])
    m9m.protect("indirect", from_provider("outer"))
    return app, m9m


def test_it_is_enforced_on_its_route_and_past_it() -> None:
    client = make_app()[0].test_client()

    def status(path: str, word: str | None) -> int:
        return client.post(path, headers={} if word is None else {"X-Word": word}).status_code

    assert [status("/hook", word) for word in (None, "wrong", "sesame")] == [403, 403, 200]
    assert [status("/indirect", word) for word in ("outer", "sesame")] == [403, 403]


def test_the_policy_openapi_and_the_commands_word_it() -> None:
    app, m9m = make_app()
    (policy,) = (
        policy for rule, _, policy in app.extensions["m9m"].routes.all() if rule.endpoint == "hook"
    )
    assert policy.access == "signed"
    assert policy.authenticators == ()
    assert [words for demand in policy.demands for words in demand.wording()] == [
        "the provider's word"
    ]
    with app.app_context():
        operation = m9m.openapi()["paths"]["/hook"]["post"]
    assert operation["security"] == [{"provider_word": []}]
    assert operation["x-m9m"] == {"provider_word": {"header": "X-Word"}}
    assert "403" in operation["responses"]
    rows = json.loads(app.test_cli_runner().invoke(commands, ["routes", "-o", "json"]).output)
    assert [row["needs"] for row in rows if row["endpoint"] == "hook"] == [["the provider's word"]]
