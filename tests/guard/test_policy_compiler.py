from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_m9m.auth.schemes.authenticator import Authenticator
from flask_m9m.errors import SettingsError
from flask_m9m.guard.marks import (
    ANY_OTHER_METHOD,
    CacheableMark,
    CORSMark,
    Demand,
    HeadersMark,
    LimitMark,
    Mark,
    Opening,
    Requirement,
    SignedURLMark,
    UnlimitedMark,
)
from flask_m9m.guard.policy import Access, Level, RoutePolicy
from flask_m9m.guard.policy_compiler import PolicyCompiler
from flask_m9m.testing import make_settings

CLOSED = {"security": {"default_access": "authenticated"}}
PUBLIC, OPTIONAL, AUTHENTICATED, SIGNED = Access


class Scheme(Authenticator):
    def __init__(self, scheme: str) -> None:
        self.scheme = scheme


BEARER, API_KEY, OWN = Scheme("bearer"), Scheme("api_key"), Scheme("own")


def compiler(settings: Any = None, schemes: Sequence[Scheme] = (BEARER, API_KEY)) -> PolicyCompiler:
    return PolicyCompiler(make_settings(settings), schemes)


def view(*marks: Mark) -> Level:
    return Level("view", marks, binding=True)


def method(*marks: Mark) -> Level:
    return Level("method get", marks, binding=True)


def view_class(*marks: Mark, of: type = object) -> Level:
    return Level("class Report", marks, view_class=of)


def blueprint(*marks: Mark) -> Level:
    return Level("blueprint api", marks)


def pattern(*marks: Mark) -> Level:
    return Level("pattern *", marks)


def compiled(*levels: Level, settings: Any = None, by: str = "GET") -> RoutePolicy:
    return compiler(settings).compile("report", levels, by)


def refused(*levels: Level, settings: Any = None) -> str:
    """Compile levels that must be refused; return the text of the first problem."""
    with pytest.raises(SettingsError) as caught:
        compiled(*levels, settings=settings)
    problem = caught.value.problems[0]
    assert "report" in problem.path
    return f"{problem.path}: {problem.found}; {problem.accepted}"


# Who gets through


@pytest.mark.parametrize(
    ("settings", "access"), [(None, PUBLIC), (CLOSED, AUTHENTICATED)], ids=["open", "closed"]
)
def test_where_no_mark_decides_the_settings_do(settings: Any, access: Access) -> None:
    for levels in ([], [view(), pattern()], [view(CacheableMark(), LimitMark.of("5/minute"))]):
        policy = compiled(*levels, settings=settings)
        assert policy.access is access
        assert policy.undecided
        assert policy.decided_by == "settings"
        assert bool(policy.authenticators) is (access is AUTHENTICATED)


@pytest.mark.parametrize("settings", [None, CLOSED], ids=["open", "closed"])
def test_requests_that_no_route_answers_need_no_credential(settings: Any) -> None:
    policy = compiler(settings).unrouted()
    assert policy.access is PUBLIC
    assert policy.authenticators == ()
    assert not policy.undecided
    assert not policy.demanding


