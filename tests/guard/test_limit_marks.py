"""Limits that count only some answers, that only report, and routes without the general one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask, Response, abort, request
from flask.testing import FlaskClient
from flask.views import MethodView

from flask_m9m import M9M, public, rate_limit, require_auth, unlimited
from flask_m9m.ratelimit import Hit, MemoryStore, RateLimit, StoreFailure
from flask_m9m.testing import Clock, client_as, make_settings
from tests.conftest import MakeApp
from tests.databases import settle
from tests.guard.test_rate_limits import general, unmarked


def failed(answer: Response) -> bool:
    return answer.status_code >= 400


def statuses(client: FlaskClient, path: str, times: int) -> list[int]:
    return [client.get(path).status_code for _ in range(times)]


class FailingStore(MemoryStore):
    """A store that is gone as long as it is told so."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock=clock)
        self.gone = self.no_refunds = False

    def hit(self, limit: RateLimit, client: str, cost: int = 1) -> Hit:
        if self.gone:
            raise StoreFailure("gone")
        return super().hit(limit, client, cost)

    def refund(self, limit: RateLimit, client: str, cost: int = 1) -> None:
        if self.gone or self.no_refunds:
            raise StoreFailure("gone")
        super().refund(limit, client, cost)


@pytest.fixture
def make_failing(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, make_app: MakeApp
) -> Callable[..., tuple[Flask, FailingStore]]:
    """Return a function that makes an app whose limits are kept in a store that can fail."""

    def make(settings: dict[str, Any] | None = None) -> tuple[Flask, FailingStore]:
        store = FailingStore(clock)
        app = make_app(settings)
        with monkeypatch.context() as patched:
            patched.setattr("flask_m9m.ratelimit.stores.MemoryStore", lambda **_: store)
            assert app.extensions["m9m"].guard.store is store
        return app, store

    return make


# Several limits


def test_a_refused_request_takes_nothing_from_the_other_limits(app: Flask, clock: Clock) -> None:
    view = rate_limit("1/minute", burst=1, name="tight")(
        rate_limit("5/hour", name="wide")(lambda: "x")
    )
    app.add_url_rule("/x", "x", view)
    client = app.test_client()
    assert client.get("/x").headers["RateLimit"].startswith('"wide";r=4')
    refused = [client.get("/x") for _ in range(20)]
    assert {answer.status_code for answer in refused} == {429}
    assert refused[-1].headers["RateLimit"] == '"wide";r=4;t=720, "tight";r=0;t=60'
    clock.advance(60)
    assert client.get("/x").headers["RateLimit"].startswith('"wide";r=3')


def test_a_key_that_is_used_up_takes_nothing_of_its_callers_budget(
    database_url: str, clock: Clock
) -> None:
    app = Flask("app")
    limit = {"enabled": True, "requests_per_minute": 60, "burst": 9, "key": "identity"}
    settings = {"database": {"url": database_url}, "performance": {"rate_limit": limit}}
    app.testing = True
    m9m = M9M(app, settings=make_settings(settings), clock=clock)
    app.extensions["m9m"].database.upgrade()
    view = rate_limit("100/hour", burst=8)(require_auth(lambda: "x"))
    app.add_url_rule("/x", "x", view)
    with app.app_context():
        _, key = m9m.api_keys.create("ci", "ann", rate_limit="2/hour")
    client = app.test_client()
    answers = [client.get("/x", headers={"X-API-Key": key}) for _ in range(12)]
    assert [answer.status_code for answer in answers] == [200] * 2 + [429] * 10
    assert answers[1].headers["RateLimit"].count("r=") == 3
    assert '"default";r=7' in answers[-1].headers["RateLimit"]
    assert '"api-key";r=0' in answers[-1].headers["RateLimit"]
    assert '"x"' not in answers[-1].headers["RateLimit"]
    settle()
    app.extensions["m9m"].database.close()


def test_a_cost_that_cannot_be_is_refused_before_anything_is_taken(app: Flask) -> None:
    view = rate_limit("5/hour", cost=lambda: int(request.args["cost"]), name="computed")(
        lambda: "x"
    )
    app.add_url_rule("/x", "x", rate_limit("5/hour", name="fixed")(view))
    client = app.test_client()
    assert client.get("/x?cost=9").headers["RateLimit"] == '"computed";r=0;t=3600'
    assert '"fixed";r=4' in client.get("/x?cost=1").headers["RateLimit"]


