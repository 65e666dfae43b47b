"""HTTP Basic over the configured user and the app's own (RFC 7617)."""

from __future__ import annotations

import base64
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask
from werkzeug.security import generate_password_hash

from flask_m9m import M9M, Identity, current_identity, require_auth
from flask_m9m.testing import Clock, client_as, make_settings
from tests.bodies import error_of
from tests.conftest import CHALLENGES

PASSWORD = "pa:ss:wörd"
HASH = generate_password_hash(PASSWORD, "scrypt:1024:8:1")  # cheap, so that tests are quick


def credential(name: str | bytes, password: str = "") -> str:
    text = name if isinstance(name, bytes) else f"{name}:{password}".encode()
    return "Basic " + base64.b64encode(text).decode()


def secured(
    clock: Clock | None = None, *, basic: dict[str, Any] | None = None, **security: Any
) -> tuple[Flask, M9M]:
    app = Flask("app")
    app.testing = True
    user = {"enabled": True, "username": "ann", "password_hash": HASH}
    settings = {"security": {"basic_auth": user if basic is None else basic, **security}}
    m9m = M9M(app, settings=make_settings(settings), clock=clock)

    @app.route("/x", methods=["GET", "POST"])
    @require_auth
    def view() -> str:
        return f"{current_identity.scheme} {current_identity.subject}"

    return app, m9m


def ask(app: Flask, authorization: str | None, method: str = "GET", **headers: str) -> Any:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if authorization is not None:
        sent["Authorization"] = authorization
    return app.test_client().open("/x", method=method, headers=sent)


def test_the_configured_user_signs_in_with_every_request() -> None:
    app, _ = secured()
    for _ in range(3):
        answer = ask(app, credential("ann", PASSWORD))
        assert (answer.status_code, answer.text) == (200, "basic ann")
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_password_in_the_settings_is_hashed_and_not_kept_in_a_repr() -> None:
    app, _ = secured(basic={"enabled": True, "username": "ann", "password": PASSWORD})
    assert ask(app, credential("ann", PASSWORD)).status_code == 200
    assert ask(app, credential("ann", "wrong")).status_code == 401
    assert PASSWORD not in repr(vars(app.extensions["m9m"].guard))


def test_the_challenge_names_every_scheme_and_utf_8() -> None:
    app, _ = secured()
    for authorization in (None, credential("ann", "wrong"), "Basic !"):
        answer = ask(app, authorization)
        assert answer.status_code == 401
        assert answer.headers.getlist("WWW-Authenticate") == [
            *CHALLENGES,
            'Basic realm="m9m", charset="UTF-8"',
        ]
    assert answer.json["code"] == "INVALID_CREDENTIALS"


@pytest.mark.parametrize("mode", ["cors", "same-origin", "no-cors"])
def test_a_script_gets_no_challenge_that_makes_the_browser_ask(mode: str) -> None:
    app, _ = secured()
    app.add_url_rule("/own", "own", lambda: ("", 401))
    asked = ask(app, None, Sec_Fetch_Mode=mode)
    assert asked.headers.getlist("WWW-Authenticate") == CHALLENGES
    own = app.test_client().get("/own", headers={"Sec-Fetch-Mode": mode})
    assert own.headers.getlist("WWW-Authenticate") == CHALLENGES
    person = ask(app, None, Sec_Fetch_Mode="navigate")
    assert len(person.headers.getlist("WWW-Authenticate")) == 3
    alone, _ = secured(jwt={"enabled": False}, api_keys={"enabled": False})
    answer = ask(alone, None, Sec_Fetch_Mode=mode)
    assert answer.headers.getlist("WWW-Authenticate") == ['Basic realm="m9m", charset="UTF-8"']


