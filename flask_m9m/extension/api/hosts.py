"""Hosts: under `host_matching`, flask-m9m's own routes answer on every host."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flask import Flask

_HOST = "m9m_host"


@contextmanager
def on_every_host(app: Flask) -> Iterator[None]:
    """Give the routes that are registered inside a host that matches every one.

    Under `Flask(host_matching=True)` a rule without a host matches no request.
    """
    if not app.url_map.host_matching:
        yield
        return
    known, rule_class = set(app.view_functions), app.url_rule_class
    app.url_rule_class = functools.partial(rule_class, host=f"<{_HOST}>")  # type: ignore[assignment]
    try:
        yield
    finally:
        app.url_rule_class = rule_class
    for endpoint in app.view_functions.keys() - known:
        app.view_functions[endpoint] = _without_host(app.view_functions[endpoint])


def _without_host(view: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(view)
    def view_without_host(**values: Any) -> Any:
        values.pop(_HOST, None)
        return view(**values)

    return view_without_host
