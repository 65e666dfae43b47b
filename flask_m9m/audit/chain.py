"""The hash chain: makes the audit trail tamper-evident with a keyed MAC on every row.

Without the key nobody can change, remove or move a row unnoticed. The MAC of a row covers the row
and the MAC of the row before it:

    mac = HMAC-SHA256(key, "m9m:audit:1" | mac of the row before (32 bytes) | row)

The row is a JSON array without white space, in ASCII (`\\uXXXX` for the rest): `seq`, the time in
microseconds, event, outcome, request id, subject, scheme, address, method, route, target, and the
details' JSON as a string; a missing value is `null`. Row 1 follows 32 zero bytes.

Two further records mark the ends of the trail: `head` names its last row, and `tail` the last row
that retention has removed. Each is sealed with the same key:

    seal = HMAC-SHA256(key, "m9m:audit:1:" name ":" seq ":" | mac of that row)

so that missing rows at either end are found. The key is 32 random bytes that belong to the trail.
It is stored with the trail, encrypted like a credential under the encryption key of the settings.

A database that is restored to an old state as a whole is consistent. Only an anchor detects that:
the `seq` and the MAC of a row, kept elsewhere (`SEQ:MAC`, the MAC in hexadecimal).
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Mapping, Sequence
from json.encoder import encode_basestring_ascii as _text
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..errors import DecryptionFailed, TrailBroken, TrailLocked
from ..settings.wording import printable
from ..storage.records import EndRow
from .events import Event

if TYPE_CHECKING:
    from ..storage.audit_rows import AuditRows
    from ..storage.transaction import Transaction

HEAD, TAIL = "head", "tail"
GENESIS = bytes(32)
HOUR = 3_600.0

_VERSION = b"m9m:audit:1"
_AT_ONCE = 5_000  # rows that retention removes in one transaction, at most


class Anchor(NamedTuple):
    """The number and the MAC of one row, to be kept outside of the database.

    Attributes:
        seq: the row's number.
        mac: its MAC.
    """

    seq: int
    mac: bytes

    def __str__(self) -> str:
        return f"{self.seq}:{self.mac.hex()}"

    @classmethod
    def parse(cls, text: str) -> Anchor:
        """Parse an anchor.

        Raises:
            ValueError: the text does not have the form `SEQ:MAC`.
        """
        seq, _, mac = text.strip().partition(":")
        if seq.isascii() and seq.isdigit() and len(seq) <= 19 and len(mac) == 64:
            try:
                return cls(int(seq), bytes.fromhex(mac))
            except ValueError:
                pass
        raise ValueError("an anchor must be SEQ:MAC, a row's number and 64 hexadecimal digits")


def link(key: bytes, before: bytes, row: Sequence[Any]) -> bytes:
    """Compute the MAC of a row.

    Args:
        key: the trail's key.
        before: the MAC of the row before.
        row: the columns of the table, without `mac`.

    Raises:
        TypeError: a column has a type that this module never writes.
    """
    seq, at = row[0], row[1]
    if type(seq) is not int or type(at) is not int:
        raise TypeError("a row must begin with two whole numbers")
    others = ",".join(["null" if value is None else _text(value) for value in row[2:]])
    written = b"%b%b[%d,%d,%b]" % (_VERSION, before, seq, at, others.encode("ascii"))
    return hmac.digest(key, written, "sha256")


def is_linked(key: bytes, before: bytes, row: Sequence[Any], mac: object) -> bool:
    """Tell whether a row has the right MAC, given the MAC of the row before."""
    try:
        return link(key, before, row) == mac
    except TypeError:
        return False


def end(key: bytes, name: str, seq: int, mac: bytes) -> EndRow:
    """Make the sealed record of an end of the trail (`head` or `tail`)."""
    text = b"%b:%b:%d:" % (_VERSION, name.encode(), seq)
    return EndRow(seq, mac, hmac.digest(key, text + mac, "sha256"))


def is_sealed(key: bytes, name: str, found: EndRow) -> bool:
    """Tell whether the record of an end has a genuine seal."""
    # SQLite does not enforce column types: a number may come back as a text, or the reverse.
    if (type(found.seq), type(found.mac), type(found.seal)) != (int, bytes, bytes):
        return False
    return hmac.compare_digest(end(key, name, found.seq, found.mac).seal, found.seal)


class KeyCipher(Protocol):
    """The encryption that a trail needs, of its own key and nothing else."""

    def seal(self, key: bytes) -> str:
        """Encrypt the trail's key under the current encryption key, into an envelope.

        Raises:
            SettingsError: there is no encryption key.
        """

    def open(self, envelope: str) -> bytes:
        """Decrypt an envelope under any of the encryption keys.

        Raises:
            DecryptionFailed: no encryption key opens it, or it was not sealed for this purpose.
            SettingsError: there is no encryption key.
        """

    def key_id_of(self, envelope: object) -> str | None:
        """Return the id of the encryption key that an envelope names; needs no key.

        `None` means that the value is not an envelope.
        """

    def is_current(self, envelope: str) -> bool:
        """Tell whether `seal` would use the cipher and the key that an envelope names.

        Raises:
            SettingsError: there is no encryption key.
        """


class Chain:
    """Appends rows to one app's trail and removes those past their retention.

    Args:
        cipher: encrypts the trail's key.
        retention: seconds for which rows are kept.
        announce: called about once an hour with the last row, an anchor to keep elsewhere.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        cipher: KeyCipher,
        retention: float,
        announce: Callable[[Anchor], None],
        clock: Callable[[], float],
    ) -> None:
        self._keys = ChainKeys(cipher)
        self._retention = retention
        self._announce = announce
        self._clock = clock
        self._announced_at = self._pruned_at = -HOUR
        self._last = Anchor(0, GENESIS)

    @property
    def keys(self) -> ChainKeys:
        """The access to the trail's key."""
        return self._keys

    def append(self, transaction: Transaction, events: Sequence[Event]) -> None:
        """Append events, in a transaction that holds the trail's lock against other writers.

        Raises:
            TrailBroken: the end of the trail was tampered with. Nothing is appended to it, because
                that would hide the missing rows.
            TrailLocked: no encryption key opens the trail's key.
            SettingsError: there is no encryption key.
            DatabaseUnavailable: the rows cannot be written.
        """
        rows = transaction.audit
        ends = rows.ends()
        key, head = self._start(rows, ends)
        seq, mac = head.seq, head.mac
        linked = []
        for event in events:
            seq += 1
            row = (seq, *event.columns())
            mac = link(key, mac, row)
            linked.append((*row, mac))
        rows.add_all(linked)
        rows.set_end(HEAD, end(key, HEAD, seq, mac))
        now = self._clock()
        if not 0 <= now - self._pruned_at < HOUR:
            self._prune(rows, key, ends.get(TAIL), now)
        transaction.committed.append(lambda: self._appended(Anchor(seq, mac), now))

    def check(self, rows: AuditRows) -> None:
        """Check that events can be appended; not that every row is genuine.

        Raises:
            TrailBroken: the key or the end of the trail is missing, was changed, or is older than
                this process knows it.
            SettingsError: there is no encryption key.
        """
        ends = rows.ends()
        if ends or rows.key() is not None or rows.last() is not None:
            self._start(rows, ends)

    def _appended(self, last: Anchor, now: float) -> None:
        """Remember the last row that this process has committed, and announce it hourly."""
        if last.seq > self._last.seq:
            self._last = last
        if not 0 <= now - self._announced_at < HOUR:
            self._announced_at = now
            self._announce(last)

    def _start(self, rows: AuditRows, ends: Mapping[str, EndRow]) -> tuple[bytes, EndRow]:
        """Return the key and the head to append to; begin the trail if it has no rows yet."""
        envelope, head = rows.key(), ends.get(HEAD)
        if envelope is None and not ends and rows.last() is None and self._last.seq == 0:
            return self._keys.make(rows), EndRow(0, GENESIS, b"")
        if envelope is None:
            raise TrailBroken("the key of the audit trail is missing")
        key = self._keys.open(envelope)
        if head is None or not is_sealed(key, HEAD, head):
            raise TrailBroken("the end of the audit trail was changed")
        known = self._last
        if head.seq < known.seq or (head.seq == known.seq and known.seq and head.mac != known.mac):
            raise TrailBroken(
                f"the audit trail ends at row {head.seq}, but this process has seen row "
                f"{known.seq}: if you restored an older database on purpose, restart the app"
            )
        return key, head

    def _prune(self, rows: AuditRows, key: bytes, tail: EndRow | None, now: float) -> None:
        """Remove genuine rows past their retention from the beginning.

        A changed row stays, and so do all rows after it. Otherwise an attacker could set a row's
        time back and have it removed, with every row before it.
        """
        if tail is not None and not is_sealed(key, TAIL, tail):
            raise TrailBroken("the beginning of the audit trail was changed")
        self._pruned_at = now
        before = (now - self._retention) * 1_000_000
        seq, mac = (0, GENESIS) if tail is None else (tail.seq, tail.mac)
        first = seq
        oldest = rows.page(seq, 1)
        if not oldest or type(oldest[0][1]) is not int or oldest[0][1] >= before:
            return
        for *row, stored in rows.page(seq, _AT_ONCE):
            if row[0] != seq + 1 or not is_linked(key, mac, row, stored) or row[1] >= before:
                break
            seq, mac = row[0], stored
        if seq > first:
            rows.delete_up_to(seq)
            rows.set_end(TAIL, end(key, TAIL, seq, mac))
        if seq == first + _AT_ONCE:  # the next append removes more
            self._pruned_at = -HOUR