@pytest.mark.parametrize("settings", [None, CLOSED], ids=["open", "closed"])
@pytest.mark.parametrize(
    ("levels", "access", "decided_by"),
    [
        ([view(Requirement())], AUTHENTICATED, "view"),
        ([view(Requirement(optional=True))], OPTIONAL, "view"),
        ([view(SignedURLMark())], SIGNED, "view"),
        ([view(Opening())], PUBLIC, "view"),
        ([view(), blueprint(Requirement())], AUTHENTICATED, "blueprint api"),
        ([view(), blueprint(), pattern(SignedURLMark())], SIGNED, "pattern *"),
        # What is nearer to the view opens what stands further out.
        ([view(Opening()), blueprint(Requirement())], PUBLIC, "view"),
        ([view(Requirement(optional=True)), blueprint(Requirement())], OPTIONAL, "view"),
        ([view(), blueprint(Opening()), pattern(Requirement())], PUBLIC, "blueprint api"),
        ([method(Opening()), view_class(Requirement())], PUBLIC, "method get"),
        # And closes what is open further out.
        ([view(Requirement()), blueprint(Opening())], AUTHENTICATED, "view"),
        ([view(SignedURLMark()), pattern(Opening())], SIGNED, "view"),
        ([blueprint(Requirement()), pattern(Opening())], AUTHENTICATED, "blueprint api"),
        # But nothing opens what is closed on the view's function or on its method.
        ([view(Opening()), method(Requirement())], AUTHENTICATED, "method get"),
        ([view(Opening()), method(SignedURLMark())], SIGNED, "method get"),
        (
            [view(Requirement(optional=True)), method(Requirement())],
            AUTHENTICATED,
            "view, method get",
        ),
        ([view(Requirement()), method(Requirement())], AUTHENTICATED, "view, method get"),
        # Optional is no demand that could hold against the nearer mark.
        ([view(Opening()), method(Requirement(optional=True))], PUBLIC, "view"),
        # Both kinds at once.
        ([view(Requirement(), SignedURLMark())], AUTHENTICATED, "view"),
        ([view(Requirement(optional=True), SignedURLMark())], OPTIONAL, "view"),
        ([view(Requirement(optional=True), Requirement())], AUTHENTICATED, "view"),
        ([view(Requirement(optional=True), Requirement(optional=True))], OPTIONAL, "view"),
    ],
)
def test_the_nearest_marks_decide_and_those_of_the_view_itself_always_hold(
    levels: list[Level], access: Access, decided_by: str, settings: Any
) -> None:
    policy = compiled(*levels, settings=settings)
    assert (policy.access, policy.decided_by, policy.undecided) == (access, decided_by, False)


ADMIN, FRESH, KEY = Requirement(roles=("a",)), Requirement(fresh=True), SignedURLMark()
INSTEAD, MAYBE = Requirement(scopes=("x",), instead=True), Requirement(optional=True)


@pytest.mark.parametrize(
    ("levels", "demands", "decided_by"),
    [
        ([view(FRESH), blueprint(ADMIN)], {FRESH, ADMIN}, "view, blueprint api"),
        ([view_class(FRESH), pattern(ADMIN)], {FRESH, ADMIN}, "class Report, pattern *"),
        ([view(KEY), blueprint(ADMIN)], {KEY, ADMIN}, "view, blueprint api"),
        ([view(), blueprint(ADMIN), pattern(FRESH)], {ADMIN, FRESH}, "blueprint api, pattern *"),
        ([view(INSTEAD), blueprint(ADMIN), pattern(FRESH)], {INSTEAD}, "view"),
        (
            [view(FRESH), blueprint(INSTEAD), pattern(ADMIN)],
            {FRESH, INSTEAD},
            "view, blueprint api",
        ),
        ([view(SignedURLMark(instead=True)), blueprint(ADMIN)], 1, "view"),
        # What opens ends the sum: what stands further out no longer applies.
        ([view(FRESH), blueprint(Opening()), pattern(ADMIN)], {FRESH}, "view"),
        ([view(MAYBE), blueprint(ADMIN)], set(), "view"),
        ([view(FRESH), blueprint(MAYBE), pattern(ADMIN)], {FRESH}, "view, blueprint api"),
        # But what stands on the function or method itself applies whatever is nearer.
        ([view(INSTEAD), method(ADMIN), view_class(FRESH)], {INSTEAD, ADMIN}, "view, method get"),
        ([view(Opening()), method(ADMIN), blueprint(FRESH)], {ADMIN}, "method get"),
    ],
)
def test_what_closes_adds_up_until_something_opens_or_replaces(
    levels: list[Level], demands: Any, decided_by: str
) -> None:
    policy = compiled(*levels)
    found = len(policy.demands) if isinstance(demands, int) else set(policy.demands)
    assert (found, policy.decided_by) == (demands, decided_by)
    assert policy.access is not PUBLIC


def test_demands_of_the_view_and_of_its_method_add_up() -> None:
    admin, fresh, signed = Requirement(roles=("a",)), Requirement(fresh=True), SignedURLMark()
    policy = compiled(view(admin), method(fresh, signed))
    assert set(policy.demands) == {admin, fresh, signed}
    assert policy.demanding
    assert {admin, fresh, signed} <= policy.marks


