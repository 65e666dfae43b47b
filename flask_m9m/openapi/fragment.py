"""OpenAPI fragment: the security requirements and error responses of each operation."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..auth.schemes.app_scheme import BUILT_IN
from ..guard.policy import FLASK, Access, RoutePolicy
from ..http import csrf
from .components import ANSWERS, CSRF_TOKEN, component_of, components, security_schemes

if TYPE_CHECKING:
    from ..guard.pipeline import Guard

METHODS = frozenset(("get", "put", "post", "delete", "options", "head", "patch", "trace"))
"""The operations of a Path Item Object (OpenAPI 3.1.1 §4.8.9)."""

EXTENSION = "x-m9m"

_VARIABLE = re.compile(r"<(?:[A-Za-z_]\w*(?:\(.*?\))?:)?([A-Za-z_]\w*)>", re.ASCII)


Route = tuple[str, str, RoutePolicy]
"""A route's rule as Werkzeug writes it, one of its methods, and its policy."""


def describe(
    routes: Iterable[Route],
    guard: Guard,
    schemes: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    own: Collection[str] = (),
) -> dict[str, Any]:
    """Build the fragment that describes the requirements and error responses of routes.

    Args:
        routes: every route that the document may show.
        guard: the app's guard.
        schemes: Security Scheme Objects (OpenAPI 3.1.1 §4.8.27) that replace ours, by the name of
            the scheme.
        own: statuses whose error bodies the app writes itself, so that they are not described.

    Raises:
        ValueError: `schemes` has a scheme that is not switched on.
    """
    operations = Operations(guard)
    paths: dict[str, Any] = {}
    signed = False
    for rule, method, policy in routes:
        lower = method.lower()
        if lower in METHODS and policy.decided_by != FLASK:
            item = paths.setdefault(path_of(rule), {})
            item.setdefault(lower, operations.describe(policy, method))
            signed = signed or any(demand.component for demand in policy.demands)
    security = security_schemes(guard.settings, guard.authenticators, schemes or {}, signed=signed)
    return {"components": components(guard.settings, security, frozenset(own)), "paths": paths}


def path_of(rule: str) -> str:
    """Convert a Werkzeug rule to an OpenAPI path: `/files/<path:name>` is `/files/{name}`."""
    return _VARIABLE.sub(r"{\1}", rule)


class Operations:
    """Describes operations by the policies of their routes.

    Args:
        guard: the app's guard.
    """

    def __init__(self, guard: Guard) -> None:
        settings = guard.settings
        self._has_allowed_networks = bool(settings.server.allowed_networks)
        self._https = settings.server.https
        self._limited = (
            guard.limits.general is not None and not settings.performance.rate_limit.shadow
        )
        self._lockout = settings.security.lockout.enabled

    def describe(self, policy: RoutePolicy, method: str) -> dict[str, Any]:
        """Describe an operation.

        Args:
            policy: the policy of the route and method.
            method: the HTTP method, in upper case.
        """
        responses = {status: ANSWERS[status][0] for status in self._refusals(policy, method)}
        operation: dict[str, Any] = {"security": _security(policy, method)}
        if responses:
            operation["responses"] = {
                status: {"$ref": f"#/components/responses/{name}"}
                for status, name in responses.items()
            }
        if extension := _extension(policy):
            operation[EXTENSION] = extension
        return operation

    def _refusals(self, policy: RoutePolicy, method: str) -> Iterator[str]:
        """Yield the statuses with which the guard can refuse a request."""
        if policy.authenticators:
            yield "401"
        forbidden = any(demand.forbids for demand in policy.demands)
        ambient = any(
            authenticator.ambient for authenticator in policy.authenticators
        ) and not _is_safe(method)
        insecure = self._https == "refuse" or (
            self._https == "redirect" and method not in ("GET", "HEAD")
        )
        if forbidden or ambient or insecure or self._has_allowed_networks:
            yield "403"
        schemes = {authenticator.scheme for authenticator in policy.authenticators}
        locked_out = self._lockout and not schemes.isdisjoint(BUILT_IN)
        limited = self._limited and not policy.unlimited
        if limited or locked_out or "api_key" in schemes or _has_own_limit(policy):
            yield "429"


def _has_own_limit(policy: RoutePolicy) -> bool:
    """Tell whether a limit of the route itself can refuse a request."""
    return any(not limit.mark.shadow for limit in policy.limits)


def _is_safe(method: str) -> bool:
    return csrf.is_safe({"REQUEST_METHOD": method})


def _security(policy: RoutePolicy, method: str) -> list[dict[str, list[str]]]:
    """List the alternative Security Requirement Objects (OpenAPI 3.1.1 §4.8.30)."""
    signed: dict[str, list[str]] = {
        demand.component: [] for demand in policy.demands if demand.component
    }
    if policy.access is Access.PUBLIC:
        return []
    if policy.access is Access.SIGNED:
        return [signed]
    scopes = list(dict.fromkeys(scope for demand in policy.demands for scope in demand.scopes))
    alternatives: list[dict[str, list[str]]] = []
    for authenticator in policy.authenticators:
        alternative = {component_of(authenticator.scheme): list(scopes), **signed}
        if authenticator.scheme == "cookie" and not _is_safe(method):
            alternative[CSRF_TOKEN] = []
        alternatives.append(alternative)
    if policy.access is Access.OPTIONAL:
        alternatives.append(dict(signed))
    return alternatives


def _extension(policy: RoutePolicy) -> dict[str, Any]:
    """Build the `x-m9m` extension: the requirements in full, and the purpose of signed URLs."""
    extension: dict[str, Any] = {}
    for demand in policy.demands:
        if demand.component is None:
            extension.setdefault("requirements", []).append(demand.parameters())
        else:
            extension[demand.component] = demand.parameters()
    return extension
