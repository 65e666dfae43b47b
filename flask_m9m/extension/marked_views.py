"""Marked views: the table of marks on view functions and classes.

The table has weak references. It is not in the function's `__dict__`, which `functools.wraps`
copies. A mark that closes a route is kept for the innermost function, so that it applies in any
order of the decorators. A mark that opens a route is kept for the wrapper that the decorator
returned. It is kept for the function too, but only if the decorator is written on its `def`:
`add_url_rule("/open", view_func=public(report))` leaves other routes of `report` closed.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import suppress
from types import MethodType
from typing import Any
from weakref import WeakKeyDictionary

import click
from flask import Flask
from flask.views import View
from werkzeug.local import LocalProxy

from ..guard.marks import Demand, Mark, Opening

_marks: WeakKeyDictionary[Any, tuple[Mark, ...]] = WeakKeyDictionary()
_NO_VIEWS = (staticmethod, click.Command, Flask, LocalProxy)

revision = 0
"""The number of marks that were added; read as `marked_views.revision`."""


def marks_of(target: object) -> tuple[Mark, ...]:
    """List the marks of this function or class itself, the innermost first."""
    try:
        return _marks.get(target, ())
    except TypeError:  # a callable without weak references was never marked
        return ()


def add_mark(target: Any, mark: Mark) -> None:
    """Add a mark to a function or class.

    `revision` grows, so that a policy compiled before is compiled again.

    Raises:
        ValueError: the target would have both `@public` and a mark that closes it.
    """
    known = _marks.get(target, ())
    marks = known if mark in known else (*known, mark)
    demand = next((mark for mark in marks if isinstance(mark, Demand)), None)
    if demand is not None and any(isinstance(mark, Opening) for mark in marks):
        decorators = f"both @public and {demand.decorator}"
        raise ValueError(f"{name_of(target)} is marked with {decorators}")
    _marks[target] = marks
    global revision
    revision += 1


def name_of(target: object) -> str:
    """Return the name of a function, a class or an object's class, for messages."""
    return str(getattr(target, "__qualname__", None) or type(target).__qualname__)


def place_of(mark: Mark, name: str) -> str | None:
    """Name the place of a mark on a function, as every worker names it.

    Args:
        mark: the mark.
        name: the function's qualified name.

    Returns:
        The function's module and name, and the mark's number; `None` for a function made within
        another, which may make several of the name.
    """
    places = set()
    for target in [reference() for reference in _marks.keyrefs()]:  # marks may be added meanwhile
        if mark in marks_of(target) and name_of(target) == name:
            places.add(f"{target.__module__} {name} {marks_of(target).index(mark)}")
    return places.pop() if len(places) == 1 and "<" not in name else None


def check_view(target: object) -> None:
    """Check that Flask can call an object as a view, so that a mark on it is enforced.

    Raises:
        TypeError: the object is no view, or a class that is no `flask.views.View`.
    """
    if isinstance(target, type):
        if issubclass(target, View):
            return
        raise TypeError(
            f"the class {target.__qualname__} is no Flask View, so a mark on it cannot be enforced:"
            " mark its methods, derive it from flask.views.View, or list the mark in a mixin's "
            "decorators = [...]"
        )
    if not callable(target) or isinstance(target, _NO_VIEWS):
        raise TypeError(
            f"a view or a view class is needed, found {type(target).__name__}: put the mark on the "
            "function that Flask calls, under a @staticmethod or a command's decorator"
        )


def layers_of(view: object) -> Iterator[Any]:
    """Yield a view and the functions that it wraps, the innermost last."""
    return (layer for layer in _unwrapped(view) if not isinstance(layer, MethodType))


def closure_values(function: object) -> Iterator[Any]:
    """Yield the objects in a function's closure."""
    for cell in getattr(function, "__closure__", None) or ():
        with suppress(ValueError):  # the cell is still empty
            yield cell.cell_contents


def _unwrapped(view: Any) -> Iterator[Any]:
    seen: set[int] = set()
    while view is not None and id(view) not in seen:
        seen.add(id(view))
        yield view
        if isinstance(view, MethodType):
            view = view.__func__
        elif isinstance(view, functools.partial):
            view = view.func
        else:
            view = getattr(view, "__wrapped__", None)
