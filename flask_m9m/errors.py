"""Every error of flask-m9m: code, status, message, challenge.

An error that answers a request derives from Werkzeug's class for its status first and from
`M9MError` second, so that an app's own handlers for the status, for Werkzeug's class or for
`HTTPException` find it, in that order, and a catch-all for `Exception` does not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from http import HTTPStatus
from types import MappingProxyType

from werkzeug import exceptions
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header
from werkzeug.sansio.response import Response as SansioResponse
from werkzeug.wrappers import Response

PROBLEM_JSON = "application/problem+json"


class ErrorFormat(StrEnum):
    """How the body of an error is written."""

    M9M = "m9m"
    PROBLEM = "problem"

    @classmethod
    def negotiate(cls, configured: ErrorFormat, accept: str) -> ErrorFormat:
        """Return the configured format, or `PROBLEM` where the client asks for it (RFC 9457 §3)."""
        if "problem+json" not in accept:
            return configured
        quality = parse_accept_header(accept, MIMEAccept)[PROBLEM_JSON]
        return cls.PROBLEM if quality > 0 else configured


class M9MError(Exception):
    """The root of what answers a request with a refusal.

    Werkzeug's class comes first and brings the constructor: `description` is what the client
    reads, never a secret and never raw input.

    Attributes:
        error_code: the machine's word for the cause, `code` in the body.
        headers: header fields that belong to this answer (challenges, `Retry-After`).
        members: extension members of a problem (RFC 9457 §3.2).
        details: what is wrong with which part of the request.
        guess: whether it stands for a credential that nobody ever issued.
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
        """Build the answer, keep it as `response`, and return it; `headers` are not on it yet.

        Args:
            error_format: how its body is written.
            response_class: what it is made of.
            request_id: the id of the request that it answers, in characters that JSON needs not
                escape.
        """
        if error_format is ErrorFormat.PROBLEM:
            body = _problem(self.code, self.error_code, self.description, self.problem_type)
            if self.members:
                body = json.dumps({**self.members, **json.loads(body)}).encode()
            mimetype = PROBLEM_JSON
        else:
            body = _m9m(self.code, self.error_code, self.description)
            mimetype = "application/json"
        if self.details:
            body = json.dumps({**json.loads(body), "details": list(self.details)}).encode()
        if request_id is not None:
            body = b'%b, "request_id": "%b"}' % (body[:-1], request_id.encode())
        response = self.response = response_class(body, self.code, mimetype=mimetype)
        return response


@lru_cache(256)
def _m9m(status: int, code: str, message: str | None) -> bytes:
    return json.dumps(
        {"error": HTTPStatus(status).phrase, "code": code, "message": message}
    ).encode()


@lru_cache(256)
def _problem(status: int, code: str, detail: str | None, problem_type: str) -> bytes:
    title = HTTPStatus(status).phrase
    members = {"type": problem_type, "title": title, "status": status, "detail": detail}
    return json.dumps({**members, "code": code}).encode()


class _Unauthorized(exceptions.Unauthorized, M9MError):
    """Any 401: its challenges come from the guard, not from Werkzeug's constructor."""

    description = "Unauthorized"
    www_authenticate = None

    def __init__(self, description: str | None = None) -> None:
        exceptions.HTTPException.__init__(self, description)


class InvalidRequest(exceptions.BadRequest, M9MError):
    """More than one credential came with one request (RFC 6750 §2)."""

    error_code = "INVALID_REQUEST"
    description = "Send exactly one credential"


class ValidationError(exceptions.BadRequest, M9MError):
    """A request's body is not what its route takes.

    Args:
        details: what is wrong with which field; never what was sent.
    """

    error_code = "VALIDATION_ERROR"
    description = "The request's body is not valid"

    def __init__(self, details: Sequence[Mapping[str, str]] = ()) -> None:
        super().__init__()
        self.details = details


class AuthenticationRequired(_Unauthorized):
    """No credential came (RFC 9110 §15.5.2)."""

    error_code = "AUTH_REQUIRED"
    description = "Authentication required"


class InvalidToken(_Unauthorized):
    """A bearer token does not hold; every cause reads the same (RFC 6750 §3.1).

    Attributes:
        reason: the cause, for the command line; never part of an answer, never a secret.
    """

    error_code = "INVALID_TOKEN"
    description = "invalid or expired token"

    def __init__(self, reason: str = "", *, guess: bool = True) -> None:
        super().__init__()
        self.reason = reason
        self.guess = guess


class InvalidCredentials(_Unauthorized):
    """A credential that is not a bearer token does not hold or cannot be decoded."""

    error_code = "INVALID_CREDENTIALS"
    description = "Invalid credentials"


class InvalidApiKey(_Unauthorized):
    """An API key does not hold; every cause reads the same."""

    error_code = "INVALID_API_KEY"
    description = "invalid or expired API key"
    guess = True  # one that is revoked or expired is not told from one that never was


class FreshTokenRequired(_Unauthorized):
    """The token is good, but was not issued at a login (RFC 9470 §3)."""

    error_code = "FRESH_TOKEN_REQUIRED"
    description = "Log in again to do this"