@pytest.mark.parametrize(
    "marks", list(permutations([Requirement(roles=("a",)), SignedURLMark("b")]))
)
def test_rights_are_checked_before_a_signature_in_whichever_order_the_marks_were_written(
    marks: tuple[Demand, ...],
) -> None:
    assert [demand.authenticates for demand in compiled(view(*marks)).demands] == [True, False]


def test_a_demand_that_is_made_twice_is_checked_once_and_both_marks_count_as_enforced() -> None:
    first, second = Requirement(roles=("a",)), Requirement(roles=("a",))
    policy = compiled(view(first), method(second, first))
    assert policy.demands == (first,)
    assert policy.marks == {first, second}
    signed, again = SignedURLMark("a"), SignedURLMark("a")
    assert compiled(view(signed, again)).demands == (signed,)


def test_a_credential_alone_is_no_further_demand() -> None:
    mark = Requirement(schemes=("bearer",))
    policy = compiled(view(mark))
    assert policy.demands == ()
    assert not policy.demanding
    assert policy.marks == {mark}


def test_a_demand_that_something_nearer_has_opened_is_not_enforced() -> None:
    far = Requirement(roles=("admin",))
    policy = compiled(view(Opening()), blueprint(far))
    assert policy.demands == ()
    assert policy.authenticators == ()
    assert far not in policy.marks


MARKS = st.sampled_from(
    [
        Opening,
        Requirement,
        lambda: Requirement(optional=True),
        lambda: Requirement(roles=("a",)),
        lambda: Requirement(optional=True, scopes=("a",)),
        lambda: SignedURLMark("a"),
        lambda: SignedURLMark("b"),
        CacheableMark,
        lambda: LimitMark.of("5/minute"),
    ]
).map(lambda make: make())
LEVELS = st.lists(
    st.builds(
        Level,
        st.sampled_from(["view", "method get", "blueprint api", "pattern *"]),
        st.lists(MARKS, max_size=3),
        st.booleans(),
    ),
    max_size=4,
)


@given(LEVELS, st.sampled_from([None, CLOSED]))
def test_no_marks_around_a_view_open_what_its_own_marks_close(
    levels: list[Level], settings: Any
) -> None:
    closing = [mark for level in levels if level.binding for mark in level.marks if mark.closes]
    demands = [mark for mark in closing if isinstance(mark, Demand)]
    try:
        policy = compiled(*levels, settings=settings)
    except SettingsError:
        contradictory = any(
            any(isinstance(mark, Opening) for mark in level.marks)
            and any(isinstance(mark, Demand) for mark in level.marks)
            for level in levels
        )
        purposes = {
            mark.purpose
            for level in levels
            for mark in level.marks
            if isinstance(mark, SignedURLMark)
        }
        assert contradictory or len(purposes) > 1
        return
    assert policy.marks.issuperset(closing)
    enforced = {demand.meaning for demand in policy.demands}
    assert enforced.issuperset(demand.meaning for demand in demands if demand.asks_more)
    if demands:
        assert policy.access is not PUBLIC
    if any(demand.authenticates for demand in demands):
        assert policy.access is AUTHENTICATED
        assert policy.authenticators
    if policy.access in (PUBLIC, SIGNED):
        assert policy.authenticators == ()
    if not any(isinstance(mark, Opening | Demand) for level in levels for mark in level.marks):
        assert policy.undecided


# Contradictions


@pytest.mark.parametrize(
    ("demand", "decorator"),
    [
        (Requirement(), "@require_auth"),
        (Requirement(optional=True), "@require_auth"),
        (SignedURLMark(), "@require_signed_url"),
    ],
)
@pytest.mark.parametrize(
    ("level", "place"),
    [
        (view, "view"),
        (method, "method get"),
        (view_class, "class Report"),
        (blueprint, "blueprint api"),
        (pattern, "pattern *"),
    ],
)
def test_what_is_open_and_closed_in_one_place_is_refused(
    level: Any, place: str, demand: Demand, decorator: str
) -> None:
    for marks in permutations((Opening(), demand)):
        assert f"both @public and {decorator} ({place})" in refused(level(*marks))