@pytest.mark.parametrize(
    "authorization",
    [
        "Basic",
        "Basic ",
        "Basic !!!!",
        "Basic YW5u",  # no colon
        "Basic YW5u\x00",
        credential(b":secret"),
        credential(b":"),
        credential(b""),
        credential(b"ann\xff:x"),
        credential(b"ann:\xc3"),
        credential(b"ann:pass\x00word"),
        credential(b"ann\r\n:x"),
        credential("ann", "\x7f"),
        credential("ann", "\x85"),
        credential("ann", "x" * 1_000_000),
        credential("a" * 7000, "x"),
        credential("ann", PASSWORD) + "=",
        credential("ann", PASSWORD) + ", Basic x",
        credential("ANN", PASSWORD),
        credential("ann", PASSWORD + "x"),
        credential("ann", PASSWORD[:-1]),
        credential("ann", ""),
        credential("bob", PASSWORD),
    ],
)
def test_whatever_is_wrong_with_a_credential_is_the_same_401(authorization: str) -> None:
    app, _ = secured()
    answer = app.test_client().get("/x", environ_overrides={"HTTP_AUTHORIZATION": authorization})
    assert answer.status_code == 401
    assert error_of(answer) == {
        "error": "Unauthorized",
        "code": "INVALID_CREDENTIALS",
        "message": "Invalid credentials",
    }


def test_the_composed_and_the_decomposed_form_of_a_password_are_one() -> None:
    app, _ = secured()
    assert ask(app, credential("ann", "pa:ss:wo\u0308rd")).status_code == 200


def test_basic_and_a_token_at_once_are_no_choice_of_ours() -> None:
    app, _ = secured()
    token = client_as(app, "bob").environ_base["HTTP_AUTHORIZATION"]
    assert ask(app, token).text == "bearer bob"
    both = app.test_client().get(
        "/x", environ_overrides={"HTTP_AUTHORIZATION": f"{token}, {credential('ann', PASSWORD)}"}
    )
    assert both.status_code == 401


def test_schemes_choose_who_may_use_a_route() -> None:
    app, _ = secured()
    app.add_url_rule("/tokens", "tokens", require_auth(schemes="bearer")(lambda: "x"))
    headers = {"Authorization": credential("ann", PASSWORD)}
    answer = app.test_client().get("/tokens", headers=headers)
    assert answer.status_code == 401
    assert answer.headers.getlist("WWW-Authenticate") == ['Bearer realm="m9m"']


def test_an_app_verifies_its_own_users() -> None:
    app, m9m = secured(basic={"enabled": True})
    asked = []

    @m9m.password_verifier
    def verify(name: str, password: str) -> Identity | bool | None:
        asked.append(name)
        if (name, password) == ("bob", "secret"):
            return Identity("bob", "", roles=frozenset(["admin"]))
        return (name, password) == ("carol", "secret")

    app.add_url_rule("/admin", "admin", require_auth(roles="admin")(lambda: "admin"))
    bob, carol = (credential(name, "secret") for name in ("bob", "carol"))
    assert ask(app, bob).text == "basic bob"
    assert ask(app, carol).text == "basic carol"
    client = app.test_client()
    assert client.get("/admin", headers={"Authorization": bob}).status_code == 200
    assert client.get("/admin", headers={"Authorization": carol}).status_code == 403
    assert ask(app, credential("bob", "wrong")).status_code == 401
    assert asked == ["bob", "carol", "bob"]


def test_the_configured_user_counts_beside_the_apps_own() -> None:
    app, m9m = secured()
    m9m.password_verifier(lambda name, password: (name, password) == ("bob", "secret"))
    assert ask(app, credential("ann", PASSWORD)).text == "basic ann"
    assert ask(app, credential("bob", "secret")).text == "basic bob"


