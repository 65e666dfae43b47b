from __future__ import annotations

import functools
import gc
import weakref
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest

from flask_m9m.extension.marked_views import (
    add_mark,
    closure_values,
    layers_of,
    marks_of,
)
from flask_m9m.guard.marks import (
    CacheableMark,
    CORSMark,
    LimitMark,
    Mark,
    Opening,
    Requirement,
    SignedURLMark,
    UnlimitedMark,
)


def make_view() -> Callable[..., str]:
    def view() -> str:
        return "view"

    return view


class Report:
    def __call__(self) -> str:
        return "object"

    def method(self) -> str:
        return "method"

    @classmethod
    def of_class(cls) -> str:
        return "class method"

    @staticmethod
    def static() -> str:
        return "static"


class Slotted:
    __slots__ = ()

    def __call__(self) -> str:
        return "slotted"


# The table


def test_what_was_never_marked_has_no_marks() -> None:
    for target in (make_view(), Report, Report(), Slotted(), None, 7, "view", [], len):
        assert marks_of(target) == ()


def test_marks_are_kept_in_the_order_in_which_they_were_added_each_once() -> None:
    view = make_view()
    first, second, third = Requirement(), SignedURLMark(), Requirement()
    for mark in (first, second, first, third, second):
        add_mark(view, mark)
    assert marks_of(view) == (first, second, third)


def test_wraps_copies_no_mark() -> None:
    view = make_view()
    add_mark(view, Requirement())
    wrapper = functools.wraps(view)(lambda: view())
    assert marks_of(wrapper) == ()
    assert vars(view) == {}


def test_a_class_and_its_objects_and_its_derived_classes_have_marks_of_their_own() -> None:
    class View(Report):
        pass

    class Derived(View):
        pass

    mark = Requirement()
    add_mark(View, mark)
    assert marks_of(View) == (mark,)
    assert marks_of(Derived) == marks_of(View()) == marks_of(Report) == ()


def test_a_mark_keeps_no_view_alive() -> None:
    view = make_view()
    add_mark(view, Requirement())
    gone = weakref.ref(view)
    del view
    gc.collect()
    assert gone() is None


def test_a_new_view_has_no_marks_of_one_that_is_gone() -> None:
    for _ in range(200):
        view = make_view()
        assert marks_of(view) == ()
        add_mark(view, Requirement())
        del view


def test_a_view_that_nothing_can_refer_to_is_not_marked_in_silence() -> None:
    slotted = Slotted()
    with pytest.raises(TypeError):
        add_mark(slotted, Requirement())
    assert marks_of(slotted) == ()


@pytest.mark.parametrize(
    ("demand", "decorator"),
    [
        (Requirement(), "@require_auth"),
        (Requirement(optional=True), "@require_auth"),
        (SignedURLMark(), "@require_signed_url"),
    ],
)
@pytest.mark.parametrize("opened_first", [True, False])
def test_what_is_open_cannot_be_closed_nor_what_is_closed_opened(
    demand: Mark, decorator: str, opened_first: bool
) -> None:
    class View(Report):
        pass

    for target in (make_view(), View):
        first, second = (Opening(), demand) if opened_first else (demand, Opening())
        add_mark(target, first)
        for _ in range(2):
            with pytest.raises(ValueError, match=f"both @public and {decorator}") as caught:
                add_mark(target, second)
            assert target.__qualname__ in str(caught.value)
        assert marks_of(target) == (first,)


@pytest.mark.parametrize("first", [Opening(), Requirement()])
def test_marks_that_say_nothing_of_who_gets_through_go_with_any(first: Mark) -> None:
    view = make_view()
    others = [LimitMark.of("5/minute"), CORSMark({}), UnlimitedMark(), CacheableMark()]
    for mark in (first, *others):
        add_mark(view, mark)
    assert marks_of(view) == (first, *others)


# Layers


def wrapped(view: Any) -> Callable[..., Any]:
    return functools.wraps(view)(lambda *args: view(*args))


def test_the_layers_of_a_view_lead_down_to_the_innermost() -> None:
    view = make_view()
    once = wrapped(view)
    twice = wrapped(once)
    assert list(layers_of(twice)) == [twice, once, view]
    assert list(layers_of(view)) == [view]
    assert list(layers_of(None)) == []


def test_partials_and_methods_are_looked_through() -> None:
    view = make_view()
    partial = functools.partial(functools.partial(view, 1), 2)
    assert list(layers_of(partial))[-1] is view
    target = Report()
    assert list(layers_of(target.method)) == [Report.method]
    assert list(layers_of(Report.of_class)) == [vars(Report)["of_class"].__func__]
    assert list(layers_of(functools.partial(wrapped(target.method))))[-1] is Report.method
    assert list(layers_of(target.static)) == [Report.static]
    assert list(layers_of(target)) == [target]


def test_a_partial_that_calls_itself_its_wrapper_is_still_looked_through() -> None:
    view, other = make_view(), make_view()
    partial = functools.update_wrapper(functools.partial(view), other)
    assert view in list(layers_of(partial))


def test_a_circle_of_wrappers_ends() -> None:
    first, second = make_view(), make_view()
    first.__wrapped__ = second  # type: ignore[attr-defined]
    second.__wrapped__ = first  # type: ignore[attr-defined]
    assert list(islice(layers_of(first), 9)) == [first, second]
    first.__wrapped__ = first  # type: ignore[attr-defined]
    assert list(islice(layers_of(first), 9)) == [first]


# Closures


def test_a_closures_objects_classes_and_methods_are_found() -> None:
    target, bound, kind = Slotted(), Report().method, Report

    def view() -> Any:
        return target, bound, kind

    assert sorted(closure_values(view), key=repr) == sorted((target, bound, kind), key=repr)


def test_a_cell_that_is_still_empty_and_what_has_no_closure_hold_nothing() -> None:
    def view() -> Any:
        return later

    assert list(closure_values(view)) == []
    for other in (make_view(), None, len, Report, functools.partial(view)):
        assert list(closure_values(other)) == []
    later = Slotted()
    assert list(closure_values(view)) == [later]