def test_open_in_one_place_and_closed_in_another_is_no_contradiction() -> None:
    assert compiled(view(Opening()), method(Requirement())).access is AUTHENTICATED
    assert compiled(view(Requirement()), blueprint(Opening())).access is AUTHENTICATED


def test_a_contradiction_further_out_than_the_mark_that_decides_does_no_harm() -> None:
    assert compiled(view(Opening()), pattern(Opening(), Requirement())).access is PUBLIC


@pytest.mark.parametrize(
    "levels",
    [
        [view(SignedURLMark("a"), SignedURLMark("b"))],
        [view(SignedURLMark("a")), method(SignedURLMark("b"))],
        [view(SignedURLMark("a"), Requirement(roles=("a",)), SignedURLMark())],
        [view(Opening()), method(SignedURLMark("a"), SignedURLMark("b"))],
    ],
)
def test_one_url_cannot_be_signed_for_two_purposes(levels: list[Level]) -> None:
    assert "@require_signed_url for several purposes" in refused(*levels)


# Schemes


@pytest.mark.parametrize(
    ("marks", "accepted"),
    [
        ([Requirement()], [BEARER, API_KEY, OWN]),
        ([Requirement(schemes=("own", "bearer"))], [BEARER, OWN]),
        ([Requirement(schemes=("basic", "own"))], [OWN]),
        ([Requirement(schemes=("bearer", "own")), Requirement(schemes=("api_key", "own"))], [OWN]),
        ([Requirement(schemes=("bearer",)), Requirement()], [BEARER]),
        ([Requirement(schemes=("bearer",)), SignedURLMark()], [BEARER]),
        ([Requirement(schemes=("bearer",), optional=True)], [BEARER]),
        ([SignedURLMark()], []),
    ],
)
def test_a_route_accepts_the_schemes_that_all_its_demands_accept(
    marks: list[Mark], accepted: list[Scheme]
) -> None:
    policy = compiler(schemes=(BEARER, API_KEY, OWN)).compile("report", [view(*marks)], "GET")
    assert list(policy.authenticators) == accepted


@pytest.mark.parametrize(
    ("marks", "said"),
    [
        ([Requirement(schemes=("basic",))], "switched off (switched on: bearer, api_key"),
        ([Requirement(schemes=())], "switched off"),
        (
            [Requirement(schemes=("bearer",)), Requirement(schemes=("api_key",))],
            "schemes=['bearer'] and schemes=['api_key'] have no scheme in common; with instead",
        ),
        ([Requirement(schemes=("basic",), optional=True)], "switched off"),
        (
            [Requirement(schemes=("baerer",))],
            "unknown scheme 'baerer' (known: api_key, basic,",
        ),
        ([Requirement(schemes=("bearer", "\x1b[2J"))], r"unknown scheme '\x1b[2J'"),
        ([Requirement(), Requirement(schemes=("own",))], "unknown scheme 'own'"),
    ],
)
def test_a_route_that_no_scheme_could_open_is_refused(marks: list[Mark], said: str) -> None:
    assert said in refused(view(*marks))


def test_a_closed_route_is_refused_where_no_scheme_is_on() -> None:
    none_on = compiler(CLOSED, schemes=())
    for levels in ([], [view(Requirement())], [view(Requirement(optional=True))]):
        with pytest.raises(SettingsError, match=r"switched on: none.*M9M_JWT_SECRET"):
            none_on.compile("report", levels, "GET")
    assert none_on.compile("report", [view(Opening())], "GET").access is PUBLIC
    assert none_on.compile("report", [view(SignedURLMark())], "GET").access is SIGNED


# Limits


def buckets(policy: RoutePolicy) -> list[tuple[str, ...]]:
    """List the bucket keys of each limit of a policy, one for each of its parts."""
    return [tuple(limit.key for limit in limits.limits()) for limits in policy.limits]


