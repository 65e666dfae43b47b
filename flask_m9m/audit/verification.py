"""Verification: whether a trail is what was written, and which rows are not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import DatabaseUnavailable, TrailBroken
from ..storage import Database, EndRow
from .chain import GENESIS, HEAD, TAIL, Anchor, ChainKeys, is_linked, is_sealed, link

if TYPE_CHECKING:
    from ..storage.transaction import Transaction

T = TypeVar("T")

Progress = Callable[[int, int], None]
"""Told how many rows were looked at, and of how many."""

_PAGE = 5_000
_MOST = 100  # problems that are told one by one


@dataclass(frozen=True, slots=True)
class Verification:
    """What came of a verification.

    Attributes:
        rows: how many there are.
        head: the last row, for keeping it elsewhere; `None` where there is no trail.
        problems: what is wrong, row by row; empty where nothing is.
    """

    rows: int
    head: Anchor | None
    problems: Sequence[str]

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


class TrailVerifier:
    """Walks through a trail once, while others append to it.

    Args:
        database: where it is.
        keys: opens its key.
        anchor: a row as it was kept elsewhere, which has to be there.
        progress: told after each page.
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
            DatabaseUnavailable: it cannot be read.
            SettingsError: there is no encryption key.
        """
        head = self._begin() if self._database.present() else None
        if head is not None:
            self._walk(head)
            self._check_end()
        self._check_anchor(head)
        if self._more:
            self._problems.append(f"and {self._more} more")
        place = None if head is None or not head.mac else Anchor(head.seq, head.mac)
        return Verification(self._rows, place, self._problems)

    def _begin(self) -> EndRow | None:
        """Read the key and the ends; return the head, if there is something to walk through."""
        envelope, ends, last = self._read(
            lambda rows: (rows.audit.key(), rows.audit.ends(), rows.audit.last())
        )
        if envelope is None:
            if ends or last is not None:
                self._note("the key of the trail is missing: nothing can be told of its rows")
            return None
        try:
            self._key = self._keys.open(envelope)
        except TrailBroken as error:
            self._note(error.reason)
            return None
        self._take_tail(ends)
        first = self._read(lambda rows: rows.audit.first())
        if first is not None and first <= self._seq:
            self._note(f"row {first} stands before the beginning of the trail")
        head = ends.get(HEAD)
        last = last if type(last) is int else None
        if head is None or not is_sealed(self._key, HEAD, head):
            what = "is missing" if head is None else "was changed"
            self._note(f"the record of the trail's end {what}: rows may be missing there")
            return None if last is None else EndRow(last, b"", b"")
        return head

    def _take_tail(self, ends: Mapping[str, EndRow]) -> bool:
        """Begin after the rows that retention removed; tell whether that is further than now."""
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
                if self._comes_to(row[0]):
                    self._check(row)
            if self._progress is not None:
                self._progress(self._rows, max(total, self._rows))
            if not page:
                break
        if self._seq < head.seq:
            self._missing(self._seq + 1, head.seq, "at the end")
        elif head.mac and head.mac not in self._macs:
            self._note(f"row {head.seq} is not the one that the record of the end names")

    def _check(self, row: Sequence[Any]) -> None:
        seq, stored, columns = row[0], row[-1], row[:-1]
        if not self._macs:
            self._note(f"row {seq} cannot be checked without the one before it")
            self._macs = (stored,)
        elif any(is_linked(self._key, mac, columns, stored) for mac in self._macs):
            self._macs = (stored,)
        else:
            self._note(f"row {seq} was changed")
            # The next row tells whether the row or only its MAC was.
            self._macs = (*self._as_bytes(stored), *self._recomputed(columns))
        if self._anchor is not None and seq == self._anchor.seq:
            self._anchored = self._anchor.mac == stored
        self._seq = seq

    def _comes_to(self, seq: int) -> bool:
        """See whether rows are missing before one; tell whether it is to be looked at."""
        if seq > self._seq + 1:  # unless retention removed them while we were reading
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
        """See that nothing stands behind the end; read in this order, others may append."""
        last = self._read(lambda rows: rows.audit.last())
        head = self._read(lambda rows: rows.audit.ends()).get(HEAD)
        if head is None or not is_sealed(self._key, HEAD, head):
            return
        if last is not None and last > head.seq:
            self._note(f"row {last} stands behind the end of the trail")

    def _check_anchor(self, head: EndRow | None) -> None:
        anchor = self._anchor
        if anchor is None or self._anchored:
            return
        if head is None or head.seq < anchor.seq:
            self._note(
                f"row {anchor.seq}, which the anchor names, is not there: rows were removed, or "
                "the database was put back to an older state"
            )
        elif (tail := self._tail()) is not None and anchor.seq <= tail.seq:
            if (anchor.seq, anchor.mac) != (tail.seq, tail.mac):
                self._note(f"row {anchor.seq} is older than what is kept: take a newer anchor")
        else:
            self._note(f"row {anchor.seq} is not the one that the anchor names")

    def _tail(self) -> EndRow | None:
        tail = self._read(lambda rows: rows.audit.ends()).get(TAIL)
        genuine = tail is not None and is_sealed(self._key, TAIL, tail)
        return tail if genuine else None

    def _page(self, head: EndRow) -> Sequence[Sequence[Any]]:
        """Return the next rows; one that cannot be read, as its text is none, is passed over."""
        most = _PAGE
        while True:
            try:
                return self._read(partial(_rows_after, self._seq, most))
            except DatabaseUnavailable:
                if most == 1 and not self._pass_over(head):
                    return ()
                most = max(1, most // 8)

    def _pass_over(self, head: EndRow) -> bool:
        """Name a row that cannot be read; tell whether it is one of the trail's."""
        seq = self._read(lambda rows: rows.audit.following(self._seq))
        if seq is None:
            raise DatabaseUnavailable("the audit trail cannot be read")
        if seq > head.seq:
            return False
        if self._comes_to(seq):
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
        if len(self._problems) < _MOST:
            self._problems.append(problem)
        else:
            self._more += 1

    def _read(self, query: Callable[[Transaction], T]) -> T:
        return self._database.read(query)


def _rows_after(seq: int, most: int, transaction: Transaction) -> Sequence[Sequence[Any]]:
    return transaction.audit.page(seq, most)
