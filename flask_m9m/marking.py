"""Marking: how views and classes of them are marked, and held to it past their route's policy.

A mark is kept in a weak table by function, not in the function's `__dict__`, which
`functools.wraps` copies. What closes a route is kept with the innermost function, so that it
holds whichever order the decorators were written in. What opens one is kept with the wrapper
that the decorator returned, and with the function itself only where the decorator stands on
its `def`: `add_url_rule("/open", view_func=public(report))` leaves other routes of `report`
as they are.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from types import FrameType, FunctionType, MethodType
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

from .context import current_request, current_state, settle_later
from .exchange import ON_REQUEST, Exchange
from .marks import AccessMark, LimitMark, Mark, Opening

View = TypeVar("View", bound=Callable[..., Any])

_marks: WeakKeyDictionary[Any, tuple[Mark, ...]] = WeakKeyDictionary()


def marks_of(target: object) -> tuple[Mark, ...]:
    """Return the marks kept with exactly this function or class, the innermost first."""
    try:
        return _marks.get(target, ())
    except TypeError:  # a callable that cannot be referred to weakly was never marked
        return ()


def layers_of(view: object) -> Iterator[Any]:
    """Yield a view and what it wraps, down to the innermost function."""
    return (one for one in _within(view) if not isinstance(one, MethodType))


def owners_of(view: object) -> Iterator[type]:
    """Yield the classes whose objects a view and what it wraps belong to, or are."""
    for one in _within(view):
        if isinstance(one, MethodType):
            yield one.__self__ if isinstance(one.__self__, type) else type(one.__self__)
        elif not isinstance(one, FunctionType | functools.partial):
            yield type(one)


def enclosed_by(layers: Iterable[Any]) -> Iterator[type]:
    """Yield the classes that functions enclose, or whose objects or methods they do."""
    for layer in layers:
        for held in held_by(layer):
            held = held.__self__ if isinstance(held, MethodType) else held
            yield held if isinstance(held, type) else type(held)


def held_by(function: object) -> Iterator[Any]:
    """Yield what a function encloses."""
    for cell in getattr(function, "__closure__", None) or ():
        with suppress(ValueError):  # nothing was put into it yet
            yield cell.cell_contents


def _within(view: Any) -> Iterator[Any]:
    seen: set[int] = set()
    while view is not None and id(view) not in seen:
        seen.add(id(view))
        yield view
        if isinstance(view, MethodType):
            view = view.__func__
        else:
            view = view.func if isinstance(view, functools.partial) else _wrapped(view)


class Marking:
    """A decorator that puts one mark on functions, coroutine functions and view classes."""

    def __init__(self, mark: Mark) -> None:
        self.mark = mark

    def __call__(self, view: View) -> View:
        return self.put_on(view, sys._getframe(1))

    @property
    def __name__(self) -> str:
        # Flask asks a view for its name: this is where `@rate_limit` without a limit comes out.
        raise TypeError(
            f"{type(self.mark).__name__} is put on a view and is none itself: call the decorator, "
            'as in @rate_limit("100/hour")'
        )

    def put_on(self, view: View, caller: FrameType) -> View:
        """Mark a view.

        Args:
            view: the function or class.
            caller: the frame that decorates it.

        Returns:
            A class as it is; for a function a wrapper that enforces the mark where a request
            reaches it past its route's policy.
        """
        if isinstance(view, type):
            _add(view, self.mark)
            if self.mark.closes:
                _guard_class(view, self.mark)
            return view
        if not callable(view):
            raise TypeError(f"a view or a view class is marked, not {type(view).__name__}")
        *_, innermost = layers_of(view)
        if self.mark.closes or _stands_on_def(innermost, caller):
            _add(innermost, self.mark)
        wrapper = _guard(view, self.mark)
        _add(wrapper, self.mark)
        return cast(View, wrapper)


def _guard_class(marked: type, mark: Mark) -> None:
    """Guard by what a class, and whatever is or will be derived from it, dispatches requests."""
    own = vars(marked).get("__init_subclass__")

    def __init_subclass__(cls: type, /, **options: Any) -> None:
        if own is None:
            super(marked, cls).__init_subclass__(**options)  # type: ignore[arg-type]
        else:
            own.__get__(None, cls)(**options)
        _guard_dispatch(cls, marked, mark)

    marked.__init_subclass__ = classmethod(__init_subclass__)  # type: ignore[assignment]
    derived = [marked]
    while derived:
        one = derived.pop()
        _guard_dispatch(one, marked, mark)
        derived += type.__subclasses__(one)


def _guard_dispatch(view_class: Any, marked: type, mark: Mark) -> None:
    dispatch = vars(view_class).get("dispatch_request")
    if dispatch is None:
        derived = [one for one in view_class.__mro__[1:] if issubclass(one, marked)]
        is_guarded = any(hasattr(one, "dispatch_request") for one in derived)
        if is_guarded or not hasattr(view_class, "dispatch_request"):
            return
        dispatch = _inherited(view_class)
    view_class.dispatch_request = _guard(dispatch, mark, on_class=True)


def _inherited(view_class: type) -> Callable[..., Any]:
    """A `dispatch_request` that calls the next class's."""

    def dispatch_request(self: Any, *args: Any, **kwargs: Any) -> Any:
        inherited: Any = super(view_class, self)
        return inherited.dispatch_request(*args, **kwargs)

    async def dispatch_coroutine(self: Any, *args: Any, **kwargs: Any) -> Any:
        return await dispatch_request(self, *args, **kwargs)

    is_coroutine = inspect.iscoroutinefunction(getattr(view_class, "dispatch_request", None))
    return dispatch_coroutine if is_coroutine else dispatch_request