def test_limits_of_all_levels_add_up_the_nearest_first() -> None:
    near, far = LimitMark.of("5/minute"), LimitMark.of("9/hour; 50/day")
    outermost = LimitMark.of(lambda: "7/second")
    policy = compiled(view(Opening(), near), blueprint(far), pattern(outermost))
    assert [limits.mark for limits in policy.limits] == [near, far, outermost]
    assert [limit.count for limits in policy.limits for limit in limits.limits()] == [5, 9, 50, 7]
    assert [limit.name for limits in policy.limits for limit in limits.limits()] == [
        "report",
        "report-2",
        "report-2:2",
        "report-3",
    ]
    assert policy.demanding
    assert {near, far, outermost} <= policy.marks
    assert len(set(buckets(policy))) == 3


def test_one_limit_that_is_found_in_several_places_counts_once() -> None:
    mark = LimitMark.of("5/minute")
    policy = compiled(view(mark, mark), method(mark), pattern(mark))
    assert [limits.mark for limits in policy.limits] == [mark]
    assert buckets(policy) == buckets(compiled(view(mark)))


def test_two_limits_that_say_the_same_in_one_place_have_a_bucket_each() -> None:
    policy = compiled(view(LimitMark.of("5/minute"), LimitMark.of("5/minute")))
    assert len(set(buckets(policy))) == 2


def test_a_limit_has_one_bucket_for_all_methods_whatever_limits_each_has_besides() -> None:
    shared, gets = LimitMark.of("5/minute"), LimitMark.of("5/minute", methods=["GET"])
    get = compiled(view(gets, shared), by="GET")
    post = compiled(view(gets, shared), by="POST")
    assert buckets(post) == buckets(get)[1:]
    # What one method's function has besides changes nothing either.
    with_own = compiled(method(LimitMark.of("5/minute")), pattern(shared))
    assert buckets(with_own)[1:] == buckets(compiled(pattern(shared)))


@pytest.mark.parametrize(
    ("methods", "counted"),
    [
        (None, ["GET", "HEAD", "POST", "PURGE", ANY_OTHER_METHOD]),
        (["get"], ["GET", "HEAD"]),
        (["HEAD"], ["GET", "HEAD"]),
        (["POST"], ["POST"]),
        (["PURGE"], ["PURGE", ANY_OTHER_METHOD]),
    ],
)
def test_a_policy_has_the_limits_of_its_method(methods: Any, counted: list[str]) -> None:
    level = view(LimitMark.of("5/minute", methods=methods))
    for by in ("GET", "HEAD", "POST", "PURGE", ANY_OTHER_METHOD):
        policy = compiled(level, by=by)
        assert bool(policy.limits) is policy.demanding is (by in counted)


def test_a_name_shares_buckets_between_routes_and_with_no_route_of_that_name() -> None:
    named, same = LimitMark.of("5/minute", name="report"), LimitMark.of("5/minute", name="report")
    unnamed = LimitMark.of("5/minute")
    make = compiler()
    first = make.compile("report", [view(named)], "GET")
    second = make.compile("upload", [view(same)], "GET")
    assert buckets(first) == buckets(second)
    assert buckets(first) != buckets(make.compile("report", [view(unnamed)], "GET"))
    assert [limits.name for limits in (*first.limits, *second.limits)] == ["report", "report"]


def test_two_routes_under_one_pattern_have_a_bucket_each() -> None:
    mark, make = LimitMark.of("5/minute"), compiler()
    first = make.compile("report", [pattern(mark)], "GET")
    second = make.compile("upload", [pattern(mark)], "GET")
    assert buckets(first) != buckets(second)


ROUTES = st.text(max_size=80) | st.sampled_from(
    ["a", "a-2", "a:2", "a view", "a view 1", "a view 1 part 1", "route a", "name a", "a" * 65]
)


@given(ROUTES, ROUTES)
def test_routes_of_any_name_have_limits_and_no_two_share_a_bucket(route: str, other: str) -> None:
    marks = [LimitMark.of("5/minute; 5/minute", name=name) for name in (None, None, "a")]
    make = compiler()
    first, second = (
        [key for keys in buckets(make.compile(name, [view(*marks)], "GET")) for key in keys]
        for name in (route, other)
    )
    assert len(set(first)) == len(set(second)) == 6
    shared = set(first).intersection(second)
    assert shared == set(first if route == other else first[4:])