def test_a_good_verification_is_kept_for_a_minute_and_a_bad_one_is_not(clock: Clock) -> None:
    app, m9m = secured(clock, basic={"enabled": True})
    asked = []

    @m9m.password_verifier
    def verify(name: str, password: str) -> bool:
        asked.append(password)
        return password == "secret"

    for _ in range(5):
        assert ask(app, credential("ann", "secret")).status_code == 200
        assert ask(app, credential("ann", "wrong")).status_code == 401
    assert asked.count("secret") == 1
    assert asked.count("wrong") == 5
    clock.advance(60)
    ask(app, credential("ann", "secret"))
    assert asked.count("secret") == 2


def guess(app: Flask, times: int, name: str = "ann", address: str = "203.0.113.1") -> list[int]:
    return [
        app.test_client()
        .get(
            "/x",
            headers={"Authorization": credential(name, f"guess-{number}")},
            environ_base={"REMOTE_ADDR": address},
        )
        .status_code
        for number in range(times)
    ]


def test_the_first_failures_answer_401_and_the_next_429(clock: Clock) -> None:
    app, _ = secured(clock, lockout={"attempts": 3, "per": "1m"})
    assert guess(app, 5) == [401, 401, 401, 429, 429]
    refused = ask(app, credential("ann", "x"), X="y")
    assert refused.status_code == 429
    assert refused.json["code"] == "TOO_MANY_ATTEMPTS"
    assert refused.headers["Retry-After"] == "20"
    assert refused.headers["Cache-Control"] == "no-store"
    clock.advance(20)
    assert guess(app, 2) == [401, 429]


def test_guesses_count_by_account_whatever_the_address_and_by_address_whatever_the_account(
    clock: Clock,
) -> None:
    app, _ = secured(clock, lockout={"attempts": 3})
    by_account = [guess(app, 1, address=f"203.0.113.{n}")[0] for n in range(5)]
    assert by_account == [401, 401, 401, 429, 429]
    by_address = [guess(app, 1, name=f"user-{n}", address="198.51.100.1")[0] for n in range(5)]
    assert by_address == [401, 401, 401, 429, 429]


def test_unknown_names_count_and_answer_like_known_ones(clock: Clock) -> None:
    app, _ = secured(clock, lockout={"attempts": 2})
    assert guess(app, 4, name="nobody", address="203.0.113.1") == [401, 401, 429, 429]
    assert guess(app, 4, name="ann", address="203.0.113.2") == [401, 401, 429, 429]


