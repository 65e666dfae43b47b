"""CORS: which origins' pages may read responses; preflights (Fetch standard, §3.3)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from ..errors import CORSRefused
from ..settings.origins import OriginKind, OriginRule, parse_origin_rule
from .headers import FixedFields

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

ALLOW_ORIGIN = "Access-Control-Allow-Origin"
ALLOW_CREDENTIALS = "Access-Control-Allow-Credentials"
ALLOW_METHODS = "Access-Control-Allow-Methods"
ALLOW_HEADERS = "Access-Control-Allow-Headers"
EXPOSE_HEADERS = "Access-Control-Expose-Headers"
MAX_AGE = "Access-Control-Max-Age"

RESPONSE_FIELDS = frozenset(
    name.lower()
    for name in (
        ALLOW_ORIGIN,
        ALLOW_CREDENTIALS,
        ALLOW_METHODS,
        ALLOW_HEADERS,
        EXPOSE_HEADERS,
        MAX_AGE,
        "Access-Control-Allow-Private-Network",
    )
)
"""The response fields that only the policy may set, in lower case."""

PREFLIGHT_VARY = ("Access-Control-Request-Method", "Access-Control-Request-Headers")
"""The request fields, besides `Origin`, on which the response to a preflight depends."""

_NEVER_WILDCARD = "authorization"  # "CORS non-wildcard request-header name"
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_MAX_ORIGIN = 300
_MAX_NAMES = 4_096


def is_preflight(environ: WSGIEnvironment) -> bool:
    """Tell whether an `OPTIONS` request is a CORS preflight (§3.3.2)."""
    return "HTTP_ORIGIN" in environ and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ


class CORSPolicy:
    """Decides which origins may read responses, and which requests their pages may send.

    Args:
        allowed_origins: the origin rules, as in `security.cors.allowed_origins`.
        allowed_methods: methods that pages may use; `GET` includes `HEAD`.
        allowed_headers: request fields that pages may set; `*` is every field except
            `Authorization`, which must be listed by name.
        expose_headers: response fields that pages may read.
        allow_credentials: whether requests may include credentials.
        max_age: seconds for which a browser may cache the response to a preflight.
        any_origin_without_credentials: also allow every other origin, without credentials, as
            development mode does.

    Attributes:
        origins: the texts of the origin rules.
        varies: whether responses depend on the origin.
    """

    def __init__(
        self,
        *,
        allowed_origins: Iterable[str],
        allowed_methods: Iterable[str],
        allowed_headers: Sequence[str],
        expose_headers: Iterable[str],
        allow_credentials: bool,
        max_age: int,
        any_origin_without_credentials: bool = False,
    ) -> None:
        rules = [parse_origin_rule(text) for text in allowed_origins]
        self._exact = {rule.text: rule for rule in rules if rule.kind is OriginKind.EXACT}
        # Keyed by the text after the asterisk: a look-up does not depend on their number.
        self._wildcards = {
            rule.text.replace("*", "", 1): rule
            for rule in rules
            if rule.kind is OriginKind.WILDCARD
        }
        self._any = next((rule for rule in rules if rule.kind is OriginKind.ANY), None)
        if any_origin_without_credentials and self._any is None:
            self._any = parse_origin_rule("*")
        self.origins = tuple(dict.fromkeys([*(rule.text for rule in rules), *self._any_text()]))
        self.varies = bool(self.origins)
        self._methods = _with_head(allowed_methods)
        self._headers = tuple(name for name in allowed_headers if name != "*")
        self._header_names = frozenset(name.lower() for name in self._headers)
        self._any_header = "*" in allowed_headers
        self._max_age = str(max_age)
        exposed = ", ".join(expose_headers)
        expose: FixedFields = ((EXPOSE_HEADERS, exposed),) if exposed else ()
        self._listed_fields: FixedFields = expose
        if allow_credentials:
            self._listed_fields = ((ALLOW_CREDENTIALS, "true"), *expose)
        self._any_fields: FixedFields = ((ALLOW_ORIGIN, "*"), *expose)
        self._exact_fields = {
            origin: ((ALLOW_ORIGIN, origin), *self._listed_fields) for origin in self._exact
        }

    def _any_text(self) -> tuple[str, ...]:
        return (self._any.text,) if self._any is not None else ()

    def rule_for(self, origin: str) -> OriginRule | None:
        """Find the most specific rule that allows an origin; `None` if no rule does."""
        rule = self._exact.get(origin)
        if rule is None and self._wildcards and len(origin) <= _MAX_ORIGIN:
            rule = self._wildcard_for(origin)
        if rule is None and self._any is not None and self._any.matches(origin):
            rule = self._any
        return rule

    def _wildcard_for(self, origin: str) -> OriginRule | None:
        scheme, separator, host = origin.partition("://")
        dot = host.find(".")
        while dot >= 0:
            rule = self._wildcards.get(f"{scheme}{separator}{host[dot:]}")
            if rule is not None and rule.matches(origin):
                return rule
            dot = host.find(".", dot + 1)
        return None

    def response_headers(self, origin: str | None) -> FixedFields:
        """Return the CORS fields of a response to a request from an origin (§3.3.3)."""
        if origin is None:
            return () if self._any is None else self._any_fields
        if (ready := self._exact_fields.get(origin)) is not None:
            return ready
        rule = self.rule_for(origin)
        return () if rule is None else self._fields(origin, rule)

    def _fields(self, origin: str, rule: OriginRule) -> FixedFields:
        if rule.kind is OriginKind.ANY:
            return self._any_fields
        return ((ALLOW_ORIGIN, origin), *self._listed_fields)

    def preflight(
        self,
        origin: str,
        method: str,
        request_headers: str | None,
        route_methods: Collection[str] | None,
    ) -> FixedFields:
        """Return the response fields for a preflight, which allow the requested method and fields.

        Args:
            origin: the page's origin.
            method: `Access-Control-Request-Method`: the method of the request to come.
            request_headers: `Access-Control-Request-Headers`: its fields, separated by commas.
            route_methods: the methods that the path supports; `None` if no route matches it.

        Raises:
            CORSRefused: the policy does not allow the request; the message names the reason.
        """
        rule = self.rule_for(origin)
        if rule is None:
            raise CORSRefused(f"Origin {_shown(origin)} is not in security.cors.allowed_origins")
        methods = self._methods
        if method not in methods:
            raise CORSRefused(f"Method {_shown(method)} is not in security.cors.allowed_methods")
        if route_methods is not None:
            methods = tuple(allowed for allowed in methods if allowed in route_methods)
            if method not in methods:
                raise CORSRefused(f"Method {_shown(method)} is not supported at this path")
        unlisted = self._check_requested(request_headers or "")
        fields = [*self._fields(origin, rule), (ALLOW_METHODS, ", ".join(methods))]
        fields = [field for field in fields if field[0] != EXPOSE_HEADERS]
        if headers := ", ".join((*self._headers, *unlisted)):
            fields.append((ALLOW_HEADERS, headers))
        return (*fields, (MAX_AGE, self._max_age))

    def _check_requested(self, request_headers: str) -> list[str]:
        """Check the requested fields; return those that only `*` allows."""
        if len(request_headers) > _MAX_NAMES:
            raise CORSRefused("Access-Control-Request-Headers is too long")
        names = [name.strip(" \t").lower() for name in request_headers.split(",")]
        unlisted = [name for name in names if name and name not in self._header_names]
        for name in unlisted:
            wildcard_covers = _FIELD_NAME.fullmatch(name) and name != _NEVER_WILDCARD
            if not self._any_header or not wildcard_covers:
                raise CORSRefused(f"Header {_shown(name)} is not in security.cors.allowed_headers")
        return unlisted

    def allows_credentials(self, origin: str) -> bool:
        """Tell whether pages of an origin may send credentials, such as cookies."""
        rule = self.rule_for(origin)
        return rule is not None and (ALLOW_CREDENTIALS, "true") in self._fields(origin, rule)

    def explain(self, origin: str) -> str:
        """Describe the rule that allows an origin, for messages."""
        rule = self.rule_for(origin)
        if rule is None:
            return f"no rule allows {_shown(origin)}"
        credentials = (
            "with" if (ALLOW_CREDENTIALS, "true") in self._fields(origin, rule) else "without"
        )
        return f'by the rule "{rule.text}", {credentials} credentials'


def _with_head(methods: Iterable[str]) -> tuple[str, ...]:
    """Add `HEAD` after `GET`; remove duplicates."""
    allowed: list[str] = []
    for method in methods:
        allowed += [method, "HEAD"] if method == "GET" else [method]
    return tuple(dict.fromkeys(allowed))


def _shown(text: str) -> str:
    """Quote text from a request for a message: escaped ASCII, shortened."""
    return ascii(text[:100])