def test_a_limit_is_plain_where_a_request_always_takes_the_same_of_it() -> None:
    def plain(**options: Any) -> bool:
        [limits] = compiled(view(LimitMark.of(**{"limits": "5/minute", **options}))).limits
        return limits.plain is not None

    assert plain()
    assert plain(cost=2, key="identity", name="a")
    for options in (
        {"limits": "5/minute; 9/hour"},
        {"limits": lambda: "5/minute"},
        {"cost": lambda: 1},
        {"exempt_when": lambda: False},
        {"count": lambda response: True},
        {"shadow": True},
    ):
        assert not plain(**options), options


def test_the_nearest_unlimited_decides_that_and_says_where_it_stands() -> None:
    policy = compiled(view(LimitMark.of("5/minute")), blueprint(UnlimitedMark()))
    assert policy.unlimited
    assert policy.unlimited_decided_by == "blueprint api"
    assert len(policy.limits) == 1
    counted = compiled(view())
    assert not counted.unlimited
    assert counted.unlimited_decided_by == "settings"


# CORS and security headers: the nearest wins

APP, OTHER = "https://app.example", "https://other.example"


def cors_settings(**cors: Any) -> Any:
    return {"security": {"cors": {"allowed_origins": [APP], "allow_credentials": True, **cors}}}


def test_the_nearest_cors_mark_is_the_only_one_and_the_settings_fill_its_gaps() -> None:
    near, far = CORSMark({"allowed_origins": (OTHER,)}), CORSMark({"allow_credentials": False})
    policy = compiled(view(near), blueprint(far), settings=cors_settings())
    assert policy.cors is not None
    assert policy.cors.origins == (OTHER,)
    assert policy.cors.allows_credentials(OTHER)
    assert policy.cors_decided_by == "view"
    further = compiled(view(), blueprint(far), settings=cors_settings())
    assert further.cors is not None
    assert further.cors.origins == (APP,)
    assert not further.cors.allows_credentials(APP)
    assert further.cors_decided_by == "blueprint api"


def test_of_two_marks_in_one_place_the_outer_decorator_wins() -> None:
    inner, outer = CORSMark({"allowed_origins": (OTHER,)}), CORSMark({"allowed_origins": (APP,)})
    policy = compiled(view(inner, outer))
    assert policy.cors is not None
    assert policy.cors.origins == (APP,)
    framed = HeadersMark({"x_frame_options": "SAMEORIGIN"})
    unframed = HeadersMark({"x_frame_options": "DENY"})
    headers = compiled(view(framed, unframed)).headers
    assert headers is not None
    assert dict(headers.plain)["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize(
    ("settings", "overrides", "on"),
    [
        ({"enabled": False}, None, False),
        ({"enabled": False}, {"max_age": 5}, False),
        ({"enabled": False}, {"enabled": True}, True),
        ({}, {"enabled": False}, False),
        ({}, None, True),
    ],
)
def test_cors_is_off_where_the_nearest_says_so(
    settings: dict[str, Any], overrides: Any, on: bool
) -> None:
    levels = [] if overrides is None else [view(CORSMark(overrides))]
    policy = compiled(*levels, settings=cors_settings(**settings))
    assert (policy.cors is not None) is on
    assert ("Origin" in policy.vary) is on


def test_a_cors_mark_that_contradicts_the_settings_is_refused_with_its_route() -> None:
    found = refused(view(CORSMark({"allowed_origins": ("*",)})), settings=cors_settings())
    assert "@cors of report" in found
    assert "allow_credentials" in found


def test_development_lets_any_origin_in_under_a_mark_too_and_sends_no_hsts() -> None:
    development = {"development": {"enabled": True}, **cors_settings()}
    mark = CORSMark({"allowed_origins": (OTHER,)})
    for levels in ([], [view(mark, HeadersMark({"preset": "web"}))]):
        policy = compiled(*levels, settings=development)
        assert policy.cors is not None
        assert policy.headers is not None
        assert policy.cors.rule_for("https://anybody.example") is not None
        assert not policy.cors.allows_credentials("https://anybody.example")
        assert policy.headers.secure == policy.headers.plain


