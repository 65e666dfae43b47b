from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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

# Requirement.of


def test_a_requirement_without_arguments_asks_for_a_credential_alone() -> None:
    requirement = Requirement.of()
    assert requirement.closes
    assert not requirement.asks_more
    assert not requirement.forbids
    assert requirement.schemes is None
    assert requirement.wording() == []
    assert requirement.parameters() == {}


@pytest.mark.parametrize(
    ("given_names", "expected"),
    [
        ("read write", ("read", "write")),
        ("  read\t write\n", ("read", "write")),
        (["read", "write"], ("read", "write")),
        (("read:all",), ("read:all",)),
        ("", ()),
        ([], ()),
    ],
)
@pytest.mark.parametrize("argument", ["scopes", "any_scope", "roles", "schemes"])
def test_names_come_as_a_text_with_spaces_or_as_a_collection(
    argument: str, given_names: Any, expected: tuple[str, ...]
) -> None:
    requirement = Requirement.of(**{argument: given_names})
    assert getattr(requirement, argument) == expected


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a b", "", "ä", "a\nb", "a\0", 7, None, b"read"])
@pytest.mark.parametrize("argument", ["scopes", "any_scope", "roles", "schemes"])
def test_a_name_that_no_header_field_can_carry_is_refused_with_its_argument(
    argument: str, name: Any
) -> None:
    with pytest.raises(ValueError, match=f"^{argument}: "):
        Requirement.of(**{argument: ["fine", name]})


def test_a_message_about_a_name_is_short_and_on_one_line() -> None:
    with pytest.raises(ValueError) as caught:
        Requirement.of(scopes=["\x1b[2J\n" + "x" * 10_000])
    message = str(caught.value)
    assert len(message) < 300
    assert message.isprintable()


def test_no_schemes_are_not_every_scheme() -> None:
    assert Requirement.of(schemes=()).schemes == ()
    assert Requirement.of(schemes=None).schemes is None


@pytest.mark.parametrize(
    ("arguments", "closes", "asks_more", "forbids"),
    [
        ({}, True, False, False),
        ({"optional": True}, False, False, False),
        ({"scopes": "a"}, True, True, True),
        ({"any_scope": "a"}, True, True, True),
        ({"roles": "a"}, True, True, True),
        ({"fresh": True}, True, True, False),
        ({"schemes": "bearer"}, True, False, False),
        ({"optional": True, "roles": "a"}, False, True, True),
    ],
)
def test_a_requirement_knows_how_much_it_asks_for(
    arguments: dict[str, Any], closes: bool, asks_more: bool, forbids: bool
) -> None:
    requirement = Requirement.of(**arguments)
    assert (requirement.closes, requirement.asks_more, requirement.forbids) == (
        closes,
        asks_more,
        forbids,
    )


# LimitMark.of


class Half:
    def __call__(self) -> str:
        return "1/minute"


async def coroutine() -> Any:
    return True


@pytest.mark.parametrize(
    "arguments",
    [
        {"key": None},
        {"key": "address"},
        {"key": "identity"},
        {"key": lambda: "x"},
        {"cost": 5},
        {"cost": lambda: 10**9},
        {"cost": 2, "burst": 2},
        {"limits": "5/minute; 9/hour", "cost": 5},
        {"limits": lambda: "5/minute", "cost": 10**9},
        {"limits": Half()},
        {"limits": functools.partial(str, "5/minute")},
        {"burst": 7},
        {"name": "a" * 64},
        {"exempt_when": bool, "count": bool},
        {"shadow": True},
    ],
)
def test_a_limit_keeps_the_arguments_that_it_accepts(arguments: dict[str, Any]) -> None:
    mark = LimitMark.of(**{"limits": "5/minute", **arguments})
    assert {name: getattr(mark, name) for name in arguments} == arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"limits": "5"}, "is not a rate limit"),
        ({"limits": "5/minute;"}, "is not a rate limit"),
        ({"limits": "0/minute"}, "at least 1"),
        ({"limits": b"5/minute"}, "limits must be"),
        ({"cost": 6}, "found 6"),
        ({"cost": 3, "burst": 2}, "burst of 2"),
        ({"limits": "5/minute;3/hour", "cost": 4}, "burst of 3"),
        ({"limits": lambda: "", "cost": 2, "burst": 1}, "burst of 1"),
        ({"cost": -1}, "found -1"),
        ({"cost": "1"}, "found '1'"),
        ({"burst": -1}, "at least 1"),
        ({"burst": 1.0}, "at least 1"),
        ({"burst": 10**12}, "100 years"),
        ({"key": "Address"}, "found 'Address'"),
        ({"key": ""}, "key must be"),
        ({"key": ["address"]}, "key must be"),
        ({"methods": "GET"}, "methods must be"),
        ({"exempt_when": 0}, "exempt_when must be"),
        ({"exempt_when": functools.partial(coroutine)}, "coroutine function"),
        ({"count": ""}, "count must be"),
        ({"shadow": "yes"}, "found 'yes'"),
        ({"name": "a\nb"}, "cannot name"),
    ],
    ids=lambda value: None if isinstance(value, str) else ", ".join(value),
)
def test_a_limit_refuses_what_it_cannot_keep_and_names_it(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError) as caught:
        LimitMark.of(**{"limits": "5/minute", **arguments})
    assert message in str(caught.value)


