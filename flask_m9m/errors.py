"""All exceptions: HTTP errors with status, code and body (JSON, problem+json); settings errors.

An HTTP error derives from Werkzeug's class for its status first and from `M9MError` second. An
app's own handlers for the status, for Werkzeug's class or for `HTTPException` find it, in that
order; a catch-all for `Exception` does not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from http import HTTPStatus
from types import MappingProxyType

from werkzeug import exceptions
from werkzeug.sansio.response import Response as SansioResponse
from werkzeug.wrappers import Response

PROBLEM_JSON = "application/problem+json"

_LONGEST_ACCEPT = 512  # characters that are read: browsers send about 150
_POSITIVE_WEIGHT = re.compile(r"q=(?:1(?:\.0{0,3})?|0\.(?=[0-9]*[1-9])[0-9]{1,3})")


class ErrorFormat(StrEnum):
    """The formats of an error response's body: m9m's JSON or RFC 9457 problem details."""

    M9M = "m9m"
    PROBLEM = "problem"

    @classmethod
    def negotiate(cls, configured: ErrorFormat, accept: str) -> ErrorFormat:
        """Return `PROBLEM` if the client accepts problem details (RFC 9457 §3), else `configured`.

        Args:
            configured: the format of the settings.
            accept: the value of the request's `Accept` header; its first 512 characters count.
        """
        return cls.PROBLEM if _accepts_problem(accept) else configured


def _accepts_problem(accept: str) -> bool:
    """Tell whether an `Accept` lists problem details, not with the weight 0 (RFC 9110 §12.5.1)."""
    accept = accept[:_LONGEST_ACCEPT].lower()
    return PROBLEM_JSON in accept and any(map(_is_problem, accept.split(",")))


def _is_problem(media_range: str) -> bool:
    media_type, *parameters = [part.strip(" \t") for part in media_range.split(";")]
    weights = [parameter for parameter in parameters if parameter.startswith("q=")]
    return media_type == PROBLEM_JSON and all(map(_POSITIVE_WEIGHT.fullmatch, weights))


class M9MError(Exception):
    """The base class of HTTP errors.

    Werkzeug's class comes first and supplies the constructor. `description` is the message to
    the client: it must never contain a secret or raw input.

    Attributes:
        error_code: the machine-readable cause, `code` in the body.
        headers: header fields of the response (challenges, `Retry-After`).
        members: extension members of a problem (RFC 9457 §3.2).
        details: problems of single parts of the request.
        guess: whether the credential may never have been issued; the lockout counts such attempts.
    """

    code: int
    description: str | None
    response: SansioResponse | None
    error_code: str
    problem_type = "about:blank"
    headers: Sequence[tuple[str, str]] = ()
    members: Mapping[str, object] = MappingProxyType({})
    details: Sequence[Mapping[str, str]] = ()
    guess = False

    def render(
        self,
        error_format: ErrorFormat,
        response_class: type[Response] = Response,
        request_id: str | None = None,
    ) -> Response:
        """Build the response, without `headers`, and store it as `response`.

        Args:
            error_format: the format of the body.
            response_class: the class of the response.
            request_id: the request's id, of characters that need no escape in JSON.
        """
        if error_format is ErrorFormat.PROBLEM:
            body = _problem_body(self.code, self.error_code, self.description, self.problem_type)
            if self.members:
                body = json.dumps({**self.members, **json.loads(body)}).encode()
            mimetype = PROBLEM_JSON
        else:
            body = _m9m_body(self.code, self.error_code, self.description)
            mimetype = "application/json"
        if self.details:
            body = json.dumps({**json.loads(body), "details": list(self.details)}).encode()
        if request_id is not None:
            body = b'%b, "request_id": "%b"}' % (body[:-1], request_id.encode())
        response = self.response = response_class(body, self.code, mimetype=mimetype)
        return response


@lru_cache(256)
def _m9m_body(status: int, code: str, message: str | None) -> bytes:
    return json.dumps(
        {"error": HTTPStatus(status).phrase, "code": code, "message": message}
    ).encode()


@lru_cache(256)
def _problem_body(status: int, code: str, detail: str | None, problem_type: str) -> bytes:
    title = HTTPStatus(status).phrase
    members = {"type": problem_type, "title": title, "status": status, "detail": detail}
    return json.dumps({**members, "code": code}).encode()


class _Unauthorized(exceptions.Unauthorized, M9MError):
    """The base class of 401 errors; the guard adds the challenges, not Werkzeug."""

    description = "Unauthorized"
    www_authenticate = None

    def __init__(self, description: str | None = None) -> None:
        exceptions.HTTPException.__init__(self, description)


class InvalidRequest(exceptions.BadRequest, M9MError):
    """The request has more than one credential (RFC 6750 §2)."""

    error_code = "INVALID_REQUEST"
    description = "Send exactly one credential"


class ValidationError(exceptions.BadRequest, M9MError):
    """The request's body is invalid.

    Args:
        details: the problems of single fields; they never contain the values sent.
    """

    error_code = "VALIDATION_ERROR"
    description = "The request's body is not valid"

    def __init__(self, details: Sequence[Mapping[str, str]] = ()) -> None:
        super().__init__()
        self.details = details


class AuthenticationRequired(_Unauthorized):
    """The request has no credential (RFC 9110 §15.5.2)."""

    error_code = "AUTH_REQUIRED"
    description = "Authentication required"


class InvalidToken(_Unauthorized):
    """A bearer token is invalid; the response is the same for every cause (RFC 6750 §3.1).

    Attributes:
        reason: the cause, for the command line; never a secret, and not part of the response.
    """

    error_code = "INVALID_TOKEN"
    description = "invalid or expired token"

    def __init__(self, reason: str = "", *, guess: bool = True) -> None:
        super().__init__()
        self.reason = reason
        self.guess = guess


class InvalidCredentials(_Unauthorized):
    """A credential other than a bearer token is invalid or cannot be decoded."""

    error_code = "INVALID_CREDENTIALS"
    description = "Invalid credentials"


class InvalidApiKey(_Unauthorized):
    """An API key is invalid; the response is the same for every cause."""

    error_code = "INVALID_API_KEY"
    description = "invalid or expired API key"
    guess = True  # a revoked or expired key is indistinguishable from an invented key


class FreshTokenRequired(_Unauthorized):
    """The token is valid, but was not issued at a log-in (RFC 9470 §3)."""

    error_code = "FRESH_TOKEN_REQUIRED"
    description = "Log in again to do this"


class AccessDenied(exceptions.Forbidden, M9MError):
    """A scope or a role is missing (RFC 6750 §3.1)."""

    error_code = "ACCESS_DENIED"
    description = "Access denied"
    scopes: Sequence[str] = ()


class InvalidSignature(exceptions.Forbidden, M9MError):
    """A signed value or URL is invalid; the response is the same for every cause."""

    error_code = "INVALID_SIGNATURE"
    description = "invalid or expired link"


class AddressNotAllowed(exceptions.Forbidden, M9MError):
    """The client's address is not in `server.allowed_networks`."""

    error_code = "ADDRESS_NOT_ALLOWED"
    description = "Requests from this address are not allowed"


