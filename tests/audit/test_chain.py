"""Whatever is done to a trail without its key is found, and named."""

from __future__ import annotations

import hmac
import json
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from flask import current_app

from flask_m9m import M9M
from flask_m9m.audit.chain import GENESIS, Anchor, end, link
from flask_m9m.errors import DatabaseUnavailable, TrailBroken, TrailLocked
from flask_m9m.storage.tables import audit_ends, audit_events, audit_keys
from flask_m9m.testing import Clock
from tests.credentials.encryption.independent import aead_envelope

from .conftest import Audited, new_key

COLUMNS = [column.name for column in audit_events.c]


def tamper(*statements: Any) -> None:
    """Do something to the database behind the back of whoever has the key."""
    engine = current_app.extensions["m9m"].database._connected()
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(statement)


def row(seq: int) -> Any:
    engine = current_app.extensions["m9m"].database._connected()
    with engine.connect() as connection:
        return connection.execute(sa.select(audit_events).where(audit_events.c.seq == seq)).one()


def rewritten(seq: int, **values: Any) -> Any:
    return sa.update(audit_events).where(audit_events.c.seq == seq).values(**values)


def moved(seq: int, to: int) -> Any:
    return sa.update(audit_events).where(audit_events.c.seq == seq).values(seq=to)


def test_a_trail_that_nobody_touched_holds(trail: M9M) -> None:
    found = trail.audit.verify()
    assert found.holds
    assert found.rows == 10
    assert found.head is not None
    assert found.head.seq == 10


def test_rows_are_numbered_without_gaps(trail: M9M) -> None:
    assert [one.seq for one in trail.audit.query()] == list(range(10, 0, -1))


def changes_of(column: str, value: Any) -> list[Any]:
    """Return what each byte of a column might be changed to, and the absence of it."""
    if isinstance(value, int):
        return [value + 1, -value]
    if value is None:
        return ["", "x"]
    if isinstance(value, bytes):
        return [value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :] for at in range(len(value))]
    nothing = [] if column in ("event", "outcome") else [None]
    return [
        *nothing,
        "",
        *(value[:at] + chr(ord(value[at]) ^ 1) + value[at + 1 :] for at in range(len(value))),
    ]


@pytest.mark.parametrize("column", [one for one in COLUMNS if one != "seq"])
def test_changing_any_byte_of_a_row_is_found(trail: M9M, column: str) -> None:
    before = row(5)._mapping[column]
    for value in changes_of(column, before):
        tamper(rewritten(5, **{column: value}))
        found = trail.audit.verify()
        assert list(found.problems) == ["row 5 was changed"], value
        tamper(rewritten(5, **{column: before}))
    assert trail.audit.verify().holds


def test_changing_the_last_row_is_found(trail: M9M) -> None:
    tamper(rewritten(10, subject="nobody"))
    assert list(trail.audit.verify().problems) == ["row 10 was changed"]


@pytest.mark.parametrize("seq", [1, 5, 9])
def test_a_missing_row_is_found(trail: M9M, seq: int) -> None:
    tamper(sa.delete(audit_events).where(audit_events.c.seq == seq))
    problems = list(trail.audit.verify().problems)
    assert problems[0] == f"row {seq} is missing before row {seq + 1}"
    assert len(problems) == 2


@pytest.mark.parametrize("first", [10, 8, 1])
def test_missing_last_rows_are_found(trail: M9M, first: int) -> None:
    tamper(sa.delete(audit_events).where(audit_events.c.seq >= first))
    (problem,) = trail.audit.verify().problems
    which = "row 10 is" if first == 10 else f"rows {first} to 10 are"
    assert problem == f"{which} missing at the end"


def test_rows_that_changed_places_are_found(trail: M9M) -> None:
    tamper(
        moved(3, to=100),
        moved(7, to=3),
        moved(100, to=7),
    )
    problems = list(trail.audit.verify().problems)
    assert "row 3 was changed" in problems
    assert "row 7 was changed" in problems


