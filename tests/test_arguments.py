"""Every public function, given garbage in a parameter, names it and says what it takes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response
from sqlalchemy import MetaData, create_engine

import flask_m9m
from flask_m9m import M9M, Identity, M9MMiddleware, public
from flask_m9m.errors import M9MError
from flask_m9m.testing import Clock, client_as, make_settings

HOSTILE: tuple[Any, ...] = (
    None,
    "",
    "x" * 100_000,
    "\ud800",
    "\x00",
    "a b",
    b"",
    b"bytes",
    0,
    -1,
    1.5,
    10**400,
    float("nan"),
    float("inf"),
    True,
    date(2030, 1, 1),
    datetime(2030, 1, 1),
    datetime(2030, 1, 1, tzinfo=UTC),
    datetime.max,
    timedelta(days=10**6),
    timedelta.min,
    [],
    [1],
    [None],
    ["a", "b"],
    {},
    {1: 2},
    {"a": float("nan")},
    {"a": object()},
    {"\ud800": "\ud800"},
    set(),
    object(),
    print,
)

OF_M9M: dict[str, dict[str, Any]] = {
    "tokens.issue": {"subject": "ann"},
    "tokens.issue_pair": {"subject": "ann"},
    "tokens.refresh": {"token": "x"},
    "tokens.session_of": {"refresh_token": "x"},
    "tokens.verify": {"token": "x"},
    "tokens.revoke": {"token": "x"},
    "tokens.revoke_session": {"sid": "x"},
    "tokens.sessions": {"subject": "ann"},
    "tokens.revoke_subject": {"subject": "zed"},
    "tokens.version_of": {"subject": "zed"},
    "api_keys.create": {"name": "key", "owner": "ann"},
    "api_keys.list": {},
    "api_keys.page": {"owner": "ann"},
    "api_keys.revoke": {"key_id": "x"},
    "api_keys.rotate": {"key_id": "x"},
    "api_keys.prune": {"unused_for": "90d"},
    "users.create": {"username": "bob", "password": "correct horse"},
    "users.list": {},
    "users.get": {"username": "ann"},
    "users.update": {"username": "ann"},
    "users.set_password": {"username": "zed", "password": "correct horse"},
    "users.disable": {"username": "zed"},
    "users.enable": {"username": "zed"},
    "users.delete": {"username": "zed"},
    "users.verify_password": {"username": "ann", "password": "x"},
    "credentials.create": {"name": "one", "type": "apiKey", "data": {"apiKey": "x"}},
    "credentials.get": {"credential_id": "x"},
    "credentials.list": {},
    "credentials.page": {},
    "credentials.info": {"credential_id": "x"},
    "credentials.update": {"credential_id": "x"},
    "credentials.delete": {"credential_id": "x"},
    "credentials.test": {"credential_id": "x"},
    "credentials.rotate": {},
    "credentials.check_keys": {},
    "credentials.import_n8n": {"records": []},
    "credentials.import_m9m": {"records": []},
    "credentials.export_n8n": {"key": "x"},
    "cipher.encrypt": {"plaintext": b"x"},
    "cipher.decrypt": {"text": "x"},
    "audit.record": {"event": "app.event"},
    "audit.query": {},
    "audit.verify": {},
    "audit.flush": {},
    "sign": {"payload": 1, "max_age": 60},
    "unsign": {"text": "x"},
    "sign_url": {"url": "/x", "max_age": 60},
    "set_cookies": {"response": Response()},
    "clear_cookies": {"response": Response()},
    "openapi": {},
    "protect": {"target": "x.*"},
    "encrypted_columns": {"engine": create_engine("sqlite://"), "metadata": MetaData()},
    "user_loader": {"load": print},
    "identity_loader": {},
    "password_verifier": {"verify": print},
    "breach_checker": {"is_breached": print},
    "authenticator": {"scheme": "badge"},
    "credential_type": {"name": "own", "required": ()},
    "credential_checker": {"type": "apiKey"},
}
"""A valid call of each public function of an `M9M`, for the parameters that have no default."""

PARTS = ("tokens", "api_keys", "users", "credentials", "cipher", "audit")
INNER = {
    "init_app",  # below, with an app of its own
    "credentials.with_caller",
    "cipher.encrypt_record",
    "cipher.decrypt_record",
    "audit.event",
    "audit.is_heard",
    "audit.keep_circumstances",
    "audit.record_event",
    "audit.record_change",
    "audit.check",
    "audit.reseal",
    "audit.sealed_with",
    "audit.record_due",
    "audit.end",
}
"""Functions for flask-m9m's own components."""


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Flask, M9M]]:
    folder = tmp_path_factory.mktemp("arguments")
    app = Flask("arguments", instance_path=str(folder))
    app.testing = True
    settings = {
        "database": {"url": f"sqlite:///{folder / 'm9m.db'}"},
        "credentials": {"encryption_key": "A" * 43 + "="},
        "security": {"jwt": {"cookie": {"enabled": True}}},
        "audit": {"sinks": ["database"]},
    }
    m9m = M9M(app, settings=make_settings(settings))
    with app.app_context(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("flask_m9m.auth.passwords.METHOD", "scrypt:1024:8:1")  # quick
        m9m.users.create("ann", "correct horse", scopes="read")
        yield app, m9m
        app.extensions["m9m"].database.close()


def protecting(m9m: M9M) -> Any:
    def protect(target: Any) -> None:
        m9m.protect(target, public)

    return protect


def public_functions(part: object, prefix: str) -> Iterator[str]:
    for name, member in inspect.getmembers(type(part)):
        if not name.startswith("_") and inspect.isfunction(member):
            yield f"{prefix}{name}"


def test_no_public_function_is_left_out(secured: tuple[Flask, M9M]) -> None:
    _, m9m = secured
    found = set(public_functions(m9m, ""))
    for part in PARTS:
        found.update(public_functions(getattr(m9m, part), f"{part}."))
    assert found - INNER == set(OF_M9M)


@pytest.mark.parametrize("name", OF_M9M)
def test_a_function_of_m9m_names_the_argument_that_it_refuses(
    secured: tuple[Flask, M9M], name: str
) -> None:
    _, m9m = secured
    function: Any = m9m
    for part in name.split("."):
        function = getattr(function, part)
    valid = dict(OF_M9M[name])
    if name == "set_cookies":
        valid["pair"] = m9m.tokens.issue_pair("ann")
    if name == "protect":
        function = protecting(m9m)
    assert faults(function, valid) == []


def secure(settings: Any) -> None:
    """Secure an app.

    Raises:
        SettingsError: see `M9M.init_app`.
    """
    M9M(Flask("app"), settings=settings)


OTHERS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "Identity": (Identity, {"subject": "ann", "scheme": "bearer"}),
    "has_scope": (Identity("ann", "bearer").has_scope, {"scope": "read"}),
    "has_role": (Identity("ann", "bearer").has_role, {"role": "admin"}),
    "M9M": (M9M, {"app": None}),
    "init_app": (lambda *, app: M9M(settings=make_settings()).init_app(app), {"app": None}),
    "settings": (secure, {"settings": None}),
    "M9MMiddleware": (M9MMiddleware, {"app": print, "settings": make_settings()}),
    "make_settings": (make_settings, {}),
    "client_as": (client_as, {"subject": "ann"}),
    "Clock": (Clock, {}),
    "advance": (Clock().advance, {"seconds": 1}),
    **{
        decorator: (getattr(flask_m9m, decorator), {})
        for decorator in ("require_auth", "require_signed_url", "cors", "security_headers")
    },
    "rate_limit": (flask_m9m.rate_limit, {"limits": "100/hour"}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_public_function_names_the_argument_that_it_refuses(
    secured: tuple[Flask, M9M], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    function, valid = OTHERS[name]
    if name == "client_as":
        valid = {**valid, "app": secured[0]}
    assert faults(function, valid) == []


def faults(function: Callable[..., Any], valid: Mapping[str, Any]) -> list[str]:
    """Call a function with each hostile value in each parameter; describe the wrong outcomes."""
    documented = set(re.findall(r"\b[A-Z]\w+(?=: )", inspect.getdoc(function) or ""))
    found = []
    for parameter in inspect.signature(function).parameters.values():
        for value in HOSTILE:
            try:
                call(function, parameter, value, valid)
            except (TypeError, ValueError) as error:
                if isinstance(error, M9MError):
                    continue
                if "already registered" in str(error):
                    continue  # an earlier value was accepted
                named = re.search(rf"\b{parameter.name}\b", str(error))
                if named and type(error) in (TypeError, ValueError):
                    continue
                found.append(f"{parameter.name}={value!a:.40}: {type(error).__name__}: {error}")
            except Exception as error:
                kinds = {kind.__name__ for kind in type(error).__mro__}
                if not isinstance(error, M9MError) and not kinds & documented:
                    found.append(f"{parameter.name}={value!a:.40}: {type(error).__name__}: {error}")
    return found


def call(
    function: Callable[..., Any], parameter: inspect.Parameter, value: Any, valid: Mapping[str, Any]
) -> None:
    if parameter.kind is parameter.VAR_KEYWORD:
        function(**valid, anything=value)
    elif parameter.kind is parameter.VAR_POSITIONAL:
        function(*valid.values(), value)
    elif parameter.kind is parameter.POSITIONAL_ONLY:
        function(value, **{k: v for k, v in valid.items() if k != parameter.name})
    else:
        function(**{**valid, parameter.name: value})