def test_threads_that_are_refused_take_nothing_from_the_other_limits(app: Flask) -> None:
    tight = rate_limit("7/hour", name="tight")(lambda: "x")
    app.add_url_rule("/x", "x", rate_limit("500/hour", name="wide")(tight))
    seen: list[int] = []
    threads = [
        threading.Thread(target=lambda: seen.extend(statuses(app.test_client(), "/x", 20)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (seen.count(200), seen.count(429)) == (7, 153)
    store = app.extensions["m9m"].guard.store
    assert {one.limit.name: one.hit.remaining for one in store.spenders()} == {
        "tight": 0,
        "wide": 493,
    }


def test_a_callable_that_raises_frees_no_request_of_the_limits_before_it(
    make_app: MakeApp,
) -> None:
    app = make_app(general(1, 2, key="identity"))
    tenant = rate_limit("9/hour", key=lambda: request.args["tenant"])(lambda: "x")
    app.add_url_rule("/x", "x", tenant)
    assert statuses(app.test_client(), "/x", 3) == [400, 400, 429]


# A store that fails


@pytest.mark.parametrize("key", ["address", "identity"])
def test_a_store_that_fails_refuses_with_503_and_says_when_to_try_again(
    make_failing: Callable[..., tuple[Flask, FailingStore]], key: str
) -> None:
    app, store = make_failing(general(60, 9, key=key))
    app.add_url_rule("/x", "x", lambda: "x")
    client = app.test_client()
    assert client.get("/x").status_code == 200
    store.gone = True
    answer = client.get("/x")
    assert answer.status_code == 503
    assert answer.json is not None
    assert answer.json["code"] == "SERVICE_UNAVAILABLE"
    assert answer.headers["Retry-After"] == "2"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "RateLimit" not in answer.headers
    store.gone = False
    assert client.get("/x").status_code == 200


def test_a_store_that_fails_closes_limited_routes_and_no_others(
    make_failing: Callable[..., tuple[Flask, FailingStore]],
) -> None:
    app, store = make_failing()
    app.add_url_rule("/x", "x", rate_limit("9/hour")(lambda: "x"))
    app.add_url_rule("/two", "two", rate_limit("9/hour;99/day")(lambda: "x"))
    app.add_url_rule("/hidden", "hidden", unmarked(rate_limit("9/hour")(lambda: "x")))
    app.add_url_rule("/free", "free", lambda: "x")
    store.gone = True
    paths = ("/x", "/two", "/hidden", "/free")
    assert [app.test_client().get(path).status_code for path in paths] == [503, 503, 503, 200]


def test_a_store_that_fails_lets_nobody_guess(
    make_failing: Callable[..., tuple[Flask, FailingStore]],
) -> None:
    basic = {"enabled": True, "username": "ann", "password": "right horse battery"}
    app, store = make_failing({"security": {"basic_auth": basic}})
    app.add_url_rule("/x", "x", require_auth(lambda: "x"))
    client = app.test_client()
    store.gone = True
    for password in ("wrong", "right horse battery"):
        answer = client.get("/x", auth=("ann", password))
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "2"
    assert client.get("/x", headers={"Authorization": "Bearer a.b.c"}).status_code == 503
    assert client_as(app, "bob").get("/x").status_code == 200
    store.gone, store.no_refunds = False, True
    assert client.get("/x", auth=("ann", "right horse battery")).status_code == 200


def test_a_store_that_fails_lets_nobody_log_in_over_the_rest_api(
    make_failing: Callable[..., tuple[Flask, FailingStore]],
) -> None:
    app, store = make_failing({"api": {"enabled": True}})
    store.gone = True
    sent = {"username": "ann", "password": "right horse battery"}
    answer = app.test_client().post("/api/v1/auth/login", json=sent)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")


# count


def test_a_limit_can_count_failures_alone(app: Flask) -> None:
    @app.get("/x")
    @rate_limit("2/minute", count=failed)
    def view() -> tuple[str, int]:
        return "x", int(request.args["status"])

    client = app.test_client()
    good = [client.get("/x?status=200") for _ in range(5)]
    assert [answer.status_code for answer in good] == [200] * 5
    assert {answer.headers["RateLimit"] for answer in good} == {'"view";r=2;t=30'}
    bad = [client.get("/x?status=404") for _ in range(3)]
    assert [answer.status_code for answer in bad] == [404, 404, 429]
    assert [answer.headers["RateLimit"][:10] for answer in bad] == ['"view";r=1'] + [
        '"view";r=0'
    ] * 2
    assert client.get("/x?status=200").status_code == 429


def test_what_is_counted_only_afterwards_cannot_be_had_twice_at_once(app: Flask) -> None:
    inside, go_on = threading.Event(), threading.Event()

    @app.get("/x")
    @rate_limit("1/minute", burst=1, count=failed)
    def view() -> str:
        inside.set()
        assert go_on.wait(10)
        return "x"

    first: list[int] = []
    thread = threading.Thread(target=lambda: first.extend(statuses(app.test_client(), "/x", 1)))
    thread.start()
    assert inside.wait(10)
    assert app.test_client().get("/x").status_code == 429
    go_on.set()
    thread.join()
    assert first == [200]
    assert app.test_client().get("/x").status_code == 200


def test_threads_that_fail_together_get_no_more_than_the_burst(app: Flask) -> None:
    barrier = threading.Barrier(8)
    seen: list[int] = []

    @app.get("/x")
    @rate_limit("3/hour", count=failed)
    def view() -> str:
        abort(404)

    def guess() -> None:
        barrier.wait()
        seen.extend(statuses(app.test_client(), "/x", 5))

    threads = [threading.Thread(target=guess) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (seen.count(404), seen.count(429)) == (3, 37)


def test_a_view_that_raises_counts_as_the_answer_that_is_made_of_it(make_app: MakeApp) -> None:
    app = make_app(TESTING=False, PROPAGATE_EXCEPTIONS=False)

    @app.get("/failures")
    @rate_limit("1/minute", name="failures", count=failed)
    @rate_limit("1/minute", name="successes", count=lambda answer: not failed(answer))
    def view() -> str:
        raise ZeroDivisionError

    client = app.test_client()
    first, second = client.get("/failures"), client.get("/failures")
    assert [first.status_code, second.status_code] == [500, 429]
    assert first.headers["RateLimit"] == '"successes";r=1;t=60, "failures";r=0;t=60'


def test_an_exception_that_leaves_the_app_counts(make_app: MakeApp) -> None:
    app = make_app()

    @app.get("/x")
    @rate_limit("1/minute", count=lambda answer: False)
    def view() -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        app.test_client().get("/x")
    assert app.test_client().get("/x").status_code == 429


def test_a_count_that_raises_counts_and_harms_no_answer(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    app.add_url_rule("/x", "x", rate_limit("1/minute", count=lambda answer: 1 / 0)(lambda: "x"))
    client = app.test_client()
    first = client.get("/x")
    assert (first.status_code, first.text) == (200, "x")
    assert client.get("/x").status_code == 429
    assert "rate limit x: count failed" in caplog.text


def test_a_refund_that_fails_harms_no_answer(
    make_failing: Callable[..., tuple[Flask, FailingStore]],
) -> None:
    app, store = make_failing()
    app.add_url_rule("/x", "x", rate_limit("2/minute", count=failed)(lambda: "x"))
    store.no_refunds = True
    answer = app.test_client().get("/x")
    assert (answer.status_code, answer.headers["RateLimit"]) == (200, '"x";r=1;t=30')
    store.no_refunds = False
    assert statuses(app.test_client(), "/x", 5) == [200] * 5


def test_a_token_that_came_back_by_itself_is_not_given_back_again(app: Flask, clock: Clock) -> None:
    @app.get("/x")
    @rate_limit("2/minute", burst=2, count=failed)
    def view() -> tuple[str, int]:
        clock.advance(float(request.args.get("takes", 0)))
        return "x", int(request.args.get("status", 200))

    client = app.test_client()
    assert client.get("/x?status=404").status_code == 404
    assert client.get("/x?takes=29").headers["RateLimit"].startswith('"view";r=1')
    clock.advance(1)
    assert client.get("/x?status=404").status_code == 404
    assert client.get("/x?takes=30").headers["RateLimit"].startswith('"view";r=0')
    assert client.get("/x?takes=-30").status_code == 200


def test_a_limit_of_several_parts_and_costs_is_judged_once_and_given_back_whole(
    app: Flask,
) -> None:
    asked: list[int] = []

    def count(answer: Response) -> bool:
        asked.append(answer.status_code)
        return False

    app.add_url_rule("/x", "x", rate_limit("4/minute;8/hour", cost=4, count=count)(lambda: "x"))
    client = app.test_client()
    answers = [client.get("/x") for _ in range(3)]
    assert {answer.headers["RateLimit"] for answer in answers} == {'"x";r=4;t=15, "x:2";r=8;t=450'}
    assert asked == [200] * 3


def test_count_holds_past_the_route_and_for_coroutines_as_well(app: Flask) -> None:
    for name, function in (("plain", lambda: "x"), ("async", coroutine)):
        limited = rate_limit("1/minute", count=failed)(function)
        app.add_url_rule(f"/{name}", name, limited)
    hidden = rate_limit("1/minute", count=failed)(
        lambda: "x" if "ok" in request.args else abort(400)
    )
    app.add_url_rule("/hidden", "hidden", unmarked(hidden))
    client = app.test_client()
    for path in ("/plain", "/async", "/hidden?ok"):
        assert statuses(client, path, 3) == [200] * 3
    assert statuses(client, "/hidden", 2) == [400, 429]


def test_count_holds_for_view_classes_and_answers_that_stream(app: Flask) -> None:
    class Numbers(MethodView):
        decorators = (rate_limit("1/minute", name="listed", count=failed),)

        @rate_limit("1/minute", name="method", count=failed)
        def get(self) -> Response:
            return Response(iter(["1", "2"]), status=request.args.get("status", 200, int))

    rate_limit("1/minute", name="class", count=failed)(Numbers)
    app.add_url_rule("/numbers", view_func=Numbers.as_view("numbers"))
    client = app.test_client()
    answers = [client.get("/numbers") for _ in range(3)]
    assert [answer.text for answer in answers] == ["12"] * 3
    assert {answer.headers["RateLimit"].count(";r=1;") for answer in answers} == {3}
    assert statuses(client, "/numbers?status=400", 2) == [400, 429]


def test_an_answer_is_judged_before_functions_that_come_after_the_request(app: Flask) -> None:
    app.after_request(lambda answer: Response("made over", 400))
    app.add_url_rule("/x", "x", rate_limit("1/minute", count=failed)(lambda: "x"))
    assert statuses(app.test_client(), "/x", 3) == [400] * 3


def test_count_sees_the_refusals_that_come_after_the_limit(app: Flask) -> None:
    view = require_auth(scopes="admin")(lambda: "x")
    for name, count in (("all", failed), ("none", lambda answer: answer.status_code != 403)):
        app.add_url_rule(f"/{name}", name, rate_limit("1/minute", name=name, count=count)(view))
    ann = client_as(app, "ann")
    assert statuses(ann, "/all", 2) == [403, 429]


def test_count_works_where_the_apps_own_wsgi_callable_was_replaced(app: Flask) -> None:
    app.add_url_rule("/x", "x", rate_limit("1/minute", count=failed)(lambda: "x"))
    app.wsgi_app = Flask.wsgi_app.__get__(app)  # type: ignore[method-assign]
    client = app.test_client()
    answers = [client.get("/x") for _ in range(3)]
    assert {answer.headers["RateLimit"] for answer in answers} == {'"x";r=1;t=60'}


# shadow


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    with caplog.at_level(logging.INFO, logger="flask_m9m"):
        yield lambda: [one.getMessage() for one in caplog.records if "shadow" in one.getMessage()]


def test_a_limit_under_trial_refuses_nobody_and_says_whom_it_would_have(
    app: Flask, clock: Clock, said: Callable[[], list[str]]
) -> None:
    app.add_url_rule("/x", "x", rate_limit("1/hour", shadow=True)(lambda: "x"))
    client = app.test_client()
    for _ in range(5):
        answer = client.get("/x")
        assert answer.status_code == 200
        assert not [name for name, _ in answer.headers if "limit" in name.lower()]
    assert said() == ["rate limit x (shadow): would have refused 1 more"]
    clock.advance(30)
    client.get("/x")
    assert said()[1:] == ["rate limit x (shadow): would have refused 4 more"]
    assert app.extensions["m9m"].guard.limits.shadow_refusals.totals == {"x": 5}


def test_a_limit_under_trial_is_no_part_of_what_the_others_say(app: Flask) -> None:
    view = rate_limit("1/hour", shadow=True, name="trial")(rate_limit("2/hour")(lambda: "x"))
    app.add_url_rule("/x", "x", view)
    client = app.test_client()
    answers = [client.get("/x") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
    assert {answer.headers["RateLimit-Policy"] for answer in answers} == {'"x";q=2;w=3600'}
    assert app.extensions["m9m"].guard.limits.shadow_refusals.totals == {"trial": 1}


@pytest.mark.parametrize("key", ["address", "identity"])
def test_the_general_limit_can_be_tried_out(
    make_app: MakeApp, key: str, said: Callable[[], list[str]]
) -> None:
    app = make_app(general(1, 2, shadow=True, key=key))
    app.add_url_rule("/x", "x", lambda: "x")
    app.add_url_rule("/closed", "closed", require_auth(lambda: "x"))
    app.add_url_rule("/health", "health", unlimited(lambda: "x"))
    client = app.test_client()
    assert statuses(client, "/x", 3) + statuses(client, "/closed", 1) == [200, 200, 200, 401]
    assert statuses(client, "/health", 3) == [200] * 3
    assert "RateLimit" not in client.get("/x").headers
    assert app.extensions["m9m"].guard.limits.shadow_refusals.totals == {"default": 3}
    assert len(said()) == 1


def test_no_client_is_named_in_what_a_trial_logs(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    trial = rate_limit("1/hour", shadow=True, key=lambda: request.args["secret"])
    app.add_url_rule("/x", "x", trial(lambda: "x"))
    with caplog.at_level(logging.DEBUG):
        statuses(app.test_client(), "/x?secret=hunter2", 3)
    assert "would have refused" in caplog.text
    assert "hunter2" not in caplog.text
    assert "127.0.0.1" not in caplog.text


def test_a_trial_ignores_a_store_that_fails_and_a_cost_that_cannot_be(
    make_failing: Callable[..., tuple[Flask, FailingStore]],
) -> None:
    app, store = make_failing(general(60, 9, shadow=True))
    app.add_url_rule("/x", "x", rate_limit("9/hour", shadow=True)(lambda: "x"))
    app.add_url_rule("/c", "c", rate_limit("9/hour", shadow=True, cost=lambda: 99)(lambda: "x"))
    client = app.test_client()
    assert client.get("/c").status_code == 200
    store.gone = True
    assert client.get("/x").status_code == 200
    assert app.extensions["m9m"].guard.limits.shadow_refusals.totals == {"c": 1}


def test_a_trial_can_count_failures_alone(app: Flask) -> None:
    view = rate_limit("1/hour", shadow=True, count=failed)(lambda: "x")
    app.add_url_rule("/x", "x", view)
    assert statuses(app.test_client(), "/x", 3) == [200] * 3
    assert app.extensions["m9m"].guard.limits.shadow_refusals.totals == {}


# unlimited


@pytest.mark.parametrize("key", ["address", "identity"])
def test_the_general_limit_does_not_count_an_unlimited_route(make_app: MakeApp, key: str) -> None:
    app = make_app(general(1, 1, key=key))
    app.add_url_rule("/health", "health", unlimited(lambda: "x"))
    app.add_url_rule("/x", "x", lambda: "x")
    client = app.test_client()
    for _ in range(3):
        assert client.get("/health").status_code == 200
        assert client.head("/health").status_code == 200
        assert client.options("/health").status_code == 200
    assert "RateLimit" not in client.get("/health").headers
    assert statuses(client, "/x", 2) == [200, 429]
    assert client.get("/health").status_code == 200


def test_what_an_unlimited_path_does_not_answer_counts(make_app: MakeApp) -> None:
    app = make_app(general(1, 3))
    app.add_url_rule("/health/", "health", unlimited(lambda: "x"))
    client = app.test_client()
    requests = [("POST", "/health/"), ("GET", "/health"), ("GET", "/Health/"), ("GET", "/health/")]
    answers = [client.open(path, method=method) for method, path in requests]
    assert [answer.status_code for answer in answers] == [405, 308, 404, 200]
    assert client.get("/missing").status_code == 429


def test_an_unlimited_routes_own_limits_hold(make_app: MakeApp) -> None:
    app = make_app(general(60, 10))
    app.add_url_rule("/x", "x", unlimited(rate_limit("2/hour")(lambda: "x")))
    client = app.test_client()
    assert client.get("/x").headers["RateLimit"] == '"x";r=1;t=1800'
    assert statuses(client, "/x", 2) == [200, 429]


def test_one_route_of_a_function_can_be_unlimited_and_the_other_not(make_app: MakeApp) -> None:
    def report() -> str:
        return "x"

    app = make_app(general(1, 1))
    app.add_url_rule("/limited", "limited", report)
    app.add_url_rule("/open", "open", unlimited(report))
    app.add_url_rule("/hidden", "hidden", unmarked(unlimited(report)))
    client = app.test_client()
    assert statuses(client, "/open", 3) == [200] * 3
    assert statuses(client, "/limited", 2) == [200, 429]
    assert statuses(client, "/hidden", 1) == [429]


def test_unlimited_works_on_defs_classes_and_patterns(make_app: MakeApp) -> None:
    app = make_app(general(1, 1))

    @unlimited
    @app.get("/def")
    def on_def() -> str:
        return "x"

    @app.get("/below")
    @public
    @unlimited
    def below() -> str:
        return "x"

    @unlimited
    class View(MethodView):
        def get(self) -> str:
            return "x"

    class Method(MethodView):
        @unlimited
        def get(self) -> str:
            return "x"

        def post(self) -> str:
            return "x"

    app.add_url_rule("/class", view_func=View.as_view("class"))
    app.add_url_rule("/method", view_func=Method.as_view("method"))
    client = app.test_client()
    for path in ("/below", "/class", "/method", "/def"):
        assert statuses(client, path, 3) == [200] * 3
    assert [client.post("/method").status_code for _ in range(2)] == [200, 429]


def test_a_pattern_can_be_unlimited() -> None:
    app = Flask("app")
    app.testing = True
    m9m = M9M(app, settings=make_settings(general(1, 1)))
    app.add_url_rule("/x", "probe_x", lambda: "x")
    m9m.protect("probe_*", unlimited)
    assert statuses(app.test_client(), "/x", 3) == [200] * 3


def test_health_checks_are_unlimited(make_app: MakeApp) -> None:
    app = make_app({**general(1, 1), "api": {"enabled": True}})
    client = app.test_client()
    for path in ("/health", "/healthz", "/ready"):
        assert 429 not in statuses(client, path, 3)
    assert statuses(client, "/missing", 2) == [404, 429]


# Arguments and keys


async def coroutine() -> str:
    return "x"


@pytest.mark.parametrize(
    "arguments",
    [
        {"limits": 5},
        {"limits": None},
        {"burst": 0},
        {"burst": True},
        {"key": "ip"},
        {"key": 5},
        {"cost": True},
        {"cost": 1.0},
        {"limits": lambda: "5/minute", "cost": 0},
        {"limits": lambda: "5/minute", "cost": 3, "burst": 2},
        {"name": ""},
        {"name": 'a"b'},
        {"name": "a" * 65},
        {"count": True},
        {"count": "failures"},
        {"exempt_when": True},
        {"limits": coroutine},
        {"key": coroutine},
        {"cost": coroutine},
        {"exempt_when": coroutine},
        {"count": coroutine},
        {"shadow": 1},
        {"shadow": None},
    ],
)
def test_an_argument_that_cannot_be_is_refused_when_it_is_written(
    arguments: dict[str, Any],
) -> None:
    with pytest.raises(ValueError):
        rate_limit(**{"limits": "5/minute", **arguments})


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("chosen", "same", "other"),
    [
        ("\ud800", "\ud800", "\udfff"),
        ("\ud800" * 100, "\ud800" * 100, "\ud800" * 101),
        (b"a", "a", "b'a'"),
        (b"\xff\x00", "\xff\x00", b"\xff"),
        ("a" * 10**6, "a" * 10**6, "a" * (10**6 - 1)),
        (10**5000, 10**5001, "1"),
        (7, "7", 8),
        (Unprintable(), Unprintable(), "x"),
        ("", "", " "),
        ("a\0b", "a\0b", "a"),
    ],
    ids=range(10),
)
def test_whatever_a_key_is_it_counts_as_something(
    app: Flask, chosen: object, same: object, other: object
) -> None:
    keys = iter((chosen, same, other))
    app.add_url_rule("/x", "x", rate_limit("1/hour", key=lambda: next(keys))(lambda: "x"))
    assert statuses(app.test_client(), "/x", 3) == [200, 429, 200]


def test_no_key_is_the_address_and_not_the_text_none(app: Flask) -> None:
    tenant = rate_limit("1/hour", key=lambda: request.headers.get("X-Tenant"))
    app.add_url_rule("/x", "x", tenant(lambda: "x"))
    client = app.test_client()

    def status(address: str, **headers: str) -> int:
        return client.get("/x", environ_base={"REMOTE_ADDR": address}, headers=headers).status_code

    assert [status("192.0.2.1"), status("192.0.2.1")] == [200, 429]
    assert status("192.0.2.2") == 200
    assert status("192.0.2.1", **{"X-Tenant": "None"}) == 200