def test_a_row_that_closes_the_gap_of_a_missing_one_is_found(trail: M9M) -> None:
    tamper(
        sa.delete(audit_events).where(audit_events.c.seq == 10),
        moved(9, to=10),
    )
    assert trail.audit.verify().problems[0] == "row 9 is missing before row 10"


def test_a_row_behind_the_end_is_found(trail: M9M) -> None:
    values = {**row(10)._mapping, "seq": 11}
    tamper(sa.insert(audit_events).values(values))
    assert list(trail.audit.verify().problems) == ["row 11 is after the end of the trail"]


def test_a_row_before_the_beginning_is_found(trail: M9M) -> None:
    values = {**row(1)._mapping, "seq": 0}
    tamper(sa.insert(audit_events).values(values))
    problems = list(trail.audit.verify().problems)
    assert problems == ["row 0 is before the beginning of the trail"]


def test_an_end_that_was_moved_back_is_found(trail: M9M) -> None:
    tamper(
        sa.delete(audit_events).where(audit_events.c.seq > 8),
        sa.update(audit_ends).values(seq=8, mac=row(8).mac),
    )
    (problem,) = trail.audit.verify().problems
    assert problem == "the record of the trail's end was changed: rows may be missing there"


@pytest.mark.parametrize("table", [audit_ends, audit_keys])
def test_what_stands_beside_the_trail_cannot_be_missing(trail: M9M, table: sa.Table) -> None:
    tamper(sa.delete(table))
    assert not trail.audit.verify().holds


def test_an_end_of_another_trail_is_none_of_this_one(trail: M9M) -> None:
    other = end(bytes(32), "head", 10, row(10).mac)
    tamper(sa.update(audit_ends).values(seal=other.seal))
    assert not trail.audit.verify().holds


def test_nothing_is_appended_to_a_trail_whose_end_is_gone(trail: M9M) -> None:
    tamper(sa.delete(audit_events).where(audit_events.c.seq > 8), sa.delete(audit_ends))
    with pytest.raises(TrailBroken):
        trail.audit.record("counted")
    assert not trail.audit.verify().holds


def test_a_broken_trail_stops_what_would_have_to_be_written_to_it(trail: M9M) -> None:
    tamper(sa.delete(audit_ends))
    with pytest.raises(DatabaseUnavailable):
        trail.users.create("alice", "correct horse")
    assert trail.users.list() == []


def test_a_database_put_back_to_an_old_state_is_found_by_an_anchor(trail: M9M) -> None:
    engine = current_app.extensions["m9m"].database._connected()
    with engine.connect() as connection:
        old = connection.execute(sa.select(audit_ends)).one()._mapping
    trail.audit.record("counted", number=11)
    head = trail.audit.verify().head
    assert trail.audit.verify(anchor=str(head)).holds
    tamper(
        sa.delete(audit_events).where(audit_events.c.seq == 11),
        sa.update(audit_ends).values(**old),
    )
    with pytest.raises(TrailBroken, match="ends at row 10, but this process has seen row 11"):
        trail.audit.record("counted")  # whoever wrote row 11 knows of it
    assert trail.audit.verify().holds  # all of it was true once
    (problem,) = trail.audit.verify(anchor=str(head)).problems
    assert problem.startswith("row 11, which the anchor names, is missing")


def test_an_anchor_of_another_trail_is_found(trail: M9M) -> None:
    (problem,) = trail.audit.verify(anchor=f"5:{'0' * 64}").problems
    assert problem == "row 5 does not match the anchor"


@pytest.mark.parametrize(
    "text", ["", "5", "5:", f"-5:{'0' * 64}", f"5:{'g' * 64}", f"²:{'0' * 64}"]
)
def test_what_is_no_anchor_is_refused(trail: M9M, text: str) -> None:
    with pytest.raises(ValueError, match="an anchor must be SEQ:MAC"):
        trail.audit.verify(anchor=text)