def test_the_nearest_headers_mark_wins_and_switches_a_field_off() -> None:
    near = HeadersMark({"x_frame_options": None, "preset": "web"})
    far = HeadersMark({"referrer_policy": "origin"})
    policy = compiled(view(near), blueprint(far))
    assert policy.headers is not None
    fields = dict(policy.headers.secure)
    assert "X-Frame-Options" not in fields
    assert fields["Referrer-Policy"] == "no-referrer"
    assert fields["Content-Security-Policy"].startswith("default-src 'self'")
    assert "Strict-Transport-Security" in fields
    assert policy.headers_decided_by == "view"
    assert compiled(blueprint(far)).headers_decided_by == "blueprint api"
    assert compiled().headers_decided_by == "settings"


def test_headers_are_off_where_the_nearest_says_so() -> None:
    policy = compiled(view(HeadersMark({"enabled": False})))
    assert policy.headers is None
    assert policy.plain_fields == policy.secure_fields == ()


def test_a_headers_mark_with_a_value_that_cannot_be_sent_is_refused_with_its_route() -> None:
    found = refused(view(HeadersMark({"referrer_policy": "a\r\nSet-Cookie: b=c"})))
    assert "@security_headers of report: referrer_policy" in found
    assert "\n" not in found


# Vary, caching, classes


@pytest.mark.parametrize(
    ("levels", "vary"),
    [
        ([view(Opening())], ("Origin",)),
        ([view(Requirement())], ("Origin", "Authorization", "Cookie", "X-My-Key")),
        ([view(Requirement(optional=True))], ("Origin", "Authorization", "Cookie", "X-My-Key")),
        ([view(SignedURLMark())], ("Origin",)),
        ([view(Opening(), CORSMark({"allowed_origins": ()}))], ()),
        ([view(Opening(), CORSMark({"enabled": False}))], ()),
    ],
)
def test_an_answer_varies_on_origins_and_credentials_where_they_count(
    levels: list[Level], vary: tuple[str, ...]
) -> None:
    settings = cors_settings()
    settings["security"]["api_keys"] = {"header": "X-My-Key"}
    policy = compiled(*levels, settings=settings)
    assert policy.vary == vary
    assert policy.vary_fields == ((("Vary", ", ".join(vary)),) if vary else ())
    assert policy.refusal_vary_fields == (("Vary", ", ".join((*vary, "Accept"))),)


def test_cacheable_counts_wherever_it_stands() -> None:
    assert compiled(view(Requirement()), pattern(CacheableMark())).cacheable
    assert not compiled(view(Requirement())).cacheable


def test_a_policy_knows_the_marks_of_its_views_class_the_opened_ones_too() -> None:
    class Report:
        pass

    class Other(Report):
        pass

    closed, elsewhere = Requirement(), Requirement()
    policy = compiled(
        view(Opening()), view_class(closed, of=Report), view_class(of=Report), pattern(elsewhere)
    )
    assert policy.access is PUBLIC
    assert policy.considers(closed, Report())
    assert not policy.considers(elsewhere, Report())
    assert not policy.considers(closed, Other())
    assert not policy.considers(closed, None)
    assert compiled(view(closed)).view_class is None


# A single mark


@pytest.mark.parametrize("settings", [None, CLOSED], ids=["open", "closed"])
def test_a_single_mark_demands_what_it_says_and_nothing_of_the_default(settings: Any) -> None:
    make = compiler(settings)
    admin = Requirement(roles=("admin",))
    policy = make.for_mark(admin, "report>hidden", "GET")
    assert (policy.access, policy.demands, policy.marks) == (AUTHENTICATED, (admin,), {admin})
    limit = LimitMark.of("5/minute", methods=["POST"])
    policy = make.for_mark(limit, "report>hidden", "POST")
    assert policy.access is PUBLIC
    assert [limits.mark for limits in policy.limits] == [limit]
    assert make.for_mark(limit, "report>hidden", "GET").limits == ()
    assert make.for_mark(SignedURLMark(), "report>hidden", "GET").access is SIGNED