class Answered(exceptions.HTTPException, M9MError):  # type: ignore[misc]  # no own status
    """Not an error: ends the request with a ready response, such as that to a preflight."""

    error_code = "ANSWERED"

    def __init__(self, response: Response) -> None:
        super().__init__(response=response)


class HTTPSRequired(exceptions.Forbidden, M9MError):
    """The request came over plain HTTP, but `server.https` requires TLS."""

    error_code = "HTTPS_REQUIRED"
    description = "Use HTTPS"


class CORSRefused(exceptions.Forbidden, M9MError):
    """The CORS policy does not allow a preflight request."""

    error_code = "CORS_REFUSED"
    description = "Cross-origin request refused"


class NotFound(exceptions.NotFound, M9MError):
    """The object does not exist, or belongs to another owner."""

    error_code = "NOT_FOUND"
    description = "Not found"


class Conflict(exceptions.Conflict, M9MError):
    """The request conflicts with the current state, for example a name that is in use."""

    error_code = "CONFLICT"
    description = "Conflict"


class RateLimited(exceptions.TooManyRequests, M9MError):
    """The client has exceeded a rate limit (RFC 6585 §4)."""

    error_code = "RATE_LIMITED"
    description = "Too many requests"
    problem_type = "https://iana.org/assignments/http-problem-types#quota-exceeded"


