"""What policies may say, and how all that is wrong is said at once."""

from __future__ import annotations

import re
from typing import Any

import pytest

from flask_m9m import M9MMiddleware, SettingsError
from flask_m9m.testing import make_settings
from tests.wsgi.conftest import Guarded, echo


def problems(policies: Any, settings: Any = None) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        M9MMiddleware(echo, settings=settings or make_settings(), policies=policies)
    return [str(one) for one in raised.value.problems]


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({}, "policies[0].prefix: missing"),
        ({"prefix": "/x"}, "policies[0]: it has no effect"),
        ({"prefix": "/x", "fresh": False}, "policies[0]: it has no effect"),
        ({"prefix": "x", "access": "public"}, "begins with /"),
        ({"prefix": "", "access": "public"}, "begins with /"),
        ({"prefix": "/x/", "access": "public"}, "without the slash at its end"),
        ({"prefix": "/x/../y", "access": "public"}, "segments . and .."),
        ({"prefix": "/x\\y", "access": "public"}, "segments . and .."),
        ({"prefix": "/x//y", "access": "public"}, "segments . and .."),
        ({"prefix": "/a%20b", "access": "public"}, "percent-decoded"),
        ({"prefix": "/x/*", "access": "public"}, "without patterns"),
        ({"prefix": "/x/<id>", "access": "public"}, "without patterns"),
        ({"prefix": 5, "access": "public"}, "policies[0].prefix: 5"),
        ({"prefix": "/x", "acess": "public"}, "did you mean access?"),
        (
            {"prefix": "/x", "access": "private"},
            '"private"; must be public,',
        ),
        ({"prefix": "/x", "access": None}, "null; must be public, authenticated or optional"),
        ({"prefix": "/x", "access": "public", "methods": "GET"}, "a list such as"),
        ({"prefix": "/x", "access": "public", "methods": []}, "a list such as"),
        ({"prefix": "/x", "access": "public", "methods": ["GE T"]}, '"GE T"'),
        ({"prefix": "/x", "access": "public", "methods": ["HEAD"]}, "HEAD without GET"),
        ({"prefix": "/x", "access": "public", "scopes": "a"}, "set, but access is public"),
        ({"prefix": "/x", "access": "public", "fresh": True}, "set, but access is public"),
        ({"prefix": "/x", "scopes": []}, "a list of names"),
        ({"prefix": "/x", "scopes": ""}, "a list of names"),
        ({"prefix": "/x", "scopes": [1]}, "a list of names"),
        ({"prefix": "/x", "scopes": ["a b"]}, "not a scope-token"),
        ({"prefix": "/x", "roles": {"admin": 1}}, "a list of names"),
        ({"prefix": "/x", "fresh": "yes"}, "true or false"),
        ({"prefix": "/x", "rate_limit": "often"}, "is not a rate limit"),
        ({"prefix": "/x", "rate_limit": 100}, "must be text such as 100/hour"),
        ({"prefix": "/x", "rate_limit": None}, "null; must be text such as 100/hour"),
        ({"prefix": "/x", "rate_limit": "1/hour", "burst": True}, "a whole number"),
        ({"prefix": "/x", "rate_limit": "1/hour", "cost": 2}, "must be 1 to the limit"),
        ({"prefix": "/x", "rate_limit": "1/hour", "key": "user"}, "'address', 'identity'"),
        ({"prefix": "/x", "rate_limit": "1/hour", "name": "a b"}, "cannot name a rate limit"),
        ({"prefix": "/x", "access": "public", "burst": 1}, "set, but rate_limit is not"),
        ({"prefix": "/x", "rate_limit": "1/hour", "count": len}, "unknown key"),
        ({"prefix": "/x", "cors": {"max_age": "x"}}, "policies[0].cors.max_age"),
        ({"prefix": "/x", "headers": ["x"]}, "a mapping with keys of security.headers"),
        ({"prefix": "/x", "cors": {1: 2}}, "cors: a mapping; "),
        ("/x", "policies[0]: text; must be a mapping"),
    ],
)
def test_what_is_wrong_with_a_policy_is_said(policy: Any, said: str) -> None:
    found = problems([policy])
    assert len(found) == 1, found
    assert said in found[0]


@pytest.mark.parametrize("policies", [None, "x", {"prefix": "/x"}, 5])
def test_policies_are_a_list(policies: Any) -> None:
    assert re.search("policies: .*; must be a list of mappings", problems(policies)[0])


def test_all_that_is_wrong_is_said_at_once_with_what_is_wrong_with_the_settings() -> None:
    found = problems(
        [{"prefix": "x", "access": "open"}, {"prefix": "/y", "scopes": '"', "roles": '"'}],
        {"security": {"cors": {"max_age": "long"}}},
    )
    assert [one.split(" ")[0].rstrip(":") for one in found] == [
        "security.cors.max_age",
        "policies[0].prefix",
        "policies[0].access",
        "policies[1].scopes",
        "policies[1].roles",
    ]


def test_two_policies_for_one_prefix_and_method_are_refused() -> None:
    one, other = {"prefix": "/x", "access": "public"}, {"prefix": "/x", "scopes": "a"}
    assert "policies[0] has already" in problems([one, other])[0]
    assert "policies[0] has already" in problems([one, one])[0]
    get = {**one, "methods": ["GET", "HEAD"]}
    assert "policies[0] has already" in problems([get, {**other, "methods": ["get", "POST"]}])[0]


def test_overrides_that_the_settings_do_not_bear_are_refused() -> None:
    settings = make_settings({"security": {"cors": {"allowed_origins": ["*"]}}})
    assert (
        "list each origin that may send credentials"
        in problems([{"prefix": "/x", "cors": {"allow_credentials": True}}], settings)[0]
    )


def test_a_scheme_that_is_switched_off_is_refused_before_any_request_passes(
    guarded: Guarded,
) -> None:
    app = guarded([{"prefix": "/x", "schemes": "basic"}, {"prefix": "/y", "schemes": ["other"]}])
    for _ in range(2):
        with pytest.raises(SettingsError) as raised:
            app({"wsgi.url_scheme": "http"}, lambda *_: lambda _: None)
        assert len(raised.value.problems) == 2