def test_the_mac_of_a_row_is_what_is_written_down() -> None:
    key = bytes(range(32))
    columns = (1, 1_750_000_000_000_000, "counted", "success", None, 'a"ü', *[None] * 5, '{"n":1}')
    written = json.dumps(list(columns), separators=(",", ":"))
    assert written.isascii()
    expected = hmac.digest(key, b"m9m:audit:1" + GENESIS + written.encode(), "sha256")
    assert link(key, GENESIS, columns) == expected
    assert expected.hex() == "74258178c5a9485e8ca7f6bc4771760ce229fca69e5f3441f23308a00bf8ddc8"


def test_the_seal_of_an_end_is_what_is_written_down() -> None:
    key, mac = bytes(range(32)), bytes(32)
    expected = hmac.digest(key, b"m9m:audit:1:head:7:" + mac, "sha256")
    assert end(key, "head", 7, mac).seal == expected


def test_an_anchor_reads_as_it_is_written() -> None:
    anchor = Anchor(7, bytes(range(32)))
    assert Anchor.parse(str(anchor)) == anchor


# What SQLite lets stand where something else belongs

SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@SQLITE
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE m9m_audit_ends SET seq = 'x10'",
        "UPDATE m9m_audit_ends SET seq = 10.5",
        "UPDATE m9m_audit_ends SET seq = 9e999",
        "UPDATE m9m_audit_ends SET seal = 'x'",
        "UPDATE m9m_audit_ends SET mac = CAST(mac AS TEXT) || 'x'",
        "UPDATE m9m_audit_keys SET envelope = CAST(envelope AS BLOB)",
        "UPDATE m9m_audit_keys SET envelope = 5",
    ],
)
def test_an_end_or_a_key_of_an_odd_type_is_one_that_was_changed(trail: M9M, statement: str) -> None:
    tamper(sa.text(statement))
    with pytest.raises(DatabaseUnavailable):
        trail.audit.record("counted")
    try:
        holds = trail.audit.verify().holds
    except DatabaseUnavailable:  # SQLite cannot even read it
        holds = False
    assert not holds


@SQLITE
@pytest.mark.parametrize("column", ["at", "subject", "mac", "details"])
def test_a_column_of_an_odd_type_is_one_that_was_changed(trail: M9M, column: str) -> None:
    for value in ("CAST(x'00ff' AS BLOB)", "1.5", "CAST(x'ff61' AS TEXT)", "9e999"):
        before = row(5)._mapping[column]
        tamper(sa.text(f"UPDATE m9m_audit SET {column} = {value} WHERE seq = 5"))
        assert trail.audit.verify().problems[0].startswith("row 5 was changed"), value
        tamper(rewritten(5, **{column: before}))


@SQLITE
def test_rows_that_are_missing_before_one_that_cannot_be_read_are_named(trail: M9M) -> None:
    tamper(
        sa.delete(audit_events).where(audit_events.c.seq.between(5, 7)),
        sa.text("UPDATE m9m_audit SET subject = CAST(x'ff61' AS TEXT) WHERE seq = 8"),
    )
    assert list(trail.audit.verify().problems) == [
        "rows 5 to 7 are missing before row 8",
        "row 8 was changed: it cannot be read",
    ]


@SQLITE
def test_missing_last_rows_are_named_though_one_behind_the_end_cannot_be_read(
    trail: M9M,
) -> None:
    values = {**row(10)._mapping, "seq": 11}
    tamper(
        sa.insert(audit_events).values(values),
        sa.delete(audit_events).where(audit_events.c.seq.between(7, 10)),
        sa.text("UPDATE m9m_audit SET subject = CAST(x'ff61' AS TEXT) WHERE seq = 11"),
    )
    problems = list(trail.audit.verify().problems)
    assert problems[0] == "rows 7 to 10 are missing at the end"
    assert problems[1] == "row 11 is after the end of the trail"


