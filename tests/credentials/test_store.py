"""The credential store: kept encrypted, bound, and for its owner."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from flask_m9m import Identity
from flask_m9m.credentials import SYSTEM
from flask_m9m.errors import (
    AccessDenied,
    DecryptionFailed,
    NotFound,
    SettingsError,
    UnresolvedVariable,
)
from flask_m9m.storage import tables
from flask_m9m.testing import Clock

from .conftest import Kept, new_key
from .encryption.independent import aead_envelope

Storage = dict[str, Any]
DATA = {"apiKey": "sk-12345", "region": "eu", "nested": {"deep": ["x", 1, None, True]}}
ANN, BOB = Identity("ann", "bearer"), Identity("bob", "bearer")
OCTETS, SALT = bytes(range(32)), bytes(range(32, 64))
FROZEN_CANARY = (
    "m9m:1:b6a31bd4:ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj_WqMmuXU_q9cQVjFEaI623"
    "EVNtkDE9P8XNy9ZvNJjKQC2iRtyYtWQgdTFDc3SzqcF4sn7OkVKzkwlx25YrOJnuys64F3gJo8ZzAqQ"
)
ADMIN = Identity("root", "bearer", roles=frozenset(["admin"]))


def test_a_credential_is_kept_and_given_back(storage: Storage, keep: Kept, key: str) -> None:
    app, m9m = keep(storage, key)
    with app.app_context():
        made = m9m.credentials.create("Slack", "apiKey", DATA)
        found = m9m.credentials.get(made.id)
        assert found.data == DATA
        assert (found.name, found.type, found.owner) == ("Slack", "apiKey", None)
        assert "sk-12345" not in repr(found)
        assert m9m.credentials.list() == [made]
        assert not hasattr(made, "data")


def test_what_changes_is_kept_and_what_is_deleted_is_gone(
    storage: Storage, keep: Kept, key: str, clock: Clock
) -> None:
    app, m9m = keep(storage, key)
    with app.app_context():
        made = m9m.credentials.create("Slack", "apiKey", DATA)
        clock.advance(5.0)
        changed = m9m.credentials.update(made.id, name="Other", data={"apiKey": "new"})
        assert (changed.updated_at - made.updated_at).total_seconds() == 5
        found = m9m.credentials.get(made.id)
        assert (found.name, found.data, found.created_at) == (
            "Other",
            {"apiKey": "new"},
            made.created_at,
        )
        m9m.credentials.update(made.id, name="Third")
        assert m9m.credentials.get(made.id).data == {"apiKey": "new"}
        m9m.credentials.delete(made.id)
        for call in (m9m.credentials.get, m9m.credentials.delete, m9m.credentials.update):
            with pytest.raises(NotFound):
                call(made.id)
        assert m9m.credentials.list() == []


def test_only_those_of_one_type_are_listed(storage: Storage, keep: Kept, key: str) -> None:
    app, m9m = keep(storage, key)
    m9m.credential_type("acme", ["token"])
    with app.app_context():
        m9m.credentials.create("a", "apiKey", DATA)
        acme = m9m.credentials.create("b", "acme", {"token": "x"})
        assert m9m.credentials.list(type="acme") == [acme]
        assert m9m.credentials.list(type="none") == []


def test_anothers_credential_does_not_exist(
    storage: Storage, keep: Kept, key: str, clock: Clock
) -> None:
    app, m9m = keep(storage, key)
    with app.app_context():
        anns = m9m.credentials.create("a", "apiKey", DATA, caller=ANN)
        clock.advance(1.0)
        apps = m9m.credentials.create("b", "apiKey", DATA)
        assert anns.owner == "ann"
        assert m9m.credentials.list(caller=ANN) == [anns]
        assert m9m.credentials.get(anns.id, caller=ANN).data == DATA
        for hidden, caller in ((anns, BOB), (anns, None), (apps, ANN), (apps, None)):
            for call in (m9m.credentials.get, m9m.credentials.update, m9m.credentials.delete):
                with pytest.raises(NotFound):
                    call(hidden.id, caller=caller)
            assert hidden not in m9m.credentials.list(caller=caller)
        for caller in (ADMIN, SYSTEM):
            assert m9m.credentials.list(caller=caller) == [anns, apps]
            assert m9m.credentials.get(apps.id, caller=caller).data == DATA


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 300])
def test_a_caller_whose_name_nobody_can_have_owns_nothing(
    storage: Storage, keep: Kept, key: str, name: str
) -> None:
    app, m9m = keep(storage, key)
    nameless = Identity(name, "device", roles=frozenset(["admin"]))
    with app.app_context():
        made = m9m.credentials.create("the app's", "apiKey", DATA)
        assert m9m.credentials.list(caller=nameless) == []
        for call in (m9m.credentials.get, m9m.credentials.info, m9m.credentials.delete):
            with pytest.raises(NotFound):
                call(made.id, caller=nameless)
        with pytest.raises(AccessDenied):
            m9m.credentials.create("x", "apiKey", DATA, caller=nameless)


def test_what_is_known_of_a_credential_is_told_without_a_key(
    database_url: str, keep: Kept, key: str
) -> None:
    storage = {"database": {"url": database_url}}
    app, m9m = keep(storage, key)
    with app.app_context():
        made = m9m.credentials.create("x", "apiKey", DATA, "ann")
    other, theirs = keep(storage, new_key())
    with other.app_context():
        assert theirs.credentials.info(made.id, caller=ANN) == made
        with pytest.raises(NotFound):
            theirs.credentials.info(made.id, caller=BOB)


def test_nobody_makes_one_for_another(storage: Storage, keep: Kept, key: str) -> None:
    app, m9m = keep(storage, key)
    with app.app_context():
        for caller, owner in ((ANN, "bob"), (None, None), (None, "ann")):
            with pytest.raises(AccessDenied):
                m9m.credentials.create("x", "apiKey", DATA, owner=owner, caller=caller)
        assert m9m.credentials.create("x", "apiKey", DATA, "bob", caller=ADMIN).owner == "bob"
        assert m9m.credentials.create("x", "apiKey", DATA, "ann", caller=ANN).owner == "ann"


def test_inside_a_request_its_caller_asks(
    storage: Storage, keep: Kept, key: str, clock: Clock
) -> None:
    from flask_m9m import require_auth
    from flask_m9m.testing import client_as

    app, m9m = keep(storage, key)

    @app.get("/mine")
    @require_auth(optional=True)
    def mine() -> Any:
        return [one.name for one in m9m.credentials.list()]

    with app.app_context():
        m9m.credentials.create("the app's", "apiKey", DATA)
        clock.advance(1.0)
        m9m.credentials.create("ann's", "apiKey", DATA, owner="ann")
    assert app.test_client().get("/mine").json == []
    assert client_as(app, "ann").get("/mine").json == ["ann's"]
    assert client_as(app, "root", roles=["admin"]).get("/mine").json == ["the app's", "ann's"]


@pytest.mark.parametrize(
    ("name", "type", "data"),
    [
        ("", "apiKey", DATA),
        ("x" * 256, "apiKey", DATA),
        ("a\nb", "apiKey", DATA),
        ("x", "unknown", DATA),
        ("x", "apiKey", {}),
        ("x", "apiKey", {"apiKey": ""}),
        ("x", "apiKey", {"apiKey": None}),
        ("x", "apiKey", {"apiKey": float("nan")}),
        ("x", "apiKey", {"apiKey": b"octets"}),
        ("x", "apiKey", {"apiKey": "x", 7: "y"}),
        ("x", "apiKey", {"apiKey": "\ud800"}),
        ("x", "apiKey", {"apiKey": "x" * 1_048_576}),
        ("x", "basicAuth", {"username": "u"}),
        ("x", "apiKey", [DATA]),
        ("x", ["apiKey"], DATA),
    ],
)
def test_what_is_no_credential_is_refused(
    keep: Kept, key: str, name: str, type: str, data: Any
) -> None:
    app, m9m = keep({"credentials": {"storage": "memory"}}, key)
    with app.app_context():
        with pytest.raises(ValueError, match="credential"):
            m9m.credentials.create(name, type, data)
        assert m9m.credentials.list() == []


def test_a_type_is_registered_once() -> None:
    from flask_m9m import M9M

    m9m = M9M()
    m9m.credential_type("acme", ["token"])
    for name in ("acme", "apiKey", "", "1x", "a b", "x" * 65):
        with pytest.raises(ValueError, match="credential type"):
            m9m.credential_type(name)


def test_an_apps_checker_tries_a_credential(keep: Kept, key: str) -> None:
    app, m9m = keep({"credentials": {"storage": "memory"}}, key)

    @m9m.credential_checker("apiKey")
    def check(credential: Any) -> str:
        return f"tried {credential.data['apiKey']}"

    with app.app_context():
        made = m9m.credentials.create("x", "apiKey", {"apiKey": "k"})
        assert m9m.credentials.test(made.id) == "tried k"
        other = m9m.credentials.create("x", "slackApi", {"accessToken": "k"})
        with pytest.raises(NotFound):
            m9m.credentials.test(other.id)


def test_variables_are_resolved_only_where_that_was_asked_for(
    keep: Kept, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ACME_TOKEN", "M9M_TOKEN", "N8N_TOKEN", "SECRET_TOKEN"):
        monkeypatch.setenv(name, f"the value of {name}")
    app, m9m = keep(
        {"credentials": {"storage": "memory"}},
        key,
        environment=["ACME_TOKEN", "MISSING"],
    )
    data = {"apiKey": "Bearer ${ACME_TOKEN}", "list": ["${ACME_TOKEN}"]}
    with app.app_context():
        literal = m9m.credentials.create("x", "apiKey", data)
        assert m9m.credentials.get(literal.id).data == data
        dynamic = m9m.credentials.create("x", "apiKey", data, resolve=True)
        assert m9m.credentials.get(dynamic.id).data == {
            "apiKey": "Bearer the value of ACME_TOKEN",
            "list": ["the value of ACME_TOKEN"],
        }
        for name in ("SECRET_TOKEN", "M9M_TOKEN", "N8N_TOKEN", "MISSING", ""):
            made = m9m.credentials.create("x", "apiKey", {"apiKey": f"${{{name}}}"}, resolve=True)
            with pytest.raises(UnresolvedVariable) as caught:
                m9m.credentials.get(made.id)
            assert "value of" not in str(caught.value)


# What stands in the database


def rows(app: Any) -> list[Any]:
    with app.extensions["m9m"].database._connected().connect() as connection:
        return list(connection.execute(sa.select(tables.credentials)))


def change(app: Any, row_id: str, **values: Any) -> None:
    with app.extensions["m9m"].database._connected().begin() as connection:
        same = tables.credentials.c.id == row_id
        connection.execute(sa.update(tables.credentials).where(same).values(**values))


def test_the_database_tells_no_secret(
    database_url: str, keep: Kept, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    app, m9m = keep({"database": {"url": database_url}}, key)
    with app.app_context():
        made = m9m.credentials.create("x", "apiKey", DATA)
        m9m.credentials.get(made.id)
    assert "sk-12345" not in repr(rows(app)) + caplog.text
    assert rows(app)[0].envelope.startswith("m9m:1:")


@pytest.mark.parametrize("cipher", ["aes-256-gcm", "fernet"])
def test_two_rows_that_are_swapped_do_not_open(
    database_url: str, keep: Kept, key: str, cipher: str
) -> None:
    app, m9m = keep({"database": {"url": database_url}}, key, cipher=cipher)
    with app.app_context():
        one = m9m.credentials.create("x", "apiKey", {"apiKey": "one"})
        other = m9m.credentials.create("x", "apiKey", {"apiKey": "other"})
        envelopes = {row.id: row.envelope for row in rows(app)}
        change(app, one.id, envelope=envelopes[other.id])
        change(app, other.id, envelope=envelopes[one.id])
        for made in (one, other):
            with pytest.raises(DecryptionFailed, match="cipher: message authentication failed"):
                m9m.credentials.get(made.id)


@pytest.mark.parametrize("column", ["type", "owner", "id"])
def test_a_row_that_is_made_anothers_does_not_open(
    database_url: str, keep: Kept, key: str, column: str
) -> None:
    app, m9m = keep({"database": {"url": database_url}}, key)
    with app.app_context():
        made = m9m.credentials.create("x", "apiKey", DATA, owner="ann")
        change(app, made.id, **{column: "basicAuth" if column == "type" else "bob"})
        found = "bob" if column == "id" else made.id
        with pytest.raises(DecryptionFailed):
            m9m.credentials.get(found)


def test_a_key_that_records_need_is_not_dropped_silently(
    database_url: str, keep: Kept, key: str
) -> None:
    storage = {"database": {"url": database_url}}
    app, m9m = keep(storage, key)
    with app.app_context():
        for _ in range(3):
            m9m.credentials.create("x", "apiKey", DATA)
        (needed,) = m9m.cipher.keys.ids
    before = rows(app)
    wrong, theirs = keep(storage, new_key())
    with wrong.app_context():
        for call in (
            lambda: theirs.credentials.create("x", "apiKey", DATA),
            lambda: theirs.credentials.get(before[0].id),
            lambda: theirs.credentials.update(before[0].id, name="y"),
            theirs.credentials.rotate,
        ):
            with pytest.raises(SettingsError, match=f"3 credentials need the key {needed}"):
                call()
    assert rows(app) == before
    right, ours = keep(storage, new_key(), [key])
    with right.app_context():
        assert ours.credentials.get(before[0].id).data == DATA


def test_a_canary_tells_a_key_of_the_right_id_that_is_the_wrong_one(
    database_url: str, keep: Kept, key: str
) -> None:
    storage = {"database": {"url": database_url}}
    app, m9m = keep(storage, key)
    with app.app_context():
        m9m.credentials.create("x", "apiKey", DATA)
        with app.extensions["m9m"].database._connected().begin() as connection:
            bad = m9m.cipher.encrypt(b"something else")
            connection.execute(sa.update(tables.canaries).values(envelope=bad))
    again, theirs = keep(storage, key)
    with again.app_context(), pytest.raises(SettingsError, match="does not decrypt its canary"):
        theirs.credentials.get("x")


def test_a_canary_is_frozen_byte_for_byte(
    database_url: str, keep: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = aead_envelope(OCTETS, SALT, b"flask-m9m credential canary", b"", b"", b"", b"")
    assert written == FROZEN_CANARY
    known = SimpleNamespace(urandom=lambda size: SALT[:size])
    monkeypatch.setattr("flask_m9m.credentials.encryption.aead.os", known)
    app, m9m = keep({"database": {"url": database_url}}, OCTETS.hex())
    with app.app_context():
        m9m.credentials.create("x", "apiKey", DATA)
    with app.extensions["m9m"].database._connected().connect() as connection:
        assert connection.execute(sa.select(tables.canaries)).all() == [("b6a31bd4", FROZEN_CANARY)]


def test_a_canary_of_the_past_is_recognised(database_url: str, keep: Kept) -> None:
    storage = {"database": {"url": database_url}}
    app, m9m = keep(storage, OCTETS.hex())
    with app.app_context():
        made = m9m.credentials.create("x", "apiKey", DATA)
    with app.extensions["m9m"].database._connected().begin() as connection:
        connection.execute(sa.update(tables.canaries).values(envelope=FROZEN_CANARY))
    again, ours = keep(storage, OCTETS.hex())
    with again.app_context():
        assert ours.credentials.get(made.id).data == DATA


def test_without_a_key_the_error_says_what_to_do(storage: Storage) -> None:
    from flask import Flask

    from flask_m9m import M9M
    from flask_m9m.testing import make_settings

    app = Flask("app")
    m9m = M9M(app, settings=make_settings(storage))
    with app.app_context(), pytest.raises(SettingsError, match="M9M_ENCRYPTION_KEY"):
        m9m.credentials.create("x", "apiKey", DATA)
    app.extensions["m9m"].database.close()


def test_a_row_that_is_made_to_resolve_does_not_open(
    database_url: str, keep: Kept, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACME_TOKEN", "the value")
    app, m9m = keep({"database": {"url": database_url}}, key, environment=["ACME_TOKEN"])
    with app.app_context():
        made = m9m.credentials.create("x", "apiKey", {"apiKey": "${ACME_TOKEN}"})
        change(app, made.id, resolve=True)
        with pytest.raises(DecryptionFailed):
            m9m.credentials.get(made.id)


def test_a_row_that_is_none_of_ours_does_not_open_and_stops_no_rotation(
    database_url: str, keep: Kept, key: str
) -> None:
    storage = {"database": {"url": database_url}}
    app, m9m = keep(storage, key)
    with app.app_context():
        bad, good = (m9m.credentials.create("x", "apiKey", DATA) for _ in range(2))
        change(app, bad.id, type="")
        with pytest.raises(DecryptionFailed):
            m9m.credentials.get(bad.id)
    app, m9m = keep(storage, new_key(), [key])
    with app.app_context():
        result = m9m.credentials.rotate()
        assert (result.resealed, list(result.unreadable)) == (1, [bad.id])
        assert m9m.credentials.get(good.id).data == DATA


def test_a_key_that_an_envelope_needs_is_told_whatever_stands_beside_it(
    database_url: str, keep: Kept, key: str
) -> None:
    storage, following = {"database": {"url": database_url}}, new_key()
    app, m9m = keep(storage, key)
    with app.app_context():
        made, old = m9m.credentials.create("x", "apiKey", DATA), m9m.cipher.keys.primary.id
    app, m9m = keep(storage, following, [key])
    with app.app_context():
        change(app, made.id, sealed_with=m9m.cipher.seal)
        assert m9m.credentials.rotate().keys_in_use == {old: 1}


def test_a_name_is_its_owners_however_it_is_typed(storage: Storage, keep: Kept, key: str) -> None:
    app, m9m = keep(storage, key)
    typed = Identity("Zoe\u0308" + "e\u0301" * 150, "device")
    with app.app_context():
        made = m9m.credentials.create("x", "apiKey", DATA, typed.subject, caller=typed)
        assert made.owner == "Zo\u00eb" + "\u00e9" * 150
        assert m9m.credentials.list(caller=typed) == [made]


def test_a_list_reads_no_envelopes(database_url: str, keep: Kept, key: str) -> None:
    app, m9m = keep({"database": {"url": database_url}}, key)
    with app.app_context():
        m9m.credentials.create("x", "apiKey", DATA)
    found = app.extensions["m9m"].database.read(
        lambda transaction: transaction.credentials.all(envelopes=False)
    )
    assert [one.envelope for one in found] == [""]


def test_what_is_no_variables_name_is_not_repeated(keep: Kept, key: str) -> None:
    app, m9m = keep({"credentials": {"storage": "memory"}}, key)
    with app.app_context():
        made = m9m.credentials.create("x", "apiKey", {"apiKey": "p${w0rd-secret}x"}, resolve=True)
        with pytest.raises(UnresolvedVariable) as caught:
            m9m.credentials.get(made.id)
    assert "w0rd" not in str(caught.value)