def test_no_password_is_normalized_before_the_lockout_admits_the_attempt(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, _ = secured(clock, lockout={"attempts": 1, "per": "1m"})
    normalized = []
    monkeypatch.setattr(
        "flask_m9m.auth.sign_in.normalize", lambda text: normalized.append(text) or text
    )
    long = "\u0315\u05b0" * 1_400
    assert ask(app, credential("ann", long)).status_code == 401
    assert long in normalized
    normalized.clear()
    assert ask(app, credential("ann", long)).status_code == 429
    assert not normalized


def test_a_name_that_nobody_can_have_is_refused_like_any_malformed_credential(
    clock: Clock,
) -> None:
    asked = []
    app, m9m = secured(clock, basic={"enabled": True})
    m9m.password_verifier(lambda name, password: asked.append(name) or True)
    for name, status in (("x" * 255, 200), ("x" * 256, 401), ("\u0315\u05b0" * 1_400, 401)):
        assert ask(app, credential(name, "x")).status_code == status
    assert asked == ["x" * 255]


def test_what_succeeds_takes_nothing_and_requests_without_credentials_neither(
    clock: Clock,
) -> None:
    app, m9m = secured(clock, basic={"enabled": True}, lockout={"attempts": 2})
    m9m.password_verifier(lambda name, password: password == "secret")
    for _ in range(20):
        clock.advance(0.001)
        assert ask(app, None).status_code == 401
        assert ask(app, credential(f"user-{clock()}", "secret")).status_code == 200


def test_a_stranger_who_guesses_all_the_time_locks_out_neither_password_nor_token(
    clock: Clock,
) -> None:
    app, _ = secured(clock, lockout={"attempts": 3})
    good = {"Authorization": credential("ann", PASSWORD)}
    home, client = {"REMOTE_ADDR": "192.0.2.7"}, app.test_client()
    assert client.get("/x", headers=good, environ_base=home).status_code == 200
    clock.advance(3600)
    for minute in range(5):
        guess(app, 10, address=f"203.0.113.{minute}")
        clock.advance(59)
        guess(app, 10, address=f"203.0.113.{minute}")
        assert client.get("/x", headers=good, environ_base=home).status_code == 200
        assert client_as(app, "ann").get("/x").text == "bearer ann"
    strange = {"REMOTE_ADDR": "198.51.100.9"}
    assert client.get("/x", headers=good, environ_base=strange).status_code == 429
    clock.advance(31 * 86_400)
    guess(app, 10)
    assert client.get("/x", headers=good, environ_base=home).status_code == 429


def test_a_guesser_at_the_owners_address_has_a_counter_too(clock: Clock) -> None:
    app, _ = secured(clock, lockout={"attempts": 3})
    good = {"Authorization": credential("ann", PASSWORD)}
    home = {"REMOTE_ADDR": "192.0.2.7"}
    app.test_client().get("/x", headers=good, environ_base=home)
    assert guess(app, 5, address="192.0.2.7") == [401, 401, 401, 429, 429]


def test_lockout_can_be_switched_off(clock: Clock) -> None:
    app, _ = secured(clock, lockout={"enabled": False, "attempts": 1})
    assert guess(app, 5) == [401] * 5


def test_parallel_guesses_never_reach_the_hash_more_often_than_the_counter_allows() -> None:
    app, m9m = secured(basic={"enabled": True}, lockout={"attempts": 5, "per": "1h"})
    asked = []
    lock = threading.Lock()

    @m9m.password_verifier
    def verify(name: str, password: str) -> bool:
        with lock:
            asked.append(password)
        return False

    barrier = threading.Barrier(16)

    def attack(number: int) -> list[int]:
        barrier.wait()
        return guess(app, 4, address=f"203.0.113.{number}")

    with ThreadPoolExecutor(16) as pool:
        statuses = [status for part in pool.map(attack, range(16)) for status in part]
    assert len(asked) == statuses.count(401) == 5
    assert statuses.count(429) == 59


def test_an_error_of_the_apps_verifier_is_no_guess() -> None:
    app, m9m = secured(basic={"enabled": True}, lockout={"attempts": 1})
    app.testing = False

    @m9m.password_verifier
    def verify(name: str, password: str) -> bool:
        raise ZeroDivisionError

    assert guess(app, 3) == [500, 500, 500]


CROSS = [
    ({"Sec_Fetch_Site": "cross-site"}, 403),
    ({"Sec_Fetch_Site": "same-site"}, 403),
    ({"Sec_Fetch_Site": "same-origin", "Origin": "http://localhost"}, 200),
    ({"Sec_Fetch_Site": "none"}, 200),
    ({"Origin": "https://evil.example"}, 403),
    ({"Origin": "null"}, 403),
    ({"Origin": "https://localhost"}, 403),
    ({"Origin": "http://localhost:8080"}, 403),
    ({"Origin": "http://localhost"}, 200),
    ({"Origin": "https://app.example.com", "Sec_Fetch_Site": "cross-site"}, 200),
    ({"Origin": "https://app.example.com.evil.net", "Sec_Fetch_Site": "cross-site"}, 403),
    ({}, 200),
]


@pytest.mark.parametrize(("headers", "expected"), CROSS)
def test_another_site_cannot_use_the_password_that_a_browser_remembers(
    headers: dict[str, str], expected: int
) -> None:
    cors = {"allowed_origins": ["https://app.example.com"], "allow_credentials": True}
    app, _ = secured(cors=cors)
    answer = ask(app, credential("ann", PASSWORD), "POST", **headers)
    assert answer.status_code == expected
    if expected == 403:
        assert answer.json["code"] == "CSRF_FAILED"
        assert answer.headers["Cache-Control"] == "no-store"
    assert ask(app, credential("ann", PASSWORD), "GET", **headers).status_code == 200
    token = client_as(app, "bob").environ_base["HTTP_AUTHORIZATION"]
    assert ask(app, token, "POST", **headers).status_code == 200


def test_an_origin_that_cors_lets_in_without_credentials_sends_none() -> None:
    for origins in (["https://app.example.com"], ["*"]):
        app, _ = secured(cors={"allowed_origins": origins})
        headers = {"Origin": "https://app.example.com"}
        assert ask(app, credential("ann", PASSWORD), "POST", **headers).status_code == 403


def test_a_scheme_of_the_apps_own_proves_identities() -> None:
    from flask import request

    from flask_m9m.errors import InvalidCredentials

    app, m9m = secured(basic={"enabled": False})

    @m9m.authenticator("device")
    def device() -> Identity | None:
        number = request.headers.get("X-Device")
        if number is None:
            return None
        if not number.isdecimal():
            raise InvalidCredentials
        return Identity(f"device-{number}", "ignored", scopes=frozenset(["report"]))

    app.add_url_rule("/d", "d", require_auth(scopes="report", schemes="device")(lambda: "d"))
    assert ask(app, None, X_Device="7").text == "device device-7"
    assert ask(app, None, X_Device="x").status_code == 401
    assert ask(app, None).headers.getlist("WWW-Authenticate") == CHALLENGES
    token = client_as(app, "ann", ["report"]).environ_base["HTTP_AUTHORIZATION"]
    assert ask(app, token, X_Device="7").status_code == 400
    client = app.test_client()
    assert client.get("/d", headers={"X-Device": "7"}).status_code == 200
    assert client.get("/d", headers={"Authorization": token}).status_code == 401
    for taken in ("device", "bearer", "basic", "api_key"):
        with pytest.raises(ValueError, match="already"):
            m9m.authenticator(taken)(device)


def test_what_is_no_identity_lets_nobody_in() -> None:
    app, m9m = secured(basic={"enabled": False})
    answers: list[Callable[[], Any]] = [lambda: True, lambda: "ann", lambda: 1 / 0]
    for number, answer in enumerate(answers):
        m9m.authenticator(f"broken-{number}")(answer)
        app.add_url_rule(
            f"/{number}", str(number), require_auth(schemes=f"broken-{number}")(lambda: "x")
        )
    app.testing = False
    for number in range(len(answers)):
        assert app.test_client().get(f"/{number}").status_code == 500


def test_an_identity_is_enriched_for_each_request_or_kept_for_a_while(clock: Clock) -> None:
    from dataclasses import replace

    for lifetime, expected in ((None, 3), ("60s", 2)):
        app, m9m = secured(clock)
        loaded = []

        def load(identity: Identity, loaded: list[str] = loaded) -> Identity | None:
            loaded.append(identity.subject)
            if identity.subject == "banned":
                return None
            return replace(identity, roles=identity.roles | {"staff"})

        if lifetime is None:
            m9m.identity_loader(load)
        else:
            m9m.identity_loader(lifetime=lifetime)(load)
        app.add_url_rule("/staff", "staff", require_auth(roles="staff")(lambda: "staff"))
        ann, banned = client_as(app, "ann"), client_as(app, "banned")
        assert [ann.get("/staff").status_code for _ in range(2)] == [200, 200]
        clock.advance(60)
        assert ann.get("/staff").status_code == 200
        assert loaded == ["ann"] * expected
        assert banned.get("/staff").status_code == 401


def test_a_password_that_is_remembered_can_be_guessed_no_faster_than_another(
    clock: Clock,
) -> None:
    app, _ = secured(clock, lockout={"attempts": 3})
    good = {"Authorization": credential("ann", PASSWORD)}
    home, strange = {"REMOTE_ADDR": "192.0.2.7"}, {"REMOTE_ADDR": "203.0.113.1"}
    client = app.test_client()
    assert client.get("/x", headers=good, environ_base=home).status_code == 200
    assert guess(app, 4, address="203.0.113.1") == [401, 401, 401, 429]
    assert client.get("/x", headers=good, environ_base=strange).status_code == 429
    assert client.get("/x", headers=good, environ_base=home).status_code == 200


@pytest.mark.parametrize("answer", [False, "", {}, True, "ann", 7])
@pytest.mark.parametrize("optional", [True, False])
def test_a_loader_that_returns_no_identity_lets_nobody_in(answer: Any, optional: bool) -> None:
    app, m9m = secured()
    m9m.identity_loader(lambda identity: answer)
    app.add_url_rule("/in", "in", require_auth(optional=optional)(lambda: "in"))
    app.testing = False
    headers = {"Authorization": credential("ann", PASSWORD)}
    assert app.test_client().get("/in", headers=headers).status_code == 500
    assert client_as(app, "ann").get("/in").status_code == 500


def test_what_was_loaded_for_one_app_is_nothing_to_another() -> None:
    from dataclasses import replace

    from flask import current_app

    m9m, apps = M9M(), []

    @m9m.identity_loader(lifetime="60s")
    def load(identity: Identity) -> Identity:
        return replace(identity, scheme="other", roles=frozenset([current_app.name]))

    basic = {"enabled": True, "username": "ann", "password_hash": HASH}
    for name in ("admin", "guest"):
        app = Flask(name)
        app.testing = True
        m9m.init_app(app, settings=make_settings({"security": {"basic_auth": basic}}))
        app.add_url_rule("/x", "x", require_auth(roles="admin")(lambda: current_identity.scheme))
        apps.append(app)
    assert [ask(app, credential("ann", PASSWORD)).status_code for app in apps] == [200, 403]
    assert ask(apps[0], credential("ann", PASSWORD)).text == "basic"


@pytest.mark.parametrize("error", [401, 403, 404, "token", "denied"])
def test_guesses_count_however_the_app_says_that_they_are_wrong(clock: Clock, error: Any) -> None:
    from flask import abort

    from flask_m9m.errors import AccessDenied, InvalidToken

    app, m9m = secured(clock, basic={"enabled": True}, lockout={"attempts": 3})

    @m9m.password_verifier
    def verify(name: str, password: str) -> bool:
        if isinstance(error, int):
            abort(error)
        raise InvalidToken if error == "token" else AccessDenied

    assert guess(app, 5) == [401, 401, 401, 429, 429]


def test_whom_the_loader_refuses_counts_like_a_wrong_password(clock: Clock) -> None:
    app, m9m = secured(clock, lockout={"attempts": 3})
    m9m.identity_loader(lambda identity: None)
    statuses = [ask(app, credential("ann", PASSWORD)).status_code for _ in range(5)]
    assert statuses == [401, 401, 401, 429, 429]


def at_once(app: Flask, count: int, password: str = PASSWORD) -> Counter[int]:
    with ThreadPoolExecutor(count) as pool:
        asked = pool.map(lambda _: ask(app, credential("ann", password)).status_code, range(count))
        return Counter(asked)


def test_no_request_waits_for_the_loader_of_another_one() -> None:
    app, m9m = secured()
    all_are_here = threading.Barrier(20)

    @m9m.identity_loader
    def load(identity: Identity) -> Identity:
        all_are_here.wait(30)
        return identity

    assert at_once(app, 20) == {200: 20}


@pytest.mark.parametrize("good", [True, False])
def test_a_request_goes_on_where_the_apps_own_verifier_is_slow(
    monkeypatch: pytest.MonkeyPatch, good: bool
) -> None:
    monkeypatch.setattr("flask_m9m.auth.sign_in._PATIENCE", 0.01)
    app, m9m = secured(basic={"enabled": True})
    all_are_here = threading.Barrier(8)

    @m9m.password_verifier
    def verify(name: str, password: str) -> bool:
        all_are_here.wait(30)
        return good

    assert at_once(app, 8) == {200 if good else 401: 8}


def test_the_apps_verifier_is_called_once_for_requests_that_come_at_once() -> None:
    app, m9m = secured(basic={"enabled": True})
    called, go_on = [], threading.Event()

    @m9m.password_verifier
    def verify(name: str, password: str) -> bool:
        called.append(name)
        go_on.wait(0.2)
        return True

    assert at_once(app, 16) == {200: 16}
    assert called == ["ann"]


def test_turns_are_not_kept_beyond_their_requests() -> None:
    app, _ = secured()
    for number in range(50):
        ask(app, credential("ann", f"wrong {number}"))
    assert app.extensions["m9m"].identities.sign_in._verified._turns == {}


def test_many_at_once_with_the_right_password_all_get_in() -> None:
    app, _ = secured(basic={"enabled": True, "username": "ann", "password_hash": HASH})
    barrier = threading.Barrier(16)

    def sign_in(_: int) -> int:
        barrier.wait()
        return int(ask(app, credential("ann", PASSWORD)).status_code)

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(sign_in, range(16))) == [200] * 16