def test_what_stands_in_the_database_moves_no_terminal(trail: M9M) -> None:
    tamper(sa.update(audit_keys).values(envelope="\x1b[31mFAKE\naudit: all good:x"))
    (problem,) = trail.audit.verify().problems
    assert problem.isprintable()


def test_nobody_appends_where_a_row_stands_already(trail: M9M) -> None:
    tamper(sa.insert(audit_events).values({**row(10)._mapping, "seq": 11}))
    with pytest.raises(TrailBroken, match="after its recorded end"):
        trail.audit.record("counted")


# Retention


def test_rows_older_than_the_retention_are_removed_and_the_rest_holds(
    audited: Audited, clock: Clock
) -> None:
    app, m9m = audited({"retention": "30d"})
    with app.app_context():
        for _ in range(5):
            m9m.audit.record("counted")
        clock.advance(29 * 86_400)
        m9m.audit.record("counted")
        clock.advance(2 * 86_400)
        m9m.audit.record("counted")
        found = m9m.audit.verify()
        assert found.holds
        assert [one.seq for one in m9m.audit.query()] == [7, 6]


def test_the_last_row_that_retention_removed_is_an_anchor_that_holds(
    audited: Audited, clock: Clock
) -> None:
    app, m9m = audited({"retention": "30d"})
    with app.app_context():
        m9m.audit.record("counted")
        first = m9m.audit.verify().head
        m9m.audit.record("counted")
        second = m9m.audit.verify().head
        clock.advance(31 * 86_400)
        m9m.audit.record("counted")
        assert m9m.audit.verify(str(second)).holds
        (problem,) = m9m.audit.verify(str(first)).problems
        assert "is past its retention" in problem


def test_a_trail_of_which_all_is_old_goes_on(audited: Audited, clock: Clock) -> None:
    app, m9m = audited({"retention": "30d"})
    with app.app_context():
        m9m.audit.record("counted")
        for _ in range(3):
            clock.advance(60 * 86_400)
            m9m.audit.record("counted")
        found = m9m.audit.verify()
        assert found.holds
        assert found.rows == 1
        assert [one.seq for one in m9m.audit.query()] == [4]


def test_more_missing_first_rows_than_retention_removed_are_found(
    audited: Audited, clock: Clock
) -> None:
    app, m9m = audited({"retention": "30d"})
    with app.app_context():
        m9m.audit.record("counted")
        clock.advance(31 * 86_400)
        for _ in range(4):
            m9m.audit.record("counted")
        tamper(sa.delete(audit_events).where(audit_events.c.seq <= 3))
        assert m9m.audit.verify().problems[0] == "rows 2 to 3 are missing before row 4"


@pytest.mark.parametrize("column", ["at", "subject"])
def test_a_row_that_was_changed_is_not_removed_for_its_age(
    audited: Audited, clock: Clock, column: str
) -> None:
    app, m9m = audited({"retention": "30d"})
    with app.app_context():
        for _ in range(5):
            m9m.audit.record("counted", subject="mallory")
        value: Any = 0 if column == "at" else "bob"
        tamper(*[rewritten(seq, **{column: value}) for seq in range(1, 5)])
        clock.advance(7_200 if column == "at" else 31 * 86_400)
        m9m.audit.record("counted")
        assert len(m9m.audit.query()) == 6
        assert m9m.audit.verify().problems[0] == "row 1 was changed"


# The key

OCTETS, SALT, TRAIL_KEY = bytes(range(32)), bytes(range(32, 64)), bytes(range(64, 96))
FROZEN_KEY = (
    "m9m:1:b6a31bd4:ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj_WqMmuXU_q9cQVjFEaI623EVNtkDE9"
    "P8XNy9ZvNJjKQAuPZey33U9eUFhqSl2aguBcik3x5WSEqjBa-Js_DMqYGLvTXJTUCYhpnYQi8IVzRA"
)


