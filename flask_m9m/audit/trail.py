"""AuditTrail: what `m9m.audit` offers an app, and what everything that happens is told to."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import signals
from ..errors import TrailBroken
from ..settings import AuditSettings
from ..storage import Database, Sought
from . import lines
from .backlog import Backlog
from .chain import Anchor, Chain, KeyCipher
from .events import SUCCESS, Circumstances, Event, EventName, Recorded, details_text
from .verification import Progress, TrailVerifier, Verification

if TYPE_CHECKING:
    from ..storage.transaction import Transaction

logger = logging.getLogger("flask_m9m")

_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
_OWN_NAMES = frozenset(EventName)
_MOST = 10_000  # rows of one query


class AuditTrail:
    """Writes down what happened, in the log, in the database, or in both; and tells the app.

    Args:
        settings: where to, and for how long.
        database: where the database's trail is.
        cipher: encrypts that trail's key.
        sender: who sends the signals: the app.
        circumstances: tells in which request something happens.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        settings: AuditSettings,
        database: Database,
        cipher: KeyCipher,
        sender: object,
        circumstances: Callable[[], Circumstances] = Circumstances,
        clock: Callable[[], float] = time.time,
    ) -> None:
        sinks = settings.sinks if settings.enabled else ()
        self._logs = "log" in sinks
        self._omitted = frozenset(settings.omit)
        self._database = database
        self._cipher = cipher
        self._sender = sender
        self._circumstances = circumstances
        self._clock = clock
        self._chain = Chain(
            cipher, settings.retention, lambda anchor: lines.write_anchor(anchor, clock()), clock
        )
        self._backlog = Backlog(self._write, clock) if "database" in sinks else None

    # What an app calls

    def record(self, event: str, subject: str | None = None, **details: Any) -> None:
        """Write down something of the app's own; in the database it is there on return.

        Args:
            event: its name: 1 to 64 of `a-z 0-9 _ . -`, a letter first, and none of flask-m9m's.
            subject: who acted; left out, who sent the current request.
            details: what else there is to say: JSON of at most 8 KiB, and never a secret.

        Raises:
            ValueError: an argument is wrong.
            DatabaseUnavailable: it could not be written down.
        """
        if not isinstance(event, str) or not _NAME.fullmatch(event):
            raise ValueError("an event's name is 1 to 64 of a-z 0-9 _ . -, a letter first")
        if event in _OWN_NAMES:
            raise ValueError(f"{event} is an event of flask-m9m's own")
        details_text(details)
        made = self.event(event)._replace(details=details)
        self.record_change(None, made if subject is None else made._replace(subject=subject))

    def query(
        self,
        since: datetime | None = None,
        until: datetime | None = None,
        subject: str | None = None,
        event: str | None = None,
        address: str | None = None,
        target: str | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> Sequence[Recorded]:
        """Return rows of the database's trail, the newest first; nothing is verified.

        Args:
            since: this moment, with a time zone, and later.
            until: before this moment, likewise.
            subject: who acted.
            event: its name.
            address: the client's, as it is kept.
            target: the id of what it was done to.
            limit: how many at most, up to 10,000.
            before: only rows with a lower `seq`: for the next page, that of the last row.

        Raises:
            ValueError: a moment has no time zone, or `limit` is out of range.
            DatabaseUnavailable: the trail cannot be read.
        """
        if not 1 <= limit <= _MOST:
            raise ValueError(f"limit is 1 to {_MOST}")
        moments = (_microseconds("since", since), _microseconds("until", until))
        if not self._database.present():
            return []
        sought = Sought(*moments, subject, event, address, target, before)
        found = self._database.read(lambda rows: rows.audit.newest(sought, limit))
        return [Recorded.of(tuple(row)) for row in found]

    def verify(self, anchor: str | None = None, progress: Progress | None = None) -> Verification:
        """Walk through the database's trail, and tell what is wrong with which row.

        Args:
            anchor: `SEQ:MAC`, as it was logged or returned earlier: that row has to be there.
            progress: told how many rows were looked at, and of how many.

        Raises:
            ValueError: the anchor is none.
            DatabaseUnavailable: the trail cannot be read.
            SettingsError: there is no encryption key.
        """
        kept = None if anchor is None else Anchor.parse(anchor)
        return TrailVerifier(self._database, self._chain.keys, kept, progress).run()

    def flush(self) -> None:
        """Write down the events of requests that wait, which happens within a second anyway.

        Raises:
            DatabaseUnavailable: they go on to wait.
        """
        if self._backlog is not None:
            self._backlog.flush()

    # What everything else calls

    def event(
        self,
        name: str,
        subject: str | None = None,
        target: str | None = None,
        outcome: str = SUCCESS,
        **details: Any,
    ) -> Event:
        """Return something that happens now, in the current request if there is one.

        Args:
            name: what.
            subject: who acted, where the request does not say so.
            target: what it was done to.
            outcome: how it went.
            details: what else there is to say.
        """
        request_id, caller, scheme, address, method, route = self._circumstances()
        return Event(
            name,
            self._clock(),
            outcome,
            request_id,
            subject if caller is None else caller,
            scheme,
            address,
            method,
            route,
            target,
            details,
        )

    def is_heard(self, name: str) -> bool:
        """Tell whether anybody would get to know of an event of this name."""
        if name not in self._omitted and (
            self._backlog is not None or (self._logs and lines.is_read())
        ):
            return True
        return signals.is_heard(name)

    def record_event(self, event: Event) -> None:
        """Take note of what a request came to; it is written to the database soon."""
        if event.name not in self._omitted and self._backlog is not None:
            self._backlog.add(event)
        self._tell(event)

    def record_change(
        self,
        transaction: Transaction | None,
        *events: Event,
        committed: list[Callable[[], None]] | None = None,
    ) -> None:
        """Take note of what is changed or read, with the change itself.

        Args:
            transaction: the change's; `None`: there is none, so that the database's trail gets one
                of its own.
            events: what happens; the log and the app get to know once it is committed.
            committed: what is called then, where that is not the transaction's.

        Raises:
            DatabaseUnavailable: it cannot be written down, and must not happen.
        """
        kept = [one for one in events if one.name not in self._omitted]
        if self._backlog is not None and kept:
            try:
                if transaction is None:
                    self._write(kept)
                else:
                    self._chain.append(transaction, kept)
            except TrailBroken as error:
                logger.error("%s", error)  # the answer is a 503 that says nothing of it
                raise
        if committed is None and transaction is not None:
            committed = transaction.committed
        for one in events:
            if committed is None:
                self._tell(one)
            else:
                committed.append(partial(self._tell, one))

    def sealed_with(self) -> str | None:
        """Return the id of the encryption key that the database's trail needs, if there is one.

        Raises:
            DatabaseUnavailable: it cannot be told.
        """
        if not self._database.present():
            return None
        envelope = self._database.read(lambda rows: rows.audit.key())
        return None if envelope is None else self._cipher.key_id_of(envelope)

    def check(self) -> None:
        """See whether the database's trail can be appended to; `verify` looks at every row.

        Raises:
            TrailBroken: it cannot.
            DatabaseUnavailable: it cannot be told.
            SettingsError: there is no encryption key.
        """
        if self._backlog is not None and self._database.present():
            self._database.read(lambda rows: self._chain.check(rows.audit))

    def reseal(self) -> None:
        """Seal the key of the database's trail under today's encryption key.

        Raises:
            DatabaseUnavailable: it is as it was.
            SettingsError: there is no encryption key.
        """
        if self._database.present():
            with self._database.write() as transaction:
                self._chain.keys.reseal(transaction)

    def _write(self, events: Sequence[Event]) -> None:
        with self._database.write() as transaction:
            self._chain.append(transaction, events)

    def _tell(self, event: Event) -> None:
        if self._logs and event.name not in self._omitted and lines.is_read():
            lines.write(event)
        signals.send(self._sender, event)


def _microseconds(argument: str, given: datetime | None) -> int | None:
    if given is None:
        return None
    if given.tzinfo is None:
        raise ValueError(f"{argument} has no time zone")
    return round(given.timestamp() * 1_000_000)
