"""Excess: refuses request fields that take long to parse, such as thousands of cookies.

Flask reads a request's cookies for its session, and Werkzeug `Host`, `Connection` and the path to
find the route. What one of them costs grows with its number of parts, and no client sends so many.
A `Host` that looks like an IPv6 address and is none goes too: Werkzeug's redirects fail with it.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING
from urllib.parse import quote

from werkzeug.exceptions import RequestHeaderFieldsTooLarge, RequestURITooLarge

from ..errors import InvalidRequest, M9MError
from .address import is_host

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

USUAL_LENGTH = 260
"""Characters of `Cookie`, `Host`, `Connection` and the path together that are never excessive."""

_MOST_PARTS = 570  # of cookies; browsers keep at most 180, and JSON in one of 4 KB counts as 560
# Characters of a value in quotes that take as long as a cookie; and how many more characters an
# escape takes as long as, and one of three digits.
_QUOTED_PART, _ESCAPE, _DIGITS = 17, 5, 6
_OCTAL = re.compile(r"\\[0-3]")
_QUOTED = re.compile(r'=[ \t]*"(?=([^"\\]*+(?:\\.[^"\\]*+)*+))')  # overlaps included
_LONGEST_HOST = 260  # characters: a name of 253, and a port
_LONGEST_CONNECTION = 512  # characters: names of fields, seldom more than three
_MOST_SEGMENTS = 1_024
_LONGEST_CUT_PATH = 1_024  # characters
_LONGEST_TARGET = 8_192  # characters of a path and query that a redirect repeats (RFC 9110 §4.1)
_LONGEST_REDIRECT = 6_144  # characters of them in a redirect of Werkzeug's
_LONGEST_ENCODED = 2_048  # … if any must be encoded: then it looks at each
_ENCODED = re.compile(r"[^!$&'()*+,/:;=@?%A-Za-z0-9._~-]")
_PATH_SAFE = "!$&'()*+,/:;=@"
_QUERY_SAFE = _PATH_SAFE + "?%"


class URITooLong(RequestURITooLarge, M9MError):
    """The path has too many segments, or is too long to redirect to (RFC 9110 §15.5.15)."""

    error_code = "URI_TOO_LONG"
    description = "The URL is too long"


class FieldsTooLarge(RequestHeaderFieldsTooLarge, M9MError):
    """A header field has too many parts (RFC 6585 §5)."""

    error_code = "FIELDS_TOO_LARGE"
    description = "The request's header fields are too large"


def cut_excess(environ: WSGIEnvironment) -> M9MError | None:
    """Take everything excessive out of a request, which is to be refused.

    Args:
        environ: the request, whose fields have more characters than `USUAL_LENGTH`, or whose `Host`
            begins with a bracket; an excessive field is removed, an excessive path is cut.

    Returns:
        The refusal, or `None` if nothing is excessive.
    """
    refusal: M9MError | None = None
    if len(environ.get("HTTP_CONNECTION", "")) > _LONGEST_CONNECTION:
        del environ["HTTP_CONNECTION"]
        refusal = FieldsTooLarge()
    if _parts_of(environ.get("HTTP_COOKIE", "")) > _MOST_PARTS:
        del environ["HTTP_COOKIE"]
        refusal = FieldsTooLarge()
    host = environ.get("HTTP_HOST", "")
    if len(host) > _LONGEST_HOST or (host.startswith("[") and not is_host(host)):
        del environ["HTTP_HOST"]
        refusal = InvalidRequest("The Host is not valid or too long")  # RFC 9112 §3.2
    path = environ.get("PATH_INFO", "")
    if path.count("/") > _MOST_SEGMENTS:
        environ["PATH_INFO"] = path[:_LONGEST_CUT_PATH]
        refusal = URITooLong()
    return refusal


def _parts_of(cookies: str) -> int:
    """Count what takes time in cookies: themselves, and quoted values with their escapes."""
    parts = cookies.count(";")
    if '"' in cookies and parts <= _MOST_PARTS:
        for (value,) in map(re.Match.groups, islice(_QUOTED.finditer(cookies), _MOST_PARTS)):
            escapes = _ESCAPE * value.count("\\") + _DIGITS * len(_OCTAL.findall(value))
            parts += 1 + (len(value) + escapes) // _QUOTED_PART
    return parts


def check_redirect(environ: WSGIEnvironment) -> None:
    """Refuse a URL that is too long to redirect to, before Werkzeug does.

    Raises:
        URITooLong: the path and query are too long.
    """
    target = _path_of(environ) + environ.get("QUERY_STRING", "")
    if len(target) > (_LONGEST_ENCODED if _ENCODED.search(target) else _LONGEST_REDIRECT):
        raise URITooLong


def target_of(environ: WSGIEnvironment) -> str | M9MError:
    """Build the request target, a path and a query in ASCII (RFC 9112 §3.2.1).

    Returns:
        The target, or the refusal of a URL that is too long to redirect to.
    """
    path, query = _path_of(environ), environ.get("QUERY_STRING", "")
    if len(path) + len(query) > _LONGEST_TARGET:
        return URITooLong()
    target = "/" + quote(path.lstrip("/"), _PATH_SAFE, encoding="latin-1")
    return f"{target}?{quote(query, _QUERY_SAFE, encoding='latin-1')}" if query else target


def _path_of(environ: WSGIEnvironment) -> str:
    path: str = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return path