def _wrapped(view: object) -> object:
    return getattr(view, "__wrapped__", None)


def _add(target: Any, mark: Mark) -> None:
    held = _marks.get(target, ())
    marks = held if mark in held else (*held, mark)
    closing = next((one for one in marks if isinstance(one, AccessMark)), None)
    if closing is not None and any(isinstance(one, Opening) for one in marks):
        decorators = f"both @public and {closing.decorator}"
        raise ValueError(f"{target.__qualname__} is marked with {decorators}")
    _marks[target] = marks


def _guard(view: Callable[..., Any], mark: Mark, on_class: bool = False) -> Callable[..., Any]:
    name = getattr(view, "__qualname__", type(view).__qualname__)

    if inspect.iscoroutinefunction(view):

        @functools.wraps(view)
        async def guarded_coroutine(*args: Any, **kwargs: Any) -> Any:
            exchange: Exchange | None = getattr(current_request(), ON_REQUEST, None)
            if exchange is None or mark not in exchange.enforced:
                _enforce(mark, name, args[0] if on_class else None)
            return await view(*args, **kwargs)

        return guarded_coroutine

    @functools.wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        exchange: Exchange | None = getattr(current_request(), ON_REQUEST, None)
        if exchange is None or mark not in exchange.enforced:
            _enforce(mark, name, args[0] if on_class else None)
        return view(*args, **kwargs)

    return guarded


def _enforce(mark: Mark, view: str, instance: object) -> None:
    state = current_state(view)
    exchange = state.exchange(current_request())
    policy, environ = exchange.policy, current_request().environ
    # What was weighed is another method's where the app's own code has changed that since.
    same = current_request().method == exchange.method.upper()
    if same and policy is not None and policy.weighed(mark, instance):
        return
    if isinstance(mark, AccessMark | LimitMark):
        try:
            state.guard.enforce(exchange, environ, mark, view)
        finally:
            settle_later(exchange, state.guard)


def _stands_on_def(innermost: object, caller: FrameType) -> bool:
    """Tell whether a decorator stands on the `def` of this function.

    While `@public` on a `def` runs, the frame that runs it is the one that has just made the
    function, at a line between the first decorator and the body. A call such as
    `public(report)` comes from another frame or a later line.
    """
    if not isinstance(innermost, FunctionType) or innermost.__name__ == "<lambda>":
        return False
    code = innermost.__code__
    first_line = code.co_firstlineno
    body = min((line for _, _, line in code.co_lines() if line and line > first_line), default=0)
    return code in caller.f_code.co_consts and first_line <= caller.f_lineno <= (body or first_line)
