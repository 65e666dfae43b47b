"""The life of credentials of every kind: made, used rightly and wrongly, revoked and expired.

Run as a program with a database's URL, it does all that, prints what the secrets are, and dies
before anything can be tidied up.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

from flask import Flask, request

from flask_m9m import M9M, public, require_auth
from flask_m9m.auth.api_key_format import make_key
from flask_m9m.errors import M9MError
from flask_m9m.testing import Clock, make_settings

PREFIX = "m9m_sk_"
SETTINGS = {
    "basic_auth": {"enabled": True},
    "lockout": {"enabled": False},
    "revocation": {"max_staleness": "30s"},
}


def make_app(clock: Clock, secret: str, engine: Any = None, **settings: Any) -> tuple[Flask, M9M]:
    """Make an app whose errors are logged, as they are outside tests."""
    app = Flask("app")
    security = {**SETTINGS, "jwt": {"secret": secret}}
    given = make_settings({"security": security, **settings})
    m9m = M9M(app, settings=given, clock=clock, engine=engine)

    @app.get("/x")
    @require_auth
    def view() -> str:
        return "x"

    @app.get("/broken")
    @require_auth
    def broken() -> str:
        credential = request.headers.get("Authorization") or request.headers["X-API-Key"]
        raise RuntimeError(f"broken, {len(credential)}")

    @app.post("/login")
    @public
    def login() -> Any:
        given = request.get_json()
        user = m9m.users.verify_password(given["username"], given["password"])
        if user is None:
            return {}, 401
        pair = m9m.tokens.issue_pair(user.username)
        return {"access": pair.access_token, "refresh": pair.refresh_token}

    @app.post("/refresh")
    @public
    def refresh() -> Any:
        pair = m9m.tokens.refresh(request.get_json()["token"])
        return {"access": pair.access_token, "refresh": pair.refresh_token}

    return app, m9m


class Life:
    """The credentials of one app.

    Args:
        app: the app, over a database of its own.
        m9m: its extension.
        clock: its clock.

    Attributes:
        secrets: what each secret is, and its random part.
        headers: what to send for each credential that went over HTTP.
        errors: what was raised.
        objects: what was returned of which a developer may print or log any.
    """

    def __init__(self, app: Flask, m9m: M9M, clock: Clock) -> None:
        self.app, self.m9m, self.clock = app, m9m, clock
        self.secrets: dict[str, str] = {}
        self.headers: dict[str, dict[str, str]] = {}
        self.errors: list[BaseException] = []
        self.objects: list[Any] = [app.extensions["m9m"], m9m, app.extensions["m9m"].database]

    def lead(self) -> None:
        """Make everything, use it rightly and wrongly, and let it end."""
        with self.app.app_context():
            self._users()
            self._keys()
            self._tokens()
            self._sessions()
            self._refused()

    def statuses(self, path: str) -> dict[str, int]:
        """Ask with every credential."""
        client = self.app.test_client()
        return {
            name: client.get(path, headers=headers).status_code
            for name, headers in self.headers.items()
        }

    def _ask(self, name: str, headers: dict[str, str], status: int) -> None:
        self.headers[name] = headers
        for path, expected in (("/x", status), ("/broken", 500 if status == 200 else status)):
            found = self.app.test_client().get(path, headers=headers).status_code
            assert found == expected, f"{name}: {found}"

    def _post(self, path: str, status: int, **body: str) -> Any:
        answer = self.app.test_client().post(path, json=body)
        assert answer.status_code == status, f"{path}: {answer.status_code}"
        return answer.json

    def _password(self, name: str) -> str:
        password = secrets.token_urlsafe(24)
        self.secrets[f"password, {name}"] = password
        return password

    def _basic(self, name: str, user: str, password: str, status: int) -> None:
        sent = b64encode(f"{user}:{password}".encode()).decode()
        self._ask(name, {"Authorization": f"Basic {sent}"}, status)

    def _users(self) -> None:
        users, first, good = self.m9m.users, self._password("replaced"), self._password("good")
        wrong, gone = self._password("wrong"), self._password("of a disabled user")
        self.objects.append(users.create("ann", first, roles=["editor"]))
        users.create("gone", gone)
        users.set_password("ann", good)
        users.disable("gone")
        self.objects += [users.get("ann"), users.list(), users.verify_password("ann", good)]
        self._basic("basic", "ann", good, 200)
        self._basic("basic, replaced", "ann", first, 401)
        self._basic("basic, wrong", "ann", wrong, 401)
        self._basic("basic, unknown", "nobody", wrong, 401)
        self._basic("basic, disabled", "gone", gone, 401)
        self._post("/login", 401, username="ann", password=wrong)
        self._tell("login", self._post("/login", 200, username="ann", password=good))

    def _tell(self, name: str, pair: dict[str, str]) -> None:
        for kind, token in pair.items():
            self._token(f"{kind}, {name}", token)

    def _token(self, name: str, token: str) -> str:
        self.secrets[f"token, {name}"] = token.rpartition(".")[2]
        return token

    def _key(self, name: str, **options: Any) -> tuple[Any, str]:
        key, text = self.m9m.api_keys.create("ci", "ann", **options)
        self.objects.append(key)
        return key, self._known(name, text)

    def _known(self, name: str, text: str) -> str:
        self.secrets[f"key, {name}"] = text.removeprefix(PREFIX)
        return text

    def _keys(self) -> None:
        soon = datetime.fromtimestamp(self.clock() + 60.0, UTC)
        (_, good), (revoked, was) = self._key("good"), self._key("revoked")
        old, rotated = self._key("rotated")
        _, expired = self._key("expired", expires_at=soon)
        self.m9m.api_keys.revoke(revoked.id)
        new, following = self.m9m.api_keys.rotate(old.id, grace=0)
        self.objects += [new, self.m9m.api_keys.list()]
        self._known("following", following)
        self.clock.advance(60.0)
        mistyped = good[:-1] + ("0" if good[-1] != "0" else "1")
        for name, text, status in (
            ("good", good, 200),
            ("following", following, 200),
            ("revoked", was, 401),
            ("rotated", rotated, 401),
            ("expired", expired, 401),
            ("unknown", self._known("unknown", make_key(PREFIX)), 401),
            ("mistyped", mistyped, 401),
            ("cut", good[:-6], 401),
        ):
            self._ask(f"key, {name}", {"X-API-Key": text}, status)
            self._ask(f"key beside, {name}", {"Authorization": f"Api-Key {text}"}, status)
        answer = self.app.test_client().get("/x", query_string={"api_key": good})
        assert answer.status_code == 401

    def _tokens(self) -> None:
        tokens = self.m9m.tokens
        good, revoked = (
            self._token(one, tokens.issue("bob", claims={"email": "bob@example.com"}))
            for one in ("good", "revoked")
        )
        expired = self._token("expired", tokens.issue("bob", expires_in=1))
        self.objects.append(tokens.verify(good))
        tokens.revoke(revoked)
        self.clock.advance(60.0)
        forged = good.rpartition(".")[0] + "." + secrets.token_urlsafe(32)
        for name, token, status in (
            ("good", good, 200),
            ("revoked", revoked, 401),
            ("expired", expired, 401),
            ("forged", self._token("forged", forged), 401),
        ):
            self._ask(f"token, {name}", {"Authorization": f"Bearer {token}"}, status)

    def _sessions(self) -> None:
        tokens = self.m9m.tokens
        first = tokens.issue_pair("ann")
        self.objects.append(first)
        self._tell("first", {"access": first.access_token, "refresh": first.refresh_token})
        second = self._post("/refresh", 200, token=first.refresh_token)
        self._tell("second", second)
        self._ask("token, second", {"Authorization": f"Bearer {second['access']}"}, 200)
        self._post("/refresh", 409, token=first.refresh_token)
        with self.app.extensions["m9m"].database.write() as transaction:
            self.objects.append(
                transaction.identities.session(tokens.verify(second["access"]).claims["sid"])
            )
        self.clock.advance(11.0)
        self._post("/refresh", 401, token=first.refresh_token)
        self._post("/refresh", 401, token=second["refresh"])
        self._ask("token, second", {"Authorization": f"Bearer {second['access']}"}, 401)
        self._ask("refresh", {"Authorization": f"Bearer {second['refresh']}"}, 401)

    def _refused(self) -> None:
        """Have the library raise whatever it raises about a secret."""
        users, tokens, text = self.m9m.users, self.m9m.tokens, self._password("refused")
        refusals: list[Callable[[], Any]] = [
            lambda: users.create("ann", text),
            lambda: users.create("bob", f"{text}\n"),
            lambda: users.create("bob", f"{text}\ud800"),
            lambda: users.create("bob", text * 200),
            lambda: users.create("b:b", text),
            lambda: users.set_password("nobody", text),
            lambda: tokens.verify(text),
            lambda: tokens.refresh(text),
            lambda: tokens.revoke(f"ey.{text}.{text}"),
        ]
        for name, headers in self.headers.items():
            if name.startswith(("token", "refresh")):
                token = headers["Authorization"].removeprefix("Bearer ")
                refusals += [
                    partial(act, token) for act in (tokens.verify, tokens.refresh, tokens.revoke)
                ]
        for refusal in refusals:
            self.raises(refusal)

    def raises(self, act: Callable[[], Any]) -> None:
        """Keep what is raised by something that may fail."""
        try:
            with self.app.app_context():
                act()
        except (M9MError, ValueError) as error:
            self.errors.append(error)

    def writes(self) -> Iterator[Callable[[], Any]]:
        """Yield what makes or changes something."""
        m9m = self.m9m
        yield lambda: m9m.users.create("new", self._password("new"))
        yield lambda: m9m.users.set_password("ann", self._password("newer"))
        yield lambda: m9m.api_keys.create("ci", "ann")
        yield lambda: m9m.tokens.issue_pair("ann")
        yield lambda: m9m.tokens.revoke_subject("bob")
        yield self.app.extensions["m9m"].identities.api_keys._feed.write_batches


def main() -> None:
    """Lead a life, say what was secret in it, and die."""
    import flask_m9m.auth.passwords as passwords

    passwords.METHOD = "scrypt:1024:8:1"
    clock, secret = Clock(), secrets.token_urlsafe(48)
    app, m9m = make_app(clock, secret, database={"url": sys.argv[1]})
    app.extensions["m9m"].database.upgrade()
    life = Life(app, m9m, clock)
    life.lead()
    with suppress(M9MError):
        app.extensions["m9m"].identities.api_keys._feed.write_batches()
    print(json.dumps({**life.secrets, "secret": secret}), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