class ChainKeys:
    """Makes and opens the trail's key, which is stored encrypted beside the trail.

    The key that was opened last is cached.

    Args:
        cipher: encrypts the key.
    """

    def __init__(self, cipher: KeyCipher) -> None:
        self._cipher = cipher
        self._opened: tuple[str, bytes] | None = None

    def make(self, rows: AuditRows) -> bytes:
        """Make and store the key of a new trail."""
        key = secrets.token_bytes(32)
        rows.add_key(self._cipher.seal(key))
        return key

    def open(self, envelope: str) -> bytes:
        """Decrypt the trail's key.

        Raises:
            TrailBroken: the stored value is not a trail's key.
            TrailLocked: no encryption key opens it.
            SettingsError: there is no encryption key.
        """
        if not isinstance(envelope, str):
            raise TrailBroken("the key of the audit trail was changed")
        opened = self._opened
        if opened is not None and opened[0] == envelope:
            return opened[1]
        try:
            key = self._cipher.open(envelope)
        except DecryptionFailed:
            raise TrailLocked(
                "no encryption key opens the key of the audit trail: it needs "
                f"{_sealed_by(envelope)}"
            ) from None
        if len(key) != 32:
            raise TrailBroken("the key of the audit trail was changed")
        self._opened = (envelope, key)
        return key

    def reseal(self, transaction: Transaction) -> None:
        """Encrypt the trail's key again, under the current encryption key and cipher."""
        envelope = transaction.audit.key()
        if envelope is not None and not self._cipher.is_current(envelope):
            transaction.audit.replace_key(envelope, self._cipher.seal(self.open(envelope)))


def _sealed_by(envelope: str) -> str:
    """Return an envelope's cipher and key id, safe to print."""
    return printable(envelope.rpartition(":")[0][:24])
