"""The audit trail behind `m9m.audit`; every component records events here."""

from __future__ import annotations

import atexit
import logging
import re
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import signals
from ..errors import TrailBroken
from ..settings.arguments import check_callable, check_text, check_type
from ..settings.models import AuditSettings
from ..storage.database import Database
from ..storage.records import AuditSearch
from . import lines
from .backlog import Backlog
from .chain import Anchor, Chain, KeyCipher
from .events import SUCCESS, Circumstances, Event, EventName, Recorded, details_text
from .repeats import Repeats

if TYPE_CHECKING:
    from ..storage.transaction import Transaction
    from .verification import Progress, Verification

logger = logging.getLogger("flask_m9m")

_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
_OWN_NAMES = frozenset(EventName)
_MOST_ROWS = 10_000  # of one query
_LARGEST_SEQ = 2**63 - 1
_kept_circumstances: ContextVar[Circumstances | None] = ContextVar(
    "m9m_circumstances", default=None
)


class AuditTrail:
    """Records events in the log, in the database, or in both, and sends them as signals.

    Args:
        settings: the sinks, the retention and the omitted events.
        database: the database of the tamper-evident trail.
        cipher: encrypts that trail's key.
        sender: the sender of the signals: the app.
        circumstances: describes the current request.
        clock: seconds since the epoch.

    Attributes:
        repeats: the counts of repeated refusals.
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
        self.repeats = Repeats(clock)
        self._ends_with_process = False

    # For apps

    def record(self, event: str, subject: str | None = None, **details: Any) -> None:
        """Record an event of the app's own; it is committed to the database on return.

        Args:
            event: the event's name: 1 to 64 of `a-z 0-9 _ . -`, beginning with a letter, and not
                a name of flask-m9m's own events.
            subject: who acted; by default the caller of the current request.
            details: further JSON values, of at most 8 KiB, and never a secret.

        Raises:
            ValueError: an argument is wrong.
            DatabaseUnavailable: the event could not be recorded.
        """
        if not isinstance(event, str) or not _NAME.fullmatch(event):
            raise ValueError(
                "an event's name must be 1 to 64 characters of a-z 0-9 _ . -, beginning with a "
                f"letter, found {ascii(event)[:66]}"
            )
        if event in _OWN_NAMES:
            raise ValueError(f"{event} is reserved for flask-m9m's own event: choose another name")
        check_type(str | None, subject=subject)
        details_text(details)
        new = self.event(event)._replace(details=details)
        self.record_change(None, new if subject is None else new._replace(subject=subject))

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
        """Return rows of the database's trail, the newest first, unverified.

        Args:
            since: only events at this time or later; needs a time zone.
            until: only events before this time; needs a time zone.
            subject: only events of this subject.
            event: only events of this name.
            address: only events from this client address, as it is stored.
            target: only events of the object with this id.
            limit: the largest number of rows, 1 to 10,000.
            before: only rows with a lower `seq`. For the next page give that of the last row.

        Raises:
            ValueError: a time has no time zone, or `limit` is out of range.
            DatabaseUnavailable: the trail cannot be read.
        """
        check_type(int, limit=limit)
        check_type(int | None, before=before)
        if before is not None and not 0 <= before <= _LARGEST_SEQ:
            raise ValueError("before must be the seq of a row, 0 to 2^63 - 1")
        for argument, text in (
            ("subject", subject),
            ("event", event),
            ("address", address),
            ("target", target),
        ):
            if text is not None:
                check_text(**{argument: text})
        if not 1 <= limit <= _MOST_ROWS:
            raise ValueError(f"limit must be 1 to {_MOST_ROWS}")
        moments = (_microseconds("since", since), _microseconds("until", until))
        if not self._database.present():
            return []
        sought = AuditSearch(*moments, subject, event, address, target, before)
        found = self._database.read(lambda rows: rows.audit.newest(sought, limit))
        return [Recorded.of(tuple(row)) for row in found]

    def verify(self, anchor: str | None = None, progress: Progress | None = None) -> Verification:
        """Verify every row of the database's trail, and report each problem with its row.

        Args:
            anchor: the `SEQ:MAC` of an earlier row, from the log or from a verification. That row
                must still be there.
            progress: called with the number of rows that are checked, and the total.

        Raises:
            ValueError: the anchor does not have the form `SEQ:MAC`.
            DatabaseUnavailable: the trail cannot be read.
            SettingsError: there is no encryption key.
        """
        check_type(str | None, anchor=anchor)
        if progress is not None:
            check_callable(progress=progress)
        known = None if anchor is None else Anchor.parse(anchor)
        from .verification import TrailVerifier

        return TrailVerifier(self._database, self._chain.keys, known, progress).run()

    def flush(self) -> None:
        """Write the queued events and the counted refusals of requests now.

        Raises:
            DatabaseUnavailable: the events that are not written yet stay queued.
        """
        self._record_all(self.repeats.take())
        if self._backlog is not None:
            self._backlog.flush()

    # For the other components

    @contextmanager
    def keep_circumstances(self) -> Iterator[None]:
        """Keep the current circumstances in the context, for a thread that gets a copy of it."""
        token = _kept_circumstances.set(self._circumstances())
        try:
            yield
        finally:
            _kept_circumstances.reset(token)

    def event(
        self,
        name: str,
        subject: str | None = None,
        target: str | None = None,
        outcome: str = SUCCESS,
        **details: Any,
    ) -> Event:
        """Make an event of now, in the current request if there is one; record nothing.

        Args:
            name: the event's name.
            subject: who acted, if the request has no authenticated caller.
            target: the id of the object.
            outcome: `success`, or an error's code.
            details: further JSON values.
        """
        current = _kept_circumstances.get() or self._circumstances()
        request_id, caller, scheme, address, method, route = current
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
        """Tell whether an event of this name would be recorded or received as a signal."""
        return self._is_recorded(name) or signals.is_heard(name)

    def _is_recorded(self, name: str) -> bool:
        return name not in self._omitted and (
            self._backlog is not None or (self._logs and lines.is_read())
        )

    def record_event(self, event: Event, source: str | None = None) -> None:
        """Record an event of a request; it is written to the database within about a second.

        Repeated refusals are counted, and one event a minute stands for them. Each is sent as a
        signal.

        Args:
            event: the event.
            source: the key of the client whose repeated refusals are counted together; by default
                its address.
        """
        if self._is_recorded(event.name):
            self.record_due()
            if self.repeats.count(event, source or event.address):
                self._record_at_exit()
            else:
                self._record_all([event])
        signals.send(self._sender, event)

    def record_due(self) -> None:
        """Record the events that stand for counted refusals, if their minute is over."""
        self._record_all(self.repeats.due())

    def _record_all(self, events: Sequence[Event]) -> None:
        for event in events:
            if self._backlog is not None:
                self._backlog.add(event)
            if self._logs and lines.is_read():
                lines.write(event)

    def _record_at_exit(self) -> None:
        if not self._ends_with_process:
            self._ends_with_process = True
            atexit.register(_record_last, weakref.ref(self))

    def end(self) -> None:
        """Record and write what waits, as the process ends."""
        self._record_all(self.repeats.take())
        if self._backlog is not None:
            self._backlog.end()

    def record_change(
        self,
        transaction: Transaction | None,
        *events: Event,
        committed: list[Callable[[], None]] | None = None,
    ) -> None:
        """Record a change, or a read of a secret, together with the change itself.

        Args:
            transaction: the transaction of the change; with `None` the events are written in one
                of their own.
            events: the events; they are logged and sent as signals once they are committed.
            committed: the list of calls to make after the commit, if not the transaction's.

        Raises:
            DatabaseUnavailable: the events cannot be written, so the change must not happen.
        """
        recorded = [event for event in events if event.name not in self._omitted]
        if self._backlog is not None and recorded:
            try:
                if transaction is None:
                    self._write(recorded)
                else:
                    self._chain.append(transaction, recorded)
            except TrailBroken as error:
                logger.error("%s", error)  # the client only sees a 503
                raise
        if committed is None and transaction is not None:
            committed = transaction.committed
        for event in events:
            if committed is None:
                self._publish(event)
            else:
                committed.append(partial(self._publish, event))

    def sealed_with(self) -> str | None:
        """Return the id of the encryption key that the database's trail needs.

        Returns:
            The id, or `None` if there is no trail.

        Raises:
            DatabaseUnavailable: the trail's key cannot be read.
        """
        if not self._database.present():
            return None
        envelope = self._database.read(lambda rows: rows.audit.key())
        return None if envelope is None else self._cipher.key_id_of(envelope)

    def check(self) -> None:
        """Check that events can be appended to the database's trail; `verify` checks every row.

        Raises:
            TrailBroken: nothing can be appended.
            DatabaseUnavailable: the trail cannot be read.
            SettingsError: there is no encryption key.
        """
        if self._backlog is not None and self._database.present():
            self._database.read(lambda rows: self._chain.check(rows.audit))

    def reseal(self) -> None:
        """Encrypt the key of the database's trail again, under the current encryption key.

        Raises:
            DatabaseUnavailable: nothing was changed.
            SettingsError: there is no encryption key.
        """
        if self._database.present():
            with self._database.write() as transaction:
                self._chain.keys.reseal(transaction)

    def _write(self, events: Sequence[Event]) -> None:
        with self._database.write() as transaction:
            self._chain.append(transaction, events)

    def _publish(self, event: Event) -> None:
        """Log an event and send its signal."""
        if self._logs and event.name not in self._omitted and lines.is_read():
            lines.write(event)
        signals.send(self._sender, event)


def _record_last(reference: weakref.ref[AuditTrail]) -> None:
    trail = reference()
    if trail is not None:
        trail.end()


def _microseconds(argument: str, given: datetime | None) -> int | None:
    check_type(datetime | None, **{argument: given})
    if given is None:
        return None
    if given.utcoffset() is None:
        raise ValueError(f"{argument} must have a time zone, found {given.isoformat()}")
    return round(given.timestamp() * 1_000_000)
