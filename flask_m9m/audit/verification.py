"""Verification of the audit trail: finds rows that were changed, removed, added or moved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import DatabaseUnavailable, TrailBroken, TrailLocked
from ..storage.database import Database
from ..storage.records import EndRow
from .chain import GENESIS, HEAD, TAIL, Anchor, ChainKeys, is_linked, is_sealed, link

if TYPE_CHECKING:
    from ..storage.transaction import Transaction

T = TypeVar("T")

Progress = Callable[[int, int], None]
"""Called with the number of rows that are checked, and the total."""

_PAGE = 5_000
_MOST_PROBLEMS = 100  # the rest are only counted


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of a verification.

    Attributes:
        rows: the number of rows.
        head: the last row, an anchor to keep elsewhere; `None` if there is no genuine head.
        problems: a sentence for each problem, with its row; at most 101.
    """

    rows: int
    head: Anchor | None
    problems: Sequence[str]

    @property
    def holds(self) -> bool:
        """Whether the trail is genuine: there are no problems."""
        return not self.problems


class TrailVerifier:
    """Verifies a trail once, while others may append to it.

    Args:
        database: the trail's database.
        keys: opens the trail's key.
        anchor: a row that was noted elsewhere, and must be there.
        progress: called after each page of rows.
    """

    def __init__(
        self,
        database: Database,
        keys: ChainKeys,
        anchor: Anchor | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._database = database
        self._keys = keys
        self._anchor = anchor
        self._progress = progress
        self._problems: list[str] = []
        self._more = 0
        self._rows = 0
        self._key: bytes
        self._seq = 0
        self._macs: tuple[bytes, ...] = (GENESIS,)
        self._anchored = False

    def run(self) -> Verification:
        """Verify the trail.

        Raises:
            DatabaseUnavailable: the trail cannot be read.
            SettingsError: there is no encryption key.
        """
        head = self._begin() if self._database.present() else None
        if head is not None:
            self._walk(head)
            self._check_end()
        self._check_anchor(head)
        if self._more:
            self._problems.append(f"and {self._more} more problems")
        place = None if head is None or not head.mac else Anchor(head.seq, head.mac)
        return Verification(self._rows, place, self._problems)

    def _begin(self) -> EndRow | None:
        """Read the key and the ends; return the head, or `None` if no row can be verified."""
        envelope, ends, last = self._read(
            lambda rows: (rows.audit.key(), rows.audit.ends(), rows.audit.last())
        )
        if envelope is None:
            if ends or last is not None:
                self._note("the key of the trail is missing: its rows cannot be verified")
            return None
        try:
            self._key = self._keys.open(envelope)
        except TrailBroken as error:
            # Whoever reads this has run the verification that other messages advise.
            self._note(str(error) if isinstance(error, TrailLocked) else error.reason)
            return None
        self._take_tail(ends)
        first = self._read(lambda rows: rows.audit.first())
        if first is not None and first <= self._seq:
            self._note(f"row {first} is before the beginning of the trail")
        head = ends.get(HEAD)
        last = last if type(last) is int else None
        if head is None or not is_sealed(self._key, HEAD, head):
            fault = "is missing" if head is None else "was changed"
            self._note(f"the record of the trail's end {fault}: rows may be missing there")
            return None if last is None else EndRow(last, b"", b"")
        return head

    def _take_tail(self, ends: Mapping[str, EndRow]) -> bool:
        """Skip the rows that retention removed; tell whether that skips any more rows."""
        tail = ends.get(TAIL)
        if tail is None:
            return False
        if not is_sealed(self._key, TAIL, tail):
            self._note("the record of the trail's beginning was changed")
            return False
        if tail.seq <= self._seq:
            return False
        self._seq, self._macs = tail.seq, (tail.mac,)
        return True

    def _walk(self, head: EndRow) -> None:
        total = head.seq - self._seq
        while self._seq < head.seq:
            page = self._page(head)
            for row in page:
                if row[0] > head.seq:
                    page = ()
                    break
                if self._advance(row[0]):
                    self._check(row)
            if self._progress is not None:
                self._progress(self._rows, max(total, self._rows))
            if not page:
                break
        if self._seq < head.seq:
            self._missing(self._seq + 1, head.seq, "at the end")
        elif head.mac and head.mac not in self._macs:
            self._note(f"row {head.seq} does not match the record of the trail's end")

    def _check(self, row: Sequence[Any]) -> None:
        seq, stored, columns = row[0], row[-1], row[:-1]
        if not self._macs:
            self._note(f"row {seq} cannot be checked without the row before it")
            self._macs = (stored,)
        elif any(is_linked(self._key, mac, columns, stored) for mac in self._macs):
            self._macs = (stored,)
        else:
            self._note(f"row {seq} was changed")
            # Either the row or its MAC was changed: the next row shows which.
            self._macs = (*self._as_bytes(stored), *self._recomputed(columns))
        if self._anchor is not None and seq == self._anchor.seq:
            self._anchored = self._anchor.mac == stored
        self._seq = seq

    def _advance(self, seq: int) -> bool:
        """Report rows missing before this one; tell whether this one is to be checked."""
        if seq > self._seq + 1:  # perhaps retention has removed rows meanwhile
            self._take_tail(self._read(lambda rows: rows.audit.ends()))
        if seq <= self._seq:
            return False
        if seq > self._seq + 1:
            self._missing(self._seq + 1, seq - 1, f"before row {seq}")
            self._macs = ()
        self._rows += 1
        return True

    def _recomputed(self, columns: Sequence[Any]) -> tuple[bytes, ...]:
        try:
            return tuple(link(self._key, mac, columns) for mac in self._macs[:1])
        except TypeError:
            return ()

    @staticmethod
    def _as_bytes(stored: object) -> tuple[bytes, ...]:
        return (stored,) if isinstance(stored, bytes) else ()

    def _check_end(self) -> None:
        """Check that no row follows the end; reads in this order, as others may append."""
        last = self._read(lambda rows: rows.audit.last())
        head = self._read(lambda rows: rows.audit.ends()).get(HEAD)
        if head is None or not is_sealed(self._key, HEAD, head):
            return
        if last is not None and last > head.seq:
            self._note(f"row {last} is after the end of the trail")

    def _check_anchor(self, head: EndRow | None) -> None:
        anchor = self._anchor
        if anchor is None or self._anchored:
            return
        if head is None or head.seq < anchor.seq:
            self._note(
                f"row {anchor.seq}, which the anchor names, is missing: rows were removed, or an "
                "older state of the database was restored"
            )
        elif (tail := self._tail()) is not None and anchor.seq <= tail.seq:
            if (anchor.seq, anchor.mac) != (tail.seq, tail.mac):
                self._note(
                    f"row {anchor.seq}, which the anchor names, is past its retention: use a newer "
                    "anchor"
                )
        else:
            self._note(f"row {anchor.seq} does not match the anchor")

    def _tail(self) -> EndRow | None:
        tail = self._read(lambda rows: rows.audit.ends()).get(TAIL)
        genuine = tail is not None and is_sealed(self._key, TAIL, tail)
        return tail if genuine else None

    def _page(self, head: EndRow) -> Sequence[Sequence[Any]]:
        """Return the next rows; skip a row that cannot be read, such as one of invalid UTF-8."""
        most = _PAGE
        while True:
            try:
                return self._read(partial(_rows_after, self._seq, most))
            except DatabaseUnavailable:
                if most == 1 and not self._skip_unreadable(head):
                    return ()
                most = max(1, most // 8)

    def _skip_unreadable(self, head: EndRow) -> bool:
        """Report and skip the next row; tell whether it is before the end of the trail."""
        seq = self._read(lambda rows: rows.audit.following(self._seq))
        if seq is None:
            raise DatabaseUnavailable("the audit trail cannot be read")
        if seq > head.seq:
            return False
        if self._advance(seq):
            self._note(f"row {seq} was changed: it cannot be read")
            self._seq, self._macs = seq, ()
            with suppress(DatabaseUnavailable):
                self._macs = self._as_bytes(self._read(lambda rows: rows.audit.mac(seq)))
        return True

    def _missing(self, first: int, last: int, where: str) -> None:
        if first == last:
            self._note(f"row {first} is missing {where}")
        else:
            self._note(f"rows {first} to {last} are missing {where}")

    def _note(self, problem: str) -> None:
        if len(self._problems) < _MOST_PROBLEMS:
            self._problems.append(problem)
        else:
            self._more += 1

    def _read(self, query: Callable[[Transaction], T]) -> T:
        return self._database.read(query)


def _rows_after(seq: int, most: int, transaction: Transaction) -> Sequence[Sequence[Any]]:
    return transaction.audit.page(seq, most)
