"""The access log of gunicorn: a line for each request, without its query and without line breaks.

A query may have secrets: the signature of a link, a token. A path may have any character.
"""

from __future__ import annotations

from typing import Any

from gunicorn.glogging import Logger

from ...guard.exchange import CLIENT_ADDRESS, EXCHANGE, IDENTITY
from ...settings.wording import printable

LINE = '%(h)s %(u)s "%(m)s %(U)s %(H)s" %(s)s %(b)s %(M)sms %({x-request-id}o)s'
"""The client's address, the caller, the request, the status, octets, time and the request's id."""


class AccessLogger(Logger):  # type: ignore[misc]
    """gunicorn's logger, which knows the client behind a proxy and the caller."""

    def atoms(self, *request: Any) -> dict[str, Any]:
        """Return the values that a line may have, without control characters."""
        atoms: dict[str, Any] = super().atoms(*request)
        environ = request[2]
        exchange = environ.get(EXCHANGE)  # it is there until an app takes it
        known = environ.get(CLIENT_ADDRESS) if exchange is None else exchange.client.address
        atoms["h"] = known or atoms["h"]
        identity = environ.get(IDENTITY)
        atoms["u"] = "-" if identity is None else identity.subject
        return {
            name: printable(value) if isinstance(value, str) and not value.isprintable() else value
            for name, value in atoms.items()
        }
