"""The hash chain: rows of which none can be changed, removed or moved without the key.

Each row bears a MAC over itself and over the MAC of the row before it:

    mac = HMAC-SHA256(key, "m9m:audit:1" | mac of the row before (32 bytes) | row)

The row is a JSON array without white space, in ASCII (`\\uXXXX` for the rest): `seq`, the time in
microseconds, event, outcome, request id, subject, scheme, address, method, route, target, and the
details' JSON as a text; `null` for what is not there. Before row 1 there are 32 zero bytes.

Where the trail ends (`head`), and from where on it is kept (`tail`, once retention has removed
rows), is written down beside it under the same key:

    seal = HMAC-SHA256(key, "m9m:audit:1:" name ":" seq ":" | mac of that row)

so that missing last rows are found, and missing first ones. The key is 32 random bytes of the
trail's own, kept with it, sealed under the encryption key of the settings like a credential. A
database that is put back to an old state as a whole is consistent: only an anchor finds that, the
`seq` and the MAC of a row that somebody kept elsewhere (`SEQ:MAC`, in hexadecimal).
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Mapping, Sequence
from json.encoder import encode_basestring_ascii as _text
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..errors import DecryptionFailed, TrailBroken
from ..storage import EndRow
from ..text import printable
from .events import Event

if TYPE_CHECKING:
    from ..storage.audit_rows import AuditRows
    from ..storage.transaction import Transaction

HEAD, TAIL = "head", "tail"
GENESIS = bytes(32)
HOUR = 3_600.0

_VERSION = b"m9m:audit:1"
_AT_ONCE = 5_000  # rows that retention removes in one transaction


class Anchor(NamedTuple):
    """One row of a trail, as it is kept elsewhere.

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
        """Return an anchor from its text.

        Raises:
            ValueError: it is none.
        """
        seq, _, mac = text.strip().partition(":")
        if seq.isascii() and seq.isdigit() and len(seq) <= 19 and len(mac) == 64:
            try:
                return cls(int(seq), bytes.fromhex(mac))
            except ValueError:
                pass
        raise ValueError("an anchor is SEQ:MAC, a number and 64 hexadecimal digits")


def link(key: bytes, before: bytes, row: Sequence[Any]) -> bytes:
    """Return the MAC of a row.

    Args:
        key: the trail's.
        before: the MAC of the row before.
        row: the columns of the table but `mac`.

    Raises:
        TypeError: a column has what no row of ours has.
    """
    seq, at = row[0], row[1]
    if type(seq) is not int or type(at) is not int:
        raise TypeError("a row begins with two whole numbers")
    others = ",".join(["null" if one is None else _text(one) for one in row[2:]])
    written = b"%b%b[%d,%d,%b]" % (_VERSION, before, seq, at, others.encode("ascii"))
    return hmac.digest(key, written, "sha256")


def is_linked(key: bytes, before: bytes, row: Sequence[Any], mac: object) -> bool:
    """Tell whether a row follows a MAC, and bears its own."""
    try:
        return link(key, before, row) == mac
    except TypeError:
        return False


def end(key: bytes, name: str, seq: int, mac: bytes) -> EndRow:
    """Return an end of the trail as it is written down."""
    text = b"%b:%b:%d:" % (_VERSION, name.encode(), seq)
    return EndRow(seq, mac, hmac.digest(key, text + mac, "sha256"))


def is_sealed(key: bytes, name: str, found: EndRow) -> bool:
    """Tell whether an end was written by somebody who has the key."""
    # SQLite gives back whatever somebody wrote: a text for a number, a number for a text.
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
    """Appends to one app's trail, and forgets what is older than it has to be kept.

    Args:
        cipher: encrypts the trail's key.
        retention: seconds for which rows are kept.
        announce: told now and then where the trail ends, for keeping it elsewhere.
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
        """What opens the trail's key."""
        return self._keys

    def append(self, transaction: Transaction, events: Sequence[Event]) -> None:
        """Append events within a transaction of the one lock, in which nobody else appends.

        Raises:
            TrailBroken: the end of the trail was tampered with; nothing is appended to it, for
                that would hide what is missing.
            SettingsError: there is no encryption key, or not the one that the trail needs.
            DatabaseUnavailable: the rows cannot be written.
        """
        rows = transaction.audit
        ends = rows.ends()
        key, head = self._start(rows, ends)
        seq, mac = head.seq, head.mac
        made = []
        for event in events:
            seq += 1
            row = (seq, *event.columns())
            mac = link(key, mac, row)
            made.append((*row, mac))
        rows.add_all(made)
        rows.set_end(HEAD, end(key, HEAD, seq, mac))
        now = self._clock()
        if not 0 <= now - self._pruned_at < HOUR:
            self._prune(rows, key, ends.get(TAIL), now)
        transaction.committed.append(lambda: self._appended(Anchor(seq, mac), now))

    def check(self, rows: AuditRows) -> None:
        """See whether events can be appended.

        Raises:
            TrailBroken: they cannot.
            SettingsError: there is no encryption key.
        """
        ends = rows.ends()
        if ends or rows.key() is not None or rows.last() is not None:
            self._start(rows, ends)

    def _appended(self, last: Anchor, now: float) -> None:
        """Remember, once they are there, where the rows of this process end."""
        if last.seq > self._last.seq:
            self._last = last
        if not 0 <= now - self._announced_at < HOUR:
            self._announced_at = now
            self._announce(last)

    def _start(self, rows: AuditRows, ends: Mapping[str, EndRow]) -> tuple[bytes, EndRow]:
        """Return the key and the last row's place, beginning a trail where there is none."""
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
                f"the audit trail ends at row {head.seq}, and was at row {known.seq}: where the "
                "database was put back on purpose, restart the app"
            )
        return key, head

    def _prune(self, rows: AuditRows, key: bytes, tail: EndRow | None, now: float) -> None:
        """Remove rows from the beginning that are old enough, and genuine.

        A row that was changed stays: else one would only have to set its time back to have it
        removed with everything before it.
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
        if seq == first + _AT_ONCE:  # there is more, for whoever appends next
            self._pruned_at = -HOUR


class ChainKeys:
    """Opens the trail's key, which is kept with it, and remembers the one that it opened last.

    Args:
        cipher: encrypts the key.
    """

    def __init__(self, cipher: KeyCipher) -> None:
        self._cipher = cipher
        self._opened: tuple[str, bytes] | None = None

    def make(self, rows: AuditRows) -> bytes:
        """Make the key of a new trail."""
        key = secrets.token_bytes(32)
        rows.add_key(self._cipher.seal(key))
        return key

    def open(self, envelope: str) -> bytes:
        """Return the key in an envelope.

        Raises:
            TrailBroken: it does not open under any key of the settings.
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
            raise TrailBroken(
                f"the key of the audit trail does not open: it needs {_seal_of(envelope)}, to be "
                "listed in credentials.previous_keys"
            ) from None
        if len(key) != 32:
            raise TrailBroken("the key of the audit trail was changed")
        self._opened = (envelope, key)
        return key

    def reseal(self, transaction: Transaction) -> None:
        """Seal the trail's key under today's encryption key."""
        envelope = transaction.audit.key()
        if envelope is not None and not self._cipher.is_current(envelope):
            transaction.audit.replace_key(envelope, self._cipher.seal(self.open(envelope)))


def _seal_of(envelope: str) -> str:
    return printable(envelope.rpartition(":")[0][:24])
