"""Checks of the arguments of public functions: types, texts and durations, with their names."""

from __future__ import annotations

import re
from datetime import timedelta
from types import NoneType, UnionType
from typing import get_args

from .durations import parse_duration

MOST_ON_A_PAGE = 1_000
LARGEST_OFFSET = 2**31 - 1

_LARGEST = 1e300
_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")


def check_type(accepted: type | UnionType, /, **arguments: object) -> None:
    """Check the types of arguments.

    Args:
        accepted: the accepted type or types, such as `str | None`.
        arguments: the arguments by name.

    Raises:
        TypeError: an argument is of another type.
    """
    for argument, value in arguments.items():
        if not isinstance(value, accepted):
            types = get_args(accepted) or (accepted,)
            described = " or ".join("None" if kind is NoneType else kind.__name__ for kind in types)
            raise TypeError(f"{argument} must be {described}, found {type(value).__name__}")


def check_callable(**arguments: object) -> None:
    """Check that arguments can be called.

    Raises:
        TypeError: an argument cannot be called.
    """
    for argument, value in arguments.items():
        if not callable(value):
            raise TypeError(f"{argument} must be a function, found {type(value).__name__}")


def check_text(**arguments: object) -> None:
    """Check that arguments are texts that UTF-8 can encode.

    Raises:
        TypeError: an argument is not a `str`.
        ValueError: an argument contains a lone surrogate.
    """
    check_type(str, **arguments)
    for argument, text in arguments.items():
        try:
            str(text).encode()
        except UnicodeEncodeError:
            raise ValueError(f"{argument} must be Unicode text, found a lone surrogate") from None


def check_method(argument: str, value: object) -> None:
    """Check that an argument is an HTTP method, a token (RFC 9110 §9.1).

    Raises:
        ValueError: it is not a method.
    """
    if not isinstance(value, str) or not _METHOD.fullmatch(value):
        raise ValueError(
            f"{argument} must be an HTTP method such as GET, found {ascii(value)[:66]}"
        )


def check_page(limit: object, offset: object) -> None:
    """Check the arguments of a page of a list.

    Raises:
        TypeError: one of them is not an `int`.
        ValueError: one of them is out of range.
    """
    for argument, value, least, most in (
        ("limit", limit, 1, MOST_ON_A_PAGE),
        ("offset", offset, 0, LARGEST_OFFSET),
    ):
        check_type(int, **{argument: value})
        if not least <= value <= most:  # type: ignore[operator]  # it is an int
            raise ValueError(f"{argument} must be {least} to {most}")


def checked_number(argument: str, value: object) -> float:
    """Convert an argument to a finite number.

    Raises:
        TypeError: it is not a number.
        ValueError: it is not finite.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{argument} must be a number, found {type(value).__name__}")
    if not -_LARGEST <= value <= _LARGEST:  # NaN too
        raise ValueError(f"{argument} must be a finite number")
    return float(value)


def checked_duration(argument: str, value: str | float | timedelta) -> float:
    """Convert an argument to seconds; see `parse_duration`.

    Raises:
        ValueError: it is not a duration, or out of range.
    """
    try:
        return parse_duration(value)
    except ValueError as error:
        raise ValueError(f"{argument} is not a duration: {error}") from None
