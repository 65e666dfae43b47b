"""Signals (blinker) for security events: log-ins, refusals, issued tokens, changed users and keys.

A receiver gets the app as sender, and the event:

    from flask_m9m.signals import authentication_failed

    @authentication_failed.connect
    def warn(app, event):
        app.logger.warning("somebody tried to be %s", event.subject)

A receiver is called once per event, within the request that caused the event, if any. Events of a
request are sent with its response; events of a change, after the change is committed. Exceptions
of a receiver are logged and otherwise ignored.
"""

from __future__ import annotations

import logging
from typing import Protocol

from blinker import Namespace

logger = logging.getLogger("flask_m9m")

_signals = Namespace()

authenticated = _signals.signal("authenticated", "A request's credential was valid.")
authentication_failed = _signals.signal(
    "authentication_failed", "A request's credential was rejected."
)
access_denied = _signals.signal(
    "access_denied", "A request was refused: no credential, no right, or another rule."
)
rate_limited = _signals.signal("rate_limited", "A request exceeded a rate limit.")
token_issued = _signals.signal("token_issued", "An access token was issued.")
token_revoked = _signals.signal(
    "token_revoked", "A token, a session or all tokens of a subject were revoked."
)
api_key_created = _signals.signal("api_key_created", "An API key was created.")
api_key_revoked = _signals.signal("api_key_revoked", "An API key was revoked or deleted.")
user_changed = _signals.signal("user_changed", "A user was created, changed or disabled.")
credential_read = _signals.signal("credential_read", "A stored credential was decrypted.")
credential_changed = _signals.signal(
    "credential_changed", "A stored credential was created, changed or deleted."
)
keys_rotated = _signals.signal(
    "keys_rotated", "Stored credentials were encrypted again with the current key."
)


class Named(Protocol):
    """An event with a name."""

    @property
    def name(self) -> str:
        """The name of the event and of its signal."""
        ...


def is_heard(name: str) -> bool:
    """Tell whether a signal has receivers."""
    signal = _signals.get(name)
    return signal is not None and bool(signal.receivers)


def send(sender: object, event: Named) -> None:
    """Send an event to the receivers of its signal.

    Args:
        sender: the app.
        event: the event; its name selects the signal.
    """
    signal = _signals.get(event.name)
    if signal is None or not signal.receivers:
        return
    for receiver in signal.receivers_for(sender):
        try:
            receiver(sender, event=event)
        except Exception:
            logger.exception("a receiver of the signal %s raised an exception", event.name)