def test_no_spelling_of_a_name_has_a_counter_of_its_own(clock: Clock) -> None:
    app, _ = secured(clock, lockout={"attempts": 3})
    spellings = ["ann", "Ann", "ANN", "\uff41nn", "aNN", "anN"]
    statuses = [
        guess(app, 1, name=name, address=f"203.0.113.{number}")[0]
        for number, name in enumerate(spellings)
    ]
    assert statuses == [401, 401, 401, 429, 429, 429]


def test_slow_verifications_give_back_no_token_that_has_come_by_itself(clock: Clock) -> None:
    app, m9m = secured(clock, basic={"enabled": True}, lockout={"attempts": 10, "per": "10s"})
    m9m.password_verifier(lambda name, password: bool(clock.advance(2)) or password == "secret")
    for number in range(3):
        assert ask(app, credential(f"user-{number}", "secret")).status_code == 200
    store = app.extensions["m9m"].guard.store
    tats = [
        tat for bucket in store._tables["attempts-address"] if bucket for tat, _ in bucket.values()
    ]
    assert tats
    assert max(tats) <= int(clock() * 1_000_000)


@pytest.mark.parametrize("origin", ["null", "https://example.com", "http://other.example"])
def test_a_page_of_the_same_origin_is_believed_about_that(origin: str) -> None:
    """Under `Referrer-Policy: no-referrer` a browser sends a form's `Origin: null`."""
    app, _ = secured()
    headers = {"Sec_Fetch_Site": "same-origin", "Origin": origin}
    assert ask(app, credential("ann", PASSWORD), "POST", **headers).status_code == 200


def test_a_scheme_of_the_apps_own_that_browsers_send_is_held_to_its_site() -> None:
    from flask import request

    app, m9m = secured(basic={"enabled": False})

    @m9m.authenticator("session", ambient=True)
    def session() -> Identity | None:
        return Identity("ann", "session") if request.headers.get("X-Session") else None

    for headers, expected in (({}, 200), ({"Sec_Fetch_Site": "cross-site"}, 403)):
        assert ask(app, None, "POST", X_Session="1", **headers).status_code == expected


def test_over_a_unix_socket_one_guesser_does_not_shut_all_others_out(clock: Clock) -> None:
    app, _ = secured(clock, lockout={"attempts": 3})
    assert guess(app, 5, name="bob", address="") == [401, 401, 401, 429, 429]
    headers = {"Authorization": credential("ann", PASSWORD)}
    answer = app.test_client().get("/x", headers=headers, environ_base={"REMOTE_ADDR": ""})
    assert answer.status_code == 200
