"""Preflights: answers the CORS preflight of a route, which never runs a view (Fetch §3.3.5)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from werkzeug.wrappers import Response

from ..http.cors import is_preflight
from .exchange import Exchange
from .policy import RoutePolicy

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

FindRoute = Callable[[str], tuple[RoutePolicy, Collection[str] | None]]
"""Finds a method's policy at the request's path, and the path's methods (`None`: no route)."""


def answer_to(
    exchange: Exchange,
    environ: WSGIEnvironment,
    find_route: FindRoute,
    response_class: type[Response],
) -> Response | None:
    """Make the response to a preflight.

    Args:
        exchange: the request's exchange; it gets the CORS fields of the response.
        environ: the request.
        find_route: finds the policy of the method that the preflight announces.
        response_class: the response's class.

    Returns:
        The response; `None` for other requests, and where CORS is off: that is a plain `OPTIONS`.

    Raises:
        CORSRefused: the policy does not allow the announced request.
    """
    if not is_preflight(environ):
        return None
    method = environ["HTTP_ACCESS_CONTROL_REQUEST_METHOD"]
    policy, route_methods = find_route(method)
    if policy.cors is None:
        return None
    exchange.policy = policy
    exchange.cors_headers = ()
    exchange.cors_headers = policy.cors.preflight(
        environ["HTTP_ORIGIN"],
        method,
        environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS"),
        route_methods,
    )
    answer = response_class(status=204)
    del answer.headers["Content-Type"]
    return answer
