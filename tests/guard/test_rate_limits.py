from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import http_sfv
import pytest
from flask import Flask, request

from flask_m9m import M9M, rate_limit, require_auth
from flask_m9m.testing import Clock, client_as, make_settings
from tests.conftest import MakeApp

COSTS: dict[str, Any] = {
    "three": 3,
    "none": 0,
    "less": -5,
    "much": 100,
    "half": 1.5,
    "text": "2",
    "nothing": None,
}


def general(count: int, burst: int, **more: Any) -> dict[str, Any]:
    limit = {"enabled": True, "requests_per_minute": count, "burst": burst, **more}
    return {"performance": {"rate_limit": limit}}


def add_items(app: Flask) -> None:
    app.add_url_rule("/x", "x", lambda: "x", methods=["GET", "POST"])


def test_a_burst_passes_then_429_says_when_and_then_it_passes(
    make_app: MakeApp, clock: Clock
) -> None:
    app = make_app(general(10, 5))
    add_items(app)
    client = app.test_client()
    answers = [client.get("/x") for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert answers[0].headers["RateLimit"] == '"default";r=4;t=6'
    assert answers[0].headers["RateLimit-Policy"] == '"default";q=10;w=60'
    assert "Retry-After" not in answers[0].headers
    refused = answers[-1]
    assert refused.headers["RateLimit"] == '"default";r=0;t=6'
    assert refused.headers["Retry-After"] == "6"
    assert refused.headers["Cache-Control"] == "no-store"
    assert refused.headers["X-RateLimit-Limit"] == "10"
    assert refused.headers["X-RateLimit-Remaining"] == "0"
    assert refused.headers["X-RateLimit-Reset"] == str(int(clock()) + 30)
    assert refused.json is not None
    assert refused.json["code"] == "RATE_LIMITED"
    clock.advance(5.9)
    assert client.get("/x").status_code == 429
    clock.advance(0.1)
    assert client.get("/x").status_code == 200


def test_the_fields_parse_as_structured_fields_and_are_never_negative(
    make_app: MakeApp, clock: Clock
) -> None:
    app = make_app(general(60, 3))
    app.add_url_rule("/y", "y", rate_limit("5/second;100/hour")(lambda: "y"))
    client = app.test_client()
    for number in range(120):
        answer = client.get("/y")
        clock.advance((number * 7 % 13) / 10)
        policies, limits = http_sfv.List(), http_sfv.List()
        policies.parse(answer.headers["RateLimit-Policy"].encode())
        limits.parse(answer.headers["RateLimit"].encode())
        assert [one.value for one in policies] == [one.value for one in limits]
        for policy, limit in zip(policies, limits, strict=True):
            assert policy.params["q"] >= 1
            assert policy.params["w"] >= 1
            assert limit.params["r"] >= 0
            assert limit.params["t"] >= 0
        if answer.status_code == 429:
            assert int(answer.headers["Retry-After"]) >= limits[-1].params["t"]


def test_an_invented_forwarding_header_buys_no_budget(make_app: MakeApp) -> None:
    app = make_app(general(1, 2))
    add_items(app)
    client = app.test_client()
    statuses = [
        client.get("/x", headers={"X-Forwarded-For": f"10.0.0.{n}", "Forwarded": f"for=1.1.1.{n}"})
        for n in range(3)
    ]
    assert [answer.status_code for answer in statuses] == [200, 200, 429]


def test_behind_a_trusted_proxy_the_real_client_is_limited(make_app: MakeApp) -> None:
    app = make_app({**general(1, 1), "server": {"trusted_proxies": ["10.0.0.0/8"]}})
    add_items(app)
    client = app.test_client()

    def status(forwarded: str, peer: str = "10.0.0.1") -> int:
        return client.get(
            "/x", headers={"X-Forwarded-For": forwarded}, environ_base={"REMOTE_ADDR": peer}
        ).status_code

    assert status("6.6.6.6, 1.2.3.4") == 200
    assert status("7.7.7.7, 1.2.3.4") == 429
    assert status("1.2.3.4, 10.0.0.9") == 429
    assert status("1.2.3.5") == 200
    assert status("9.9.9.9", peer="11.0.0.1") == 200
    assert status("9.9.9.8", peer="11.0.0.1") == 429


def test_one_ipv6_network_is_one_client_and_mapped_addresses_are_their_own(
    make_app: MakeApp,
) -> None:
    """CVE-2026-30827 of express-rate-limit."""
    app = make_app(general(1, 1))
    add_items(app)
    client = app.test_client()

    def status(address: str) -> int:
        return client.get("/x", environ_base={"REMOTE_ADDR": address}).status_code

    assert status("2001:db8::1") == 200
    assert status("2001:db8::ffff:2") == 429
    assert status("2001:db8:0:1::1") == 200
    assert status("::ffff:1.2.3.4") == 200
    assert status("1.2.3.4") == 429
    assert status("::ffff:5.6.7.8") == 200


@pytest.mark.parametrize("path", ["/x", "/x?a=1", "/x/", "/X", "//x"])
def test_no_variation_of_the_path_buys_a_budget(make_app: MakeApp, path: str) -> None:
    app = make_app(general(1, 2))
    add_items(app)
    client = app.test_client()
    assert client.get("/x").status_code == 200
    assert client.head("/x").status_code == 200
    assert client.get(path).status_code == 429
    assert client.post("/x", headers={"X-HTTP-Method-Override": "GET"}).status_code == 429
    assert client.options("/x").status_code == 429


def test_a_route_limit_holds_although_the_general_one_is_off(app: Flask) -> None:
    app.add_url_rule("/login", "login", rate_limit("5/minute", burst=1)(lambda: "x"))
    app.add_url_rule("/x", "x", lambda: "x")
    client = app.test_client()
    assert [client.get("/login").status_code for _ in range(2)] == [200, 429]
    assert client.get("/x").status_code == 200
    assert "RateLimit" not in client.get("/x").headers


def test_limits_add_up_and_each_has_a_name(make_app: MakeApp, clock: Clock) -> None:
    app = make_app(general(600, 100))
    view = rate_limit("2/second")(rate_limit("3/minute", name="slow")(lambda: "x"))
    app.add_url_rule("/x", "x", view)
    client = app.test_client()
    answers = []
    for _ in range(4):
        answers.append(client.get("/x"))
        clock.advance(1)
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[0].headers["RateLimit-Policy"] == (
        '"default";q=600;w=60, "slow";q=3;w=60, "x-2";q=2;w=1'
    )


def test_each_identity_has_a_budget_and_strangers_share_the_addresss(app: Flask) -> None:
    @app.get("/x")
    @require_auth(optional=True)
    @rate_limit("1/minute", key="identity")
    def view() -> str:
        return "x"

    for client in (client_as(app, "ann"), client_as(app, "bob"), app.test_client()):
        assert [client.get("/x").status_code for _ in range(2)] == [200, 429]


def test_the_general_limit_can_be_each_identitys(make_app: MakeApp) -> None:
    app = make_app(general(1, 1, key="identity"))
    app.add_url_rule("/x", "x", require_auth(lambda: "x"))
    ann, bob = client_as(app, "ann"), client_as(app, "bob")
    assert [ann.get("/x").status_code for _ in range(2)] == [200, 429]
    assert bob.get("/x").status_code == 200
    stranger = app.test_client()
    assert [stranger.get("/x").status_code for _ in range(2)] == [401, 429]
    assert bob.get("/x").status_code == 429


def test_callables_choose_limit_key_cost_and_exemption(app: Flask) -> None:
    @app.get("/x")
    @rate_limit(
        lambda: request.args["limit"],
        key=lambda: request.args.get("tenant", ""),
        cost=lambda: COSTS.get(request.args.get("cost", ""), 1),
        exempt_when=lambda: "free" in request.args,
    )
    def view() -> str:
        return "x"

    client = app.test_client()
    assert client.get("/x?limit=3/minute&cost=three").status_code == 200
    assert client.get("/x?limit=3/minute").status_code == 429
    assert client.get("/x?limit=3/minute&free").status_code == 200
    assert client.get("/x?limit=3/minute&tenant=b").status_code == 200
    assert client.get("/x?limit=4/minute").status_code == 200
    for cost in ("none", "less", "much", "half", "text", "nothing"):
        answer = client.get(f"/x?limit=3/minute&tenant=c&cost={cost}")
        assert answer.status_code == 429
        assert answer.headers["RateLimit"] == '"view";r=0;t=60'


@pytest.mark.parametrize(
    "arguments",
    [{"limits": "many"}, {"limits": "5/minute", "cost": 6}, {"limits": "5/minute", "cost": 0}],
)
def test_a_limit_that_cannot_be_is_refused_when_it_is_written(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        rate_limit(**arguments)


def test_methods_choose_what_counts(app: Flask) -> None:
    view = rate_limit("1/minute", methods=["POST"])(lambda: "x")
    app.add_url_rule("/x", "x", view, methods=["GET", "POST"])
    client = app.test_client()
    assert [client.post("/x").status_code for _ in range(2)] == [200, 429]
    assert [client.get("/x").status_code for _ in range(3)] == [200] * 3


def test_routes_whose_limits_have_one_name_share_the_budget(app: Flask) -> None:
    shared = rate_limit("1/minute", name="shared")
    for path in ("a", "b"):
        app.add_url_rule(f"/{path}", path, shared(lambda: "x"))
    assert app.test_client().get("/a").status_code == 200
    assert app.test_client().get("/b").status_code == 429


def test_a_clock_that_steps_back_shuts_nobody_out(make_app: MakeApp, clock: Clock) -> None:
    app = make_app(general(60, 5))
    add_items(app)
    client = app.test_client()
    for _ in range(6):
        client.get("/x")
    clock.advance(-3600)
    assert client.get("/x").status_code == 200


def test_threads_together_get_no_more_than_the_burst(make_app: MakeApp) -> None:
    app = make_app(general(1, 40))
    add_items(app)
    barrier = threading.Barrier(16)

    def hit(_: int) -> list[int]:
        client = app.test_client()
        barrier.wait()
        return [client.get("/x").status_code for _ in range(10)]

    with ThreadPoolExecutor(16) as pool:
        statuses = [status for part in pool.map(hit, range(16)) for status in part]
    assert statuses.count(200) == 40
    assert statuses.count(429) == 120


def test_legacy_fields_can_be_left_out(make_app: MakeApp) -> None:
    app = make_app(general(60, 5, legacy_headers=False))
    add_items(app)
    headers = app.test_client().get("/x").headers
    assert "RateLimit" in headers
    assert "X-RateLimit-Limit" not in headers


def test_apps_of_one_name_count_together_and_others_and_tests_apart(shared_memory: Path) -> None:
    def statuses(name: str, *, testing: bool = False) -> list[int]:
        app = Flask(name, instance_path=str(shared_memory))
        app.testing = testing
        M9M(app, settings=make_settings(general(1, 2)))
        add_items(app)
        return [app.test_client().get("/x").status_code for _ in range(2)]

    assert statuses("one") == [200, 200]
    assert statuses("one") == [429, 429]
    assert statuses("other") == [200, 200]
    assert statuses("one", testing=True) == [200, 200]


def unmarked(view: Any) -> Any:
    """A decorator that hides what it wraps."""
    return lambda **kwargs: view(**kwargs)


def test_a_limit_for_other_methods_never_stops_this_one(app: Flask) -> None:
    limited = rate_limit("1/hour", methods=["GET"])(lambda: "x")
    app.add_url_rule("/x", "x", limited, methods=["GET", "POST"])
    client = app.test_client()
    assert [client.post("/x").status_code for _ in range(3)] == [200] * 3
    assert [client.get("/x").status_code for _ in range(2)] == [200, 429]


def test_a_limit_for_a_method_holds_past_the_route_as_well(app: Flask) -> None:
    limited = rate_limit("1/hour", methods=["POST"])(lambda: "x")
    app.add_url_rule("/x", "x", unmarked(limited), methods=["GET", "POST"])
    client = app.test_client()
    assert [client.get("/x").status_code for _ in range(3)] == [200] * 3
    assert [client.post("/x").status_code for _ in range(2)] == [200, 429]


def test_a_limit_is_one_for_all_its_methods_whatever_other_limits_there_are(app: Flask) -> None:
    view = rate_limit("3/hour", burst=3)(rate_limit("100/hour", methods=["POST"])(lambda: "x"))
    app.add_url_rule("/x", "x", view, methods=["GET", "POST"])
    client = app.test_client()
    assert [client.get("/x").status_code for _ in range(2)] == [200] * 2
    assert [client.post("/x").status_code for _ in range(2)] == [200, 429]


def test_two_hidden_views_of_one_name_have_a_budget_each(app: Flask) -> None:
    for path in ("a", "b"):

        @rate_limit("1/hour")
        def index() -> str:
            return "index"

        app.add_url_rule(f"/{path}", path, unmarked(index))
    client = app.test_client()
    assert [client.get("/a").status_code for _ in range(2)] == [200, 429]
    assert client.get("/b").status_code == 200


def test_the_parts_of_one_limit_and_a_second_limit_are_told_apart(app: Flask) -> None:
    view = rate_limit("50/minute;10/hour")(rate_limit("10/hour")(lambda: "x"))
    app.add_url_rule("/x", "x", view)
    answer = app.test_client().get("/x")
    names = [one.partition(";")[0] for one in answer.headers["RateLimit-Policy"].split(", ")]
    assert names == ['"x"', '"x-2"', '"x-2:2"']


def test_an_endpoint_with_a_long_name_can_have_several_limits(app: Flask) -> None:
    lengths = (60, 62, 63, 64, 200)
    for length in lengths:
        view = rate_limit("10/minute;100/hour")(lambda: "x")
        app.add_url_rule(f"/{length}", "e" * length, view)
    for length in lengths:
        assert app.test_client().get(f"/{length}").status_code == 200


def test_keys_of_different_kinds_are_never_one_client(app: Flask) -> None:
    for path, key in (("a", "address"), ("c", lambda: request.args["u"])):
        view = rate_limit("1/hour", name="login", key=key)(lambda: "x")
        app.add_url_rule(f"/{path}", path, view)
    client = app.test_client()
    for text in ("9.9.9.9", "identity:ann"):
        assert client.get(f"/c?u={text}").status_code == 200
        assert client.get(f"/c?u={text}").status_code == 429
    victim = client.get("/a", environ_base={"REMOTE_ADDR": "9.9.9.9"})
    assert victim.status_code == 200


def test_no_endpoint_can_be_named_into_another_limits_budget(make_app: MakeApp) -> None:
    app = make_app(general(60, 10))
    two = rate_limit("1/hour")(rate_limit("9/minute")(lambda: "x"))
    for endpoint, view in (
        ("report", two),
        ("report-2", rate_limit("1/hour")(lambda: "x")),
        ("default", rate_limit("60/minute", burst=10)(lambda: "x")),
    ):
        app.add_url_rule(f"/{endpoint}", endpoint, view)
    client = app.test_client()
    assert client.get("/report").status_code == 200
    assert client.get("/report-2").status_code == 200
    assert client.get("/default").headers["RateLimit"] == '"default";r=7;t=1, "default";r=9;t=1'


def test_a_long_key_takes_no_more_memory_than_a_short_one(app: Flask) -> None:
    @app.get("/x")
    @rate_limit("1/hour", key=lambda: request.headers["X-Tenant"])
    def view() -> str:
        return "x"

    client = app.test_client()
    for tenant in ("a" * 60_000, "b" * 60_000):
        assert client.get("/x", headers={"X-Tenant": tenant}).status_code == 200
        assert client.get("/x", headers={"X-Tenant": tenant}).status_code == 429
    tables = app.extensions["m9m"].guard.store._tables
    keys = [key for table in tables.values() for bucket in table if bucket for key in bucket]
    assert max(len(text) for key in keys for text in key) < 100


def test_a_method_in_lower_case_is_that_method(app: Flask) -> None:
    limited = rate_limit("1/hour", methods=["POST"])(lambda: "x")
    app.add_url_rule("/x", "x", unmarked(limited), methods=["GET", "POST"])
    client = app.test_client()
    statuses = [
        client.post("/x", environ_overrides={"REQUEST_METHOD": method}).status_code
        for method in ("post", "POST", "Post")
    ]
    assert statuses == [200, 429, 429]


def test_a_limit_for_head_counts_with_get_and_unusual_methods_count_too(app: Flask) -> None:
    from werkzeug.routing import Rule

    app.add_url_rule("/head", "head", rate_limit("1/hour", methods=["HEAD"])(lambda: "x"))
    app.url_map.add(Rule("/any", endpoint="any"))
    app.view_functions["any"] = rate_limit("1/hour", methods=["PROPFIND"])(lambda: "x")
    client = app.test_client()
    assert [client.head("/head").status_code for _ in range(2)] == [200, 429]
    assert [client.open("/any", method="PROPFIND").status_code for _ in range(2)] == [200, 429]
    assert [client.get("/any").status_code for _ in range(2)] == [200, 200]
    with pytest.raises(ValueError, match="methods"):
        rate_limit("1/hour", methods="POST")


def test_waiting_as_long_as_the_answer_says_is_enough_and_no_second_less(
    make_app: MakeApp, clock: Clock
) -> None:
    app = make_app(general(7, 5))
    add_items(app)
    client = app.test_client()
    for _ in range(20):
        answer = client.get("/x")
        if answer.status_code == 429:
            wait = int(answer.headers["Retry-After"])
            assert wait >= 1
            assert f";r=0;t={wait}" in answer.headers["RateLimit"]
            clock.advance(wait - 1)
            assert client.get("/x").status_code == 429
            clock.advance(1)
            assert client.get("/x").status_code == 200


def test_the_edge_of_a_minute_does_not_double_the_budget(make_app: MakeApp, clock: Clock) -> None:
    app = make_app(general(10, 10))
    view = rate_limit("10/minute", burst=10)(lambda: "x")
    app.add_url_rule("/x", "x", view)
    client = app.test_client()
    clock.advance(59.9 - clock() % 60)
    assert [client.get("/x").status_code for _ in range(10)] == [200] * 10
    clock.advance(0.2)
    assert [client.get("/x").status_code for _ in range(10)] == [429] * 10


def test_all_addresses_of_an_ipv6_network_are_one_client_of_every_limit(
    make_app: MakeApp,
) -> None:
    app = make_app(general(1, 100))
    app.add_url_rule("/x", "x", rate_limit("1/hour", burst=1)(lambda: "x"))
    client = app.test_client()

    def status(address: str) -> int:
        return client.get("/x", environ_base={"REMOTE_ADDR": address}).status_code

    assert status("2001:db8::") == 200
    assert {status(f"2001:db8::{n * 650:x}") for n in range(1, 100)} == {429}
    resolver = app.extensions["m9m"].guard.resolver
    keys = {
        resolver.resolve({"REMOTE_ADDR": f"2001:db8::{n:x}", "wsgi.url_scheme": "http"}).key
        for n in range(2**16)
    }
    assert keys == {"2001:db8::/64"}


@pytest.mark.parametrize("network", ["2002:c000:204::", "64:ff9b::c000:204", "64:ff9b:1::c000:204"])
def test_addresses_that_hold_an_ipv4_one_are_addresses_of_their_network(
    make_app: MakeApp, network: str
) -> None:
    """6to4 and NAT64: only IPv4-mapped addresses count as the IPv4 address in them."""
    app = make_app(general(1, 1))
    add_items(app)
    client = app.test_client()

    def status(address: str) -> int:
        return client.get("/x", environ_base={"REMOTE_ADDR": address}).status_code

    assert status("192.0.2.4") == 200
    assert status(network) == 200
    assert status(network) == 429


@pytest.mark.parametrize("rule", ["/login", "/login/"])
def test_no_variation_of_the_path_reaches_a_limited_view_once_more(app: Flask, rule: str) -> None:
    reached: list[str] = []

    @rate_limit("1/hour", burst=1)
    def login() -> str:
        reached.append(request.method)
        return "x"

    app.add_url_rule(rule, "login", login, methods=["GET", "POST"])
    client = app.test_client()
    assert client.get(rule).status_code == 200
    paths = ["/login", "/login/", "/LOGIN", "//login", "/login?x=1", "/./login", "/%6cogin"]
    paths += ["/login//", "/x/../login", "/login%2f", "/login;a=b", "/login%00"]
    for path in paths:
        for method in ("GET", "HEAD", "POST", "PUT", "get", "PROPFIND"):
            override = {"X-HTTP-Method-Override": "GET", "X-Forwarded-Prefix": "/a"}
            answer = client.open(path, method=method, headers=override, follow_redirects=True)
            assert answer.status_code in (404, 405, 429)
        assert client.options(path, follow_redirects=True).status_code in (404, 429)
    assert reached == ["GET"]