class TooManyAttempts(exceptions.TooManyRequests, M9MError):
    """Too many authentication attempts failed, from this address or for this account (lockout)."""

    error_code = "TOO_MANY_ATTEMPTS"
    description = "Too many failed attempts"


class CSRFFailed(exceptions.Forbidden, M9MError):
    """The request may be a cross-site request forgery: another site's page may have sent it."""

    error_code = "CSRF_FAILED"
    description = "Cross-site request refused"


class InternalError(exceptions.InternalServerError, M9MError):
    """The app raised an exception that it did not handle."""

    error_code = "INTERNAL_ERROR"
    description = "Internal error"


class ServiceUnavailable(exceptions.ServiceUnavailable, M9MError):
    """A store that the response depends on is unreachable."""

    error_code = "SERVICE_UNAVAILABLE"
    description = "Temporarily unavailable, try again later"


class LimitsUnavailable(ServiceUnavailable):
    """The store of rate limits failed, so the limiter cannot decide."""

    headers = (("Retry-After", "2"),)


class DatabaseUnavailable(ServiceUnavailable):
    """The database cannot be reached, created or used.

    Attributes:
        reason: the cause, for logs and the command line; not part of the response.
    """

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.headers = [("Retry-After", "1")]
        self.reason = reason

    def __str__(self) -> str:
        return f"database: {self.reason}"


class SchemaError(DatabaseUnavailable):
    """The database's tables are missing, or their version is not the expected one."""


class Unwritable(DatabaseUnavailable):
    """The database rejects a value, for example for its encoding; a retry cannot succeed."""


class TrailBroken(DatabaseUnavailable):
    """The audit trail was tampered with, so no event can be appended."""

    def __str__(self) -> str:
        return f"{self.reason}: run flask m9m audit verify"


class TrailLocked(TrailBroken):
    """No encryption key opens the audit trail's key; nothing says that it was tampered with."""

    def __str__(self) -> str:
        return f"{self.reason}: list that key in credentials.previous_keys"


class DecryptionFailed(Exception):
    """Encrypted data cannot be decrypted; the message is the same for every cause.

    Attributes:
        hint: the likely causes, for logs and the command line.
    """

    hint = (
        "the encryption key does not match, the data or its associated data (such as a record's "
        "id) was changed, or the key has the wrong length"
    )

    def __init__(self, hint: str = "") -> None:
        super().__init__("cipher: message authentication failed")
        if hint:
            self.hint = hint
            self.add_note(hint)  # for tracebacks


class UnresolvedVariable(Exception):
    """A credential refers to an environment variable that is not set or not allowed."""


class UnreadableImport(Exception):
    """Data from another program, such as n8n, cannot be decrypted or is malformed."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem of the settings.

    Attributes:
        path: the setting's dotted path (`security.cors.max_age`), or a variable's or file's name.
        found: the value or the state found; secrets are masked.
        accepted: the accepted values, or what to do next.
        source: the source of the value; may be empty.
    """

    path: str
    found: str
    accepted: str
    source: str = ""

    def __str__(self) -> str:
        source = f" (from {self.source})" if self.source else ""
        return f"{self.path}{source}: {self.found}; {self.accepted}"


class SettingsError(Exception):
    """The settings cannot be used; the message lists every problem.

    Attributes:
        problems: all problems, in the order of the message.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        lines = "".join(f"\n  {problem}" for problem in self.problems)
        count = len(self.problems)
        super().__init__(f"{count} problem{'s' * (count != 1)} in the settings:{lines}")
