"""CORSPolicy: which pages may read an API's answers (Fetch standard, §3.3 CORS protocol)."""

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
"""The fields that are the policy's alone, in lower case."""

PREFLIGHT_VARY = ("Access-Control-Request-Method", "Access-Control-Request-Headers")
"""What the answer to a preflight depends on besides the origin."""

_NEVER_WILDCARD = "authorization"  # "CORS non-wildcard request-header name"
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_LONGEST_ORIGIN = 300
_LONGEST_NAMES = 4_096


def is_preflight(environ: WSGIEnvironment) -> bool:
    """Tell whether an `OPTIONS` request is a CORS preflight (§3.3.2)."""
    return "HTTP_ORIGIN" in environ and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ


class CORSPolicy:
    """Which origins may read answers, and what their pages may send.

    Args:
        allowed_origins: as in `security.cors.allowed_origins`.
        allowed_methods: methods that pages may use; `HEAD` wherever `GET` is.
        allowed_headers: request fields that pages may set; `*` stands for all but
            `Authorization`, which is listed by name.
        expose_headers: answer fields that pages may read.
        allow_credentials: whether browsers send credentials along.
        max_age: seconds for which a browser may keep a preflight's answer.
        any_origin_without_credentials: let every other origin in too, without credentials, as
            development mode does.

    Attributes:
        origins: the rules, as they are written.
        varies: whether answers depend on the origin.
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
        # A wildcard is found by what follows its asterisk, so that their number costs nothing.
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
        self._ready = {
            origin: ((ALLOW_ORIGIN, origin), *self._listed_fields) for origin in self._exact
        }

    def _any_text(self) -> tuple[str, ...]:
        return (self._any.text,) if self._any is not None else ()

    def rule_for(self, origin: str) -> OriginRule | None:
        """Return the rule that lets an origin in, the most exact one, or `None`."""
        rule = self._exact.get(origin)
        if rule is None and self._wildcards and len(origin) <= _LONGEST_ORIGIN:
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
        """Return the CORS fields of an answer to a request from this origin (§3.3.3)."""
        if origin is None:
            return () if self._any is None else self._any_fields
        if (ready := self._ready.get(origin)) is not None:
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
        """Return the fields that allow what a preflight asks for.

        Args:
            origin: the page's.
            method: what it wants to send.
            request_headers: the fields that it wants to set, with commas between.
            route_methods: what the path supports; `None` where no route answers there.

        Raises:
            CORSRefused: a rule does not allow it; the message says which.
        """
        rule = self.rule_for(origin)
        if rule is None:
            raise CORSRefused(f"Origin {_shown(origin)} is not in security.cors.allowed_origins")
        methods = self._methods
        if method not in methods:
            raise CORSRefused(f"Method {_shown(method)} is not in security.cors.allowed_methods")
        if route_methods is not None:
            methods = tuple(one for one in methods if one in route_methods)
            if method not in methods:
                raise CORSRefused(f"Method {_shown(method)} is not supported at this path")
        asked = self._requested(request_headers or "")
        fields = [*self._fields(origin, rule), (ALLOW_METHODS, ", ".join(methods))]
        fields = [field for field in fields if field[0] != EXPOSE_HEADERS]
        if headers := ", ".join((*self._headers, *asked)):
            fields.append((ALLOW_HEADERS, headers))
        return (*fields, (MAX_AGE, self._max_age))

    def _requested(self, request_headers: str) -> list[str]:
        """Check the fields that a page wants to set; return those that only `*` allows."""
        if len(request_headers) > _LONGEST_NAMES:
            raise CORSRefused("Access-Control-Request-Headers is too long")
        names = [name.strip(" \t").lower() for name in request_headers.split(",")]
        unlisted = [name for name in names if name and name not in self._header_names]
        for name in unlisted:
            named = _FIELD_NAME.fullmatch(name) and name != _NEVER_WILDCARD
            if not self._any_header or not named:
                raise CORSRefused(f"Header {_shown(name)} is not in security.cors.allowed_headers")
        return unlisted

    def allows_credentials(self, origin: str) -> bool:
        """Tell whether pages of an origin may send what browsers send by themselves."""
        rule = self.rule_for(origin)
        return rule is not None and (ALLOW_CREDENTIALS, "true") in self._fields(origin, rule)

    def explain(self, origin: str) -> str:
        """Say which rule lets an origin in."""
        rule = self.rule_for(origin)
        if rule is None:
            return f"no rule allows {_shown(origin)}"
        credentials = (
            "with" if (ALLOW_CREDENTIALS, "true") in self._fields(origin, rule) else "without"
        )
        return f'by the rule "{rule.text}", {credentials} credentials'


def _with_head(methods: Iterable[str]) -> tuple[str, ...]:
    """Put `HEAD` behind `GET`."""
    allowed: list[str] = []
    for method in methods:
        allowed += [method, "HEAD"] if method == "GET" else [method]
    return tuple(dict.fromkeys(allowed))


def _shown(text: str) -> str:
    """Return what a request said, as a message may quote it: ASCII on one line, not long."""
    return ascii(text[:100])