@pytest.fixture
def known_trail_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have new trails get the key `TRAIL_KEY`."""
    known = SimpleNamespace(token_bytes=lambda size: TRAIL_KEY[:size])
    monkeypatch.setattr("flask_m9m.audit.chain.secrets", known)


@pytest.mark.usefixtures("known_trail_key")
def test_the_envelope_of_the_key_is_frozen_byte_for_byte(
    audited: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = aead_envelope(OCTETS, SALT, TRAIL_KEY, b"audit", b"flask-m9m audit key", b"")
    assert written == FROZEN_KEY
    known = SimpleNamespace(urandom=lambda size: SALT[:size])
    monkeypatch.setattr("flask_m9m.credentials.encryption.aead.os", known)
    app, m9m = audited(credentials={"encryption_key": OCTETS.hex()})
    with app.app_context():
        m9m.audit.record("counted")
        with app.extensions["m9m"].database._connected().connect() as connection:
            assert connection.execute(sa.select(audit_keys.c.envelope)).all() == [(FROZEN_KEY,)]


@pytest.mark.usefixtures("known_trail_key")
def test_a_key_that_was_sealed_in_the_past_opens(audited: Audited) -> None:
    app, m9m = audited(credentials={"encryption_key": OCTETS.hex()})
    with app.app_context():
        m9m.audit.record("counted")
        tamper(sa.update(audit_keys).values(envelope=FROZEN_KEY))
    again, other = audited(credentials={"encryption_key": OCTETS.hex()})
    with again.app_context():
        other.audit.record("counted")
        found = other.audit.verify()
        assert (found.holds, found.rows) == (True, 2)


def test_the_key_is_sealed_anew_with_the_credentials(
    database_url: str, clock: Clock, audited: Audited
) -> None:
    app, m9m = audited()
    old = app.extensions["m9m"].loaded.settings.credentials.encryption_key.get_secret_value()
    with app.app_context():
        m9m.audit.record("counted")
    new = new_key()
    rotating, other = audited(credentials={"encryption_key": new, "previous_keys": [old]})
    with rotating.app_context():
        assert list(other.credentials.rotate(dry_run=True).keys_in_use.values()) == [1]
        assert other.credentials.rotate().keys_in_use == {}
        assert other.audit.query()[0].event == "keys_rotated"
    alone, third = audited(credentials={"encryption_key": new})
    with alone.app_context():
        third.audit.record("counted")
        assert third.audit.verify().holds
    with app.app_context(), pytest.raises(TrailLocked, match="no encryption key opens") as caught:
        m9m.audit.record("counted")
    assert str(caught.value).endswith(": list that key in credentials.previous_keys")


def test_a_key_that_is_not_the_trails_is_named(audited: Audited) -> None:
    app, m9m = audited()
    with app.app_context():
        m9m.audit.record("counted")
    stranger, other = audited(credentials={"encryption_key": new_key()})
    with stranger.app_context():
        with pytest.raises(TrailBroken, match="opens the key of the audit trail: it needs m9m:1:"):
            other.audit.record("counted")
        (problem,) = other.audit.verify().problems
        assert "no encryption key opens" in problem
        assert problem.endswith(": list that key in credentials.previous_keys")


def test_many_pages_are_walked_and_told(trail: M9M, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_m9m.audit.verification._PAGE", 3)
    told: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        told.append((done, total))

    assert trail.audit.verify(progress=progress).holds
    assert told[-1] == (10, 10)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


@SQLITE
def test_a_row_that_is_no_text_is_named(audited: Audited) -> None:
    app, m9m = audited()
    with app.app_context():
        for _ in range(5):
            m9m.audit.record("counted", subject="alice")
        tamper(sa.text("UPDATE m9m_audit SET subject = CAST(x'ff61' AS TEXT) WHERE seq = 3"))
        assert list(m9m.audit.verify().problems) == ["row 3 was changed: it cannot be read"]
