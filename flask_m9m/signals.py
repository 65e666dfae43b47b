"""Signals: what an app is told of, by blinker, when flask-m9m has done or refused something.

A receiver gets the app as its sender, and the event:

    from flask_m9m.signals import authentication_failed

    @authentication_failed.connect
    def warn(app, event):
        app.logger.warning("somebody tried to be %s", event.subject)

It is called once per event, within the request that the event is about where there is one: of a
request as its answer goes out, of a change once that is committed. What it raises is logged and
changes nothing.
"""

from __future__ import annotations

import logging
from typing import Protocol

from blinker import Namespace

logger = logging.getLogger("flask_m9m")

_signals = Namespace()

authenticated = _signals.signal("authenticated", "A request's credential was good.")
authentication_failed = _signals.signal("authentication_failed", "A credential was refused.")
access_denied = _signals.signal("access_denied", "A request was refused, whoever sent it.")
rate_limited = _signals.signal("rate_limited", "A request was one too many.")
token_issued = _signals.signal("token_issued", "An access token was issued.")
token_revoked = _signals.signal("token_revoked", "A token, a session or all of a subject's.")
api_key_created = _signals.signal("api_key_created", "An API key was made.")
api_key_revoked = _signals.signal("api_key_revoked", "An API key was revoked, or deleted.")
user_changed = _signals.signal("user_changed", "A user was made, changed or disabled.")
credential_read = _signals.signal("credential_read", "A stored credential was decrypted.")
credential_changed = _signals.signal("credential_changed", "One was made, changed or deleted.")
keys_rotated = _signals.signal("keys_rotated", "Stored credentials were sealed anew.")


class Named(Protocol):
    """What a signal is about."""

    @property
    def name(self) -> str:
        """Which signal."""
        ...


def is_heard(name: str) -> bool:
    """Tell whether somebody wants to know of events of a name."""
    signal = _signals.get(name)
    return signal is not None and bool(signal.receivers)


def send(sender: object, event: Named) -> None:
    """Tell everybody who wants to know of an event."""
    signal = _signals.get(event.name)
    if signal is None or not signal.receivers:
        return
    for receiver in signal.receivers_for(sender):
        try:
            receiver(sender, event=event)
        except Exception:
            logger.exception("a receiver of the signal %s failed", event.name)