class AccessDenied(exceptions.Forbidden, M9MError):
    """A scope or a role is missing (RFC 6750 §3.1)."""

    error_code = "ACCESS_DENIED"
    description = "Access denied"
    scopes: Sequence[str] = ()


class InvalidSignature(exceptions.Forbidden, M9MError):
    """A signed value or URL does not hold; every cause reads the same."""

    error_code = "INVALID_SIGNATURE"
    description = "invalid or expired link"


class AddressNotAllowed(exceptions.Forbidden, M9MError):
    """The client's address lies outside `server.allowed_networks`."""

    error_code = "ADDRESS_NOT_ALLOWED"
    description = "Requests from this address are not allowed"


class Answered(exceptions.HTTPException, M9MError):  # type: ignore[misc]  # no own status
    """No refusal: the request ends here, with the answer that is carried (a preflight's)."""

    error_code = "ANSWERED"

    def __init__(self, response: Response) -> None:
        super().__init__(response=response)


class HTTPSRequired(exceptions.Forbidden, M9MError):
    """The request came over plain HTTP and `server.https` wants TLS."""

    error_code = "HTTPS_REQUIRED"
    description = "Use HTTPS"


class CORSRefused(exceptions.Forbidden, M9MError):
    """A preflight asked for what the policy does not allow."""

    error_code = "CORS_REFUSED"
    description = "Cross-origin request refused"


class NotFound(exceptions.NotFound, M9MError):
    """Nothing of that id or name is there, or it is another's."""

    error_code = "NOT_FOUND"
    description = "Not found"


class Conflict(exceptions.Conflict, M9MError):
    """What is asked for contradicts what is there, a name that is taken say."""

    error_code = "CONFLICT"
    description = "Conflict"


class RateLimited(exceptions.TooManyRequests, M9MError):
    """The client has used up a rate limit (RFC 6585 §4)."""

    error_code = "RATE_LIMITED"
    description = "Too many requests"
    problem_type = "https://iana.org/assignments/http-problem-types#quota-exceeded"


class TooManyAttempts(exceptions.TooManyRequests, M9MError):
    """Too many credentials were wrong, from this address or for this account."""

    error_code = "TOO_MANY_ATTEMPTS"
    description = "Too many failed attempts"


class CSRFFailed(exceptions.Forbidden, M9MError):
    """A page of another site may have made the request (cross-site request forgery)."""

    error_code = "CSRF_FAILED"
    description = "Cross-site request refused"


class InternalError(exceptions.InternalServerError, M9MError):
    """An exception left the app."""

    error_code = "INTERNAL_ERROR"
    description = "Internal error"


class ServiceUnavailable(exceptions.ServiceUnavailable, M9MError):
    """A store that the answer depends on cannot be reached."""

    error_code = "SERVICE_UNAVAILABLE"
    description = "Temporarily unavailable, try again later"


class LimitsUnavailable(ServiceUnavailable):
    """The store of rate limits cannot say whether there are tokens."""

    headers = (("Retry-After", "2"),)


class DatabaseUnavailable(ServiceUnavailable):
    """The database cannot be reached, made or used.

    Attributes:
        reason: the cause, for logs and the command line; never part of an answer.
    """

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.headers = [("Retry-After", "1")]
        self.reason = reason

    def __str__(self) -> str:
        return f"database: {self.reason}"


class SchemaError(DatabaseUnavailable):
    """The database's tables are missing, or of another version."""


class Unwritable(DatabaseUnavailable):
    """The database does not take a value, in its encoding say, however often it is sent."""


class TrailBroken(DatabaseUnavailable):
    """The audit trail was tampered with, so that nothing may be appended to it."""

    def __str__(self) -> str:
        return f"{self.reason}: run flask m9m audit verify"


class DecryptionFailed(Exception):
    """Something encrypted does not open; every cause reads the same.

    Attributes:
        hint: the likely causes, for logs and the command line.
    """

    hint = (
        "the encryption key does not match, the data or what it is bound to was changed, or the "
        "key has the wrong length"
    )

    def __init__(self) -> None:
        super().__init__("cipher: message authentication failed")


class UnresolvedVariable(Exception):
    """A credential names an environment variable that is not set, or not to be read."""


class UnreadableImport(Exception):
    """A value from another program, n8n say, cannot be decrypted or is not what it should be."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with the settings.

    Attributes:
        path: where, as a dotted path (`security.cors.max_age`), a variable's or a file's name.
        found: what stands there, masked where it is a secret.
        accepted: what would be right, and what to do next.
        source: which source gave the value; empty where that says nothing.
    """

    path: str
    found: str
    accepted: str
    source: str = ""

    def __str__(self) -> str:
        source = f" (from {self.source})" if self.source else ""
        return f"{self.path}{source}: {self.found}; {self.accepted}"


class SettingsError(Exception):
    """The settings cannot be used; lists every problem at once.

    Attributes:
        problems: all that is wrong, in the order of the paths.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        lines = "".join(f"\n  {problem}" for problem in self.problems)
        count = len(self.problems)
        super().__init__(f"{count} problem{'s' * (count != 1)} in the settings:{lines}")