def test_a_limit_refuses_an_argument_that_nobody_knows() -> None:
    with pytest.raises(TypeError, match="per_method"):
        LimitMark.of("5/minute", per_method=True)


@pytest.mark.parametrize(
    ("methods", "counted", "free"),
    [
        (None, {"GET", "PURGE", ANY_OTHER_METHOD}, set()),
        (["get"], {"GET"}, {"POST", "PURGE", ANY_OTHER_METHOD}),
        (["Head"], {"GET"}, {"POST", ANY_OTHER_METHOD}),
        (("POST", "PUT"), {"POST", "PUT"}, {"GET", "DELETE", ANY_OTHER_METHOD}),
        ({"PURGE"}, {"PURGE", ANY_OTHER_METHOD}, {"GET"}),
    ],
)
def test_a_limit_counts_the_methods_that_it_names(
    methods: Any, counted: set[str], free: set[str]
) -> None:
    mark = LimitMark.of("5/minute", methods=methods)
    assert {method for method in counted | free if mark.counts(method)} == counted


# CORSMark.of and HeadersMark.of


@pytest.mark.parametrize(
    ("make", "overrides", "path"),
    [
        (CORSMark.of, {"allowed_origin": []}, "allowed_origin"),
        (CORSMark.of, {"allowed_origins": ["https://a.example/"]}, "allowed_origins"),
        (CORSMark.of, {"allowed_origins": ["*"], "allow_credentials": True}, "allow_credentials"),
        (CORSMark.of, {"max_age": "soon"}, "max_age"),
        (CORSMark.of, {"expose_headers": ["A\r\nB"]}, "expose_headers"),
        (HeadersMark.of, {"preset": "page"}, "preset"),
        (HeadersMark.of, {"x_frame_option": "DENY"}, "x_frame_option"),
        (HeadersMark.of, {"referrer_policy": "a\r\nSet-Cookie: b=c"}, "referrer_policy"),
        (HeadersMark.of, {"content_security_policy": ["a"]}, "content_security_policy"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_where_the_decorator_is_written(
    make: Callable[..., Mark], overrides: dict[str, Any], path: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        make(**overrides)
    [problem] = caught.value.problems
    assert path in problem.path


def test_every_problem_of_one_decorator_is_reported() -> None:
    with pytest.raises(SettingsError) as caught:
        CORSMark.of(max_age=-1, allow_credentials="perhaps")
    assert {problem.path.rpartition(".")[2] for problem in caught.value.problems} == {
        "max_age",
        "allow_credentials",
    }


@pytest.mark.parametrize(
    ("make", "overrides"),
    [
        (CORSMark.of, {"allowed_origins": ["https://a.example"], "max_age": 5}),
        (CORSMark.of, {}),
        (HeadersMark.of, {"preset": "web", "x_frame_options": None}),
    ],
)
def test_a_mark_keeps_the_overrides_and_nothing_else(
    make: Callable[..., Any], overrides: Mapping[str, Any]
) -> None:
    assert make(**overrides).overrides == overrides


# Demand.conflict_with


def test_a_url_has_one_signature_and_so_one_purpose() -> None:
    report, upload = SignedURLMark("report"), SignedURLMark("upload")
    for first, second in ((report, upload), (upload, report), (report, SignedURLMark())):
        conflict = first.conflict_with(second)
        assert conflict is not None
        assert conflict.startswith("@require_signed_url")
    assert report.conflict_with(SignedURLMark("report")) is None


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (SignedURLMark("report"), Requirement.of(roles="admin")),
        (Requirement.of(roles="admin"), SignedURLMark("report")),
        (Requirement.of(roles="admin"), Requirement.of(roles="owner")),
        (Requirement.of(fresh=True), Requirement.of(optional=True)),
    ],
)
def test_demands_that_one_request_can_meet_do_not_conflict(first: Demand, second: Demand) -> None:
    assert first.conflict_with(second) is None


# Wording and parameters


@pytest.mark.parametrize(
    ("demand", "wording", "parameters"),
    [
        (
            Requirement.of(scopes="read write"),
            ["scope read", "scope write"],
            {"scopes": ["read", "write"]},
        ),
        (
            Requirement.of(any_scope="read write"),
            ["any scope of read write"],
            {"any_scope": ["read", "write"]},
        ),
        (Requirement.of(roles="a b"), ["role a or b"], {"roles": ["a", "b"]}),
        (Requirement.of(fresh=True), ["a fresh token"], {"fresh": True}),
        (Requirement.of(schemes="bearer", optional=True), [], {}),
        (
            Requirement.of(scopes="s", any_scope="t", roles="r", fresh=True),
            ["scope s", "any scope of t", "role r", "a fresh token"],
            {"scopes": ["s"], "any_scope": ["t"], "roles": ["r"], "fresh": True},
        ),
        (SignedURLMark("report"), ["a URL signed for report"], {"purpose": "report"}),
        (SignedURLMark(), ["a signed URL"], {"purpose": ""}),
    ],
)
def test_a_demand_says_what_it_asks_for(
    demand: Demand, wording: list[str], parameters: dict[str, Any]
) -> None:
    assert demand.wording() == wording
    assert demand.parameters() == parameters


# Identity and meaning


def exempt() -> bool:
    return False


MAKERS: list[Callable[[], Mark]] = [
    Requirement.of,
    lambda: Requirement.of(optional=True),
    lambda: Requirement.of(scopes="a"),
    lambda: Requirement.of(any_scope="a"),
    lambda: Requirement.of(roles="a"),
    lambda: Requirement.of(schemes="a"),
    lambda: Requirement.of(fresh=True),
    SignedURLMark,
    lambda: SignedURLMark("a"),
    Opening,
    CacheableMark,
    UnlimitedMark,
    lambda: LimitMark.of("5/minute"),
    lambda: LimitMark.of("5/minute", burst=5),
    lambda: LimitMark.of("5/minute", key="address"),
    lambda: LimitMark.of("5/minute", cost=2),
    lambda: LimitMark.of("5/minute", name="a"),
    lambda: LimitMark.of("5/minute", methods=["GET"]),
    lambda: LimitMark.of("5/minute", exempt_when=exempt),
    lambda: LimitMark.of("5/minute", count=exempt),
    lambda: LimitMark.of("5/minute", shadow=True),
    lambda: CORSMark.of(max_age=5),
    lambda: CORSMark.of(max_age=6),
    lambda: HeadersMark.of(preset="web"),
    lambda: HeadersMark.of(),
    CORSMark.of,
]


@pytest.mark.parametrize("number", range(len(MAKERS)))
def test_marks_that_say_the_same_are_two_marks_of_one_meaning(number: int) -> None:
    first, second = MAKERS[number](), MAKERS[number]()
    assert first != second
    assert len({first, second}) == 2
    assert first.meaning == second.meaning
    others = [make() for make in (*MAKERS[:number], *MAKERS[number + 1 :])]
    assert [other for other in others if other.meaning == first.meaning] == []


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "scopes": st.lists(st.sampled_from("abc"), max_size=2),
            "any_scope": st.lists(st.sampled_from("abc"), max_size=2),
            "roles": st.lists(st.sampled_from("abc"), max_size=2),
            "schemes": st.none() | st.lists(st.sampled_from("abc"), max_size=2),
            "optional": st.booleans(),
            "fresh": st.booleans(),
        },
    ),
    st.booleans(),
)
def test_a_requirement_asks_for_more_exactly_where_it_has_words_for_it(
    arguments: dict[str, Any], as_text: bool
) -> None:
    if as_text:
        arguments = {
            name: " ".join(value) if isinstance(value, list) else value
            for name, value in arguments.items()
        }
    requirement = Requirement.of(**arguments)
    assert requirement.asks_more is bool(requirement.wording())
    assert requirement.asks_more is bool(requirement.parameters())
    assert requirement.meaning == Requirement.of(**arguments).meaning
