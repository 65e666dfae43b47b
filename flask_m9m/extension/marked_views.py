"""Marked views: the table of marks on view functions and classes.

The table has weak references. It is not in the function's `__dict__`, which `functools.wraps`
copies. A mark that closes a route is kept for the innermost function, so that it applies in any
order of the decorators. A mark that opens a route is kept for the wrapper that the decorator
returned. It is kept for the function too, but only if the decorator is written on its `def`:
`add_url_rule("/open", view_func=public(report))` leaves other routes of `report` closed.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from contextlib import suppress
from types import FunctionType, MethodType
from typing import Any
from weakref import WeakKeyDictionary

from ..guard.marks import Demand, Mark, Opening

_marks: WeakKeyDictionary[Any, tuple[Mark, ...]] = WeakKeyDictionary()


def marks_of(target: object) -> tuple[Mark, ...]:
    """List the marks of this function or class itself, the innermost first."""
    try:
        return _marks.get(target, ())
    except TypeError:  # a callable without weak references was never marked
        return ()


def add_mark(target: Any, mark: Mark) -> None:
    """Add a mark to a function or class.

    Raises:
        ValueError: the target would have both `@public` and a mark that closes it.
    """
    known = _marks.get(target, ())
    marks = known if mark in known else (*known, mark)
    demand = next((mark for mark in marks if isinstance(mark, Demand)), None)
    if demand is not None and any(isinstance(mark, Opening) for mark in marks):
        decorators = f"both @public and {demand.decorator}"
        raise ValueError(f"{target.__qualname__} is marked with {decorators}")
    _marks[target] = marks


def layers_of(view: object) -> Iterator[Any]:
    """Yield a view and the functions that it wraps, the innermost last."""
    return (layer for layer in _unwrapped(view) if not isinstance(layer, MethodType))


def owners_of(view: object) -> Iterator[type]:
    """Yield the classes of the objects that a view and the functions it wraps are bound to."""
    for layer in _unwrapped(view):
        if isinstance(layer, MethodType):
            yield layer.__self__ if isinstance(layer.__self__, type) else type(layer.__self__)
        elif not isinstance(layer, FunctionType | functools.partial):
            yield type(layer)


def enclosed_classes(layers: Iterable[Any]) -> Iterator[type]:
    """Yield the classes in functions' closures, and those of the objects and methods there."""
    for layer in layers:
        for enclosed in closure_values(layer):
            enclosed = enclosed.__self__ if isinstance(enclosed, MethodType) else enclosed
            yield enclosed if isinstance(enclosed, type) else type(enclosed)


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
