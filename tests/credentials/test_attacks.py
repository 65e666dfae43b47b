"""Attacks on stored credentials, by callers and by whoever can write to the database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask, request

from flask_m9m import Identity, current_identity, require_auth
from flask_m9m.audit import Event
from flask_m9m.credentials import MemoryCredentialStore, rotation
from flask_m9m.credentials.encryption.encryption_keys import EncryptionKey
from flask_m9m.credentials.variables import resolve_variables
from flask_m9m.errors import DecryptionFailed, NotFound, SettingsError, UnresolvedVariable
from flask_m9m.signals import access_denied, credential_changed
from flask_m9m.storage import Envelope, tables
from flask_m9m.testing import client_as

from .conftest import Kept, new_key

Storage = dict[str, Any]
DATA = {"apiKey": "sk-12345"}


def execute(app: Flask, statement: sa.Executable) -> Any:
    """Do what somebody with access to the database could."""
    with app.extensions["m9m"].database._connected().begin() as connection:
        return connection.execute(statement)


def envelope_of(app: Flask, credential_id: str) -> str:
    where = tables.credentials.c.id == credential_id
    query = sa.select(tables.credentials.c.envelope).where(where)
    with app.extensions["m9m"].database._connected().connect() as connection:
        return str(connection.execute(query).scalar_one())


@pytest.mark.parametrize("cipher", ["aes-256-gcm", "fernet"])
def test_a_records_envelope_and_an_apps_field_do_not_stand_for_each_other(
    database_url: str, keep: Kept, key: str, cipher: str
) -> None:
    app, m9m = keep({"database": {"url": database_url}}, key, cipher=cipher)
    with app.app_context():
        made = m9m.credentials.create("a", "apiKey", DATA)
        kept = envelope_of(app, made.id)
        for bound_to in (b"", made.id.encode(), f"{made.id}apiKey".encode()):
            with pytest.raises(DecryptionFailed):
                m9m.cipher.decrypt(kept, bound_to)
        planted = m9m.cipher.encrypt(b'{"apiKey":"planted"}', made.id.encode())
        execute(app, sa.update(tables.credentials).values(envelope=planted))
        with pytest.raises(DecryptionFailed):
            m9m.credentials.get(made.id)


def test_a_canary_that_is_planted_for_an_unknown_key_stops_nothing(
    database_url: str, keep: Kept, key: str
) -> None:
    app, m9m = keep({"database": {"url": database_url}}, key)
    with app.app_context():
        made = m9m.credentials.create("a", "apiKey", DATA)
        execute(app, sa.insert(tables.canaries).values(key_id="00000000", envelope="m9m:1:no"))
    app, m9m = keep({"database": {"url": database_url}}, new_key(), [key])
    with app.app_context():
        assert m9m.credentials.rotate().resealed == 1
        assert m9m.credentials.get(made.id).data == DATA


def test_a_record_of_an_invented_key_is_named_and_no_row_is_touched(
    database_url: str, keep: Kept, key: str
) -> None:
    app, m9m = keep({"database": {"url": database_url}}, key)
    with app.app_context():
        first = m9m.credentials.create("a", "apiKey", DATA)
        second = m9m.credentials.create("b", "apiKey", DATA)
    planted = {"envelope": "m9m:1:00000000:AAAA", "sealed_with": "m9m:1:00000000"}
    where = tables.credentials.c.id == second.id
    execute(app, sa.update(tables.credentials).where(where).values(planted))
    app, m9m = keep({"database": {"url": database_url}}, new_key(), [key])
    with app.app_context():
        before = envelope_of(app, first.id)
        with pytest.raises(SettingsError, match="1 credentials need the key 00000000"):
            m9m.credentials.rotate()
        assert envelope_of(app, first.id) == before
        m9m.credentials.delete(second.id)  # which needs no key, and is the way out
        assert m9m.credentials.rotate().resealed == 1


def test_what_is_deleted_during_a_rotation_stays_deleted(
    storage: Storage, keep: Kept, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, m9m = keep(storage, key)
    with app.app_context():
        made = [m9m.credentials.create(str(n), "apiKey", DATA).id for n in range(3)]
        replace = rotation.Rotation._replace

        def delete_first(self: rotation.Rotation, rows: Sequence[Envelope]) -> None:
            if made[0] in [row.id for row in rows]:
                m9m.credentials.delete(made[0])
            replace(self, rows)

        monkeypatch.setattr(rotation.Rotation, "_replace", delete_first)
        settings = app.extensions["m9m"].loaded.settings.credentials
        other = type(m9m.cipher)(settings.model_copy(update={"cipher": "fernet"}))
        assert m9m.credentials.rotate(cipher=other).resealed == 2
        with pytest.raises(NotFound):
            m9m.credentials.get(made[0])
        assert [m9m.credentials.get(one).data for one in made[1:]] == [DATA, DATA]


def test_rotations_that_run_at_once_reseal_each_record_once(
    database_url: str, keep: Kept, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "_BATCH", 5)
    storage, new = {"database": {"url": database_url}}, new_key()
    app, m9m = keep(storage, key)
    with app.app_context():
        made = [m9m.credentials.create(str(n), "apiKey", DATA).id for n in range(60)]
    others = [keep(storage, new, [key]) for _ in range(3)]

    def rotate(number: int) -> int:
        app, m9m = others[number]
        with app.app_context():
            return m9m.credentials.rotate().resealed

    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(rotate, range(3))) == 60
    app, m9m = keep(storage, new)
    with app.app_context():
        assert all(m9m.credentials.get(one).data == DATA for one in made)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${A}", "${B}"),  # what a variable holds is not looked at again
        ("$${A}", "$${B}"),
        ("${${A}}", "${${B}}"),
        ("${A", "${A"),
        ("$A", "$A"),
        ("{A}", "{A}"),
    ],
)
def test_variables_are_replaced_once(text: str, expected: str) -> None:
    assert resolve_variables({"x": [text]}, {"A", "B"}, {"A": "${B}", "B": "b"}) == {
        "x": [expected]
    }


@pytest.mark.parametrize(
    "name", ["a", "", " A", "A ", "A\n", "\N{FULLWIDTH LATIN CAPITAL LETTER A}", "A:-x"]
)
def test_a_name_that_only_looks_like_one_that_may_be_read_is_none(name: str) -> None:
    with pytest.raises(UnresolvedVariable):
        resolve_variables(f"${{{name}}}", {"A"}, {"A": "x", name: "x"})


@pytest.mark.parametrize("name", ["M9M_ENCRYPTION_KEY", "m9m_x", "N8N_ENCRYPTION_KEY", "n8N_x"])
def test_our_own_variables_are_not_read_even_where_they_are_listed(name: str) -> None:
    with pytest.raises(UnresolvedVariable):
        resolve_variables(f"${{{name}}}", {name}, {name: "x"})


@pytest.mark.parametrize("depth", [300, 990, 5_000, 20_000, 90_000])
def test_whatever_nesting_is_kept_is_read_and_exported_too(
    keep: Kept, key: str, depth: int
) -> None:
    nested: list[Any] = []
    for _ in range(depth):
        nested = [nested]
    app, m9m = keep({"credentials": {"storage": "memory"}}, key)
    with app.app_context():
        try:
            made = m9m.credentials.create("a", "apiKey", {**DATA, "nested": nested})
        except ValueError:
            assert m9m.credentials.list() == []
            return
        assert m9m.credentials.get(made.id).data["apiKey"] == "sk-12345"
        assert len(m9m.credentials.export_n8n("k")) == 1


def test_owners_that_look_alike_are_not_one(storage: Storage, keep: Kept, key: str) -> None:
    subjects = ["ann", "Ann", "ann ", "\N{LATIN SMALL LETTER A WITH RING ABOVE}nn"]
    subjects += ["\N{CYRILLIC SMALL LETTER A}nn", "the app", "None", "%", "_nn"]
    app, m9m = keep(storage, key)
    with app.app_context():
        apps = m9m.credentials.create("app", "apiKey", DATA)
        callers = [Identity(one, "bearer", scopes=frozenset(["admin"])) for one in subjects]
        made = [m9m.credentials.create("x", "apiKey", DATA, caller=one) for one in callers]
        for caller, own in zip(callers, made, strict=True):
            assert m9m.credentials.list(caller=caller) == [own]
            for other in (apps, *made):
                if other != own:
                    with pytest.raises(NotFound):
                        m9m.credentials.get(other.id, caller=caller)


def test_nothing_piles_up_in_a_key_however_much_it_seals(keep: Kept, key: str) -> None:
    app, m9m = keep({"credentials": {"storage": "memory"}}, key)
    with app.app_context():
        for number in range(100):
            sealed = m9m.cipher.encrypt(b"x", str(number).encode())
            m9m.cipher.decrypt(sealed, str(number).encode())
        primary: EncryptionKey = m9m.cipher.keys.primary
        assert len(primary._derived) <= 3


def test_a_change_that_fails_in_the_middle_leaves_memory_as_it_was() -> None:
    store = MemoryCredentialStore()

    def fail() -> None:
        with store.write() as transaction:
            transaction.rows.add_canary("00000000", "x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert store.read(lambda rows: rows.canaries()) == {}


def test_who_asks_is_whoever_sends_the_request_wherever_the_query_runs(
    storage: dict[str, Any], keep: Kept, key: str
) -> None:
    app, m9m = keep(storage, key)

    @app.route("/c/<which>", methods=["GET", "PUT", "DELETE"])
    @require_auth
    def one(which: str) -> Any:
        if request.method == "PUT":
            return m9m.credentials.update(which, name="taken").name
        if request.method == "DELETE":
            m9m.credentials.delete(which)
            return "deleted"
        return {**m9m.credentials.get(which).data, "name": m9m.credentials.info(which).name}

    with app.app_context():
        data = {"apiKey": "of alice"}
        which = m9m.credentials.create("a", "apiKey", data, owner="alice").id
    mallory, alice = client_as(app, "mallory"), client_as(app, "alice")
    for method in ("GET", "PUT", "DELETE"):
        assert mallory.open(f"/c/{which}", method=method).status_code == 404, method
    assert alice.get(f"/c/{which}").json == {"apiKey": "of alice", "name": "a"}
    assert alice.delete(f"/c/{which}").status_code == 200


def test_nobody_is_kept_waiting_by_a_receiver_that_writes(
    storage: dict[str, Any], keep: Kept, key: str
) -> None:
    app, m9m = keep(storage, key)
    with app.app_context():
        which = m9m.credentials.create("a", "apiKey", DATA, owner="alice").id
    kept = []

    def receive(sender: Flask, event: Event) -> None:
        kept.append(m9m.credentials.create(event.name, "apiKey", DATA, owner="watch").id)

    mallory = Identity("mallory", "bearer")
    with app.app_context(), access_denied.connected_to(receive, app):
        with pytest.raises(NotFound):
            m9m.credentials.update(which, name="taken", caller=mallory)
        with pytest.raises(NotFound):
            m9m.credentials.delete(which, caller=mallory)
        owners = [one.owner for one in m9m.credentials.list()]
    assert len(kept) == 2
    assert sorted(owners) == ["alice", "watch", "watch"]


def test_what_a_receiver_keeps_stays(storage: dict[str, Any], keep: Kept, key: str) -> None:
    app, m9m = keep(storage, key)

    def receive(sender: Flask, event: Event) -> None:
        if len(m9m.credentials.list()) == 1:
            m9m.credentials.create("inner", "apiKey", DATA)

    with app.app_context(), credential_changed.connected_to(receive, app):
        m9m.credentials.create("outer", "apiKey", DATA)
        assert sorted(one.name for one in m9m.credentials.list()) == ["inner", "outer"]


def test_a_row_that_was_given_to_somebody_else_is_not_sealed_anew_for_them(
    database_url: str, keep: Kept, key: str
) -> None:
    app, m9m = keep({"database": {"url": database_url}}, key)
    mallory = Identity("mallory", "bearer")
    with app.app_context():
        made = m9m.credentials.create("a", "apiKey", DATA)
        before = envelope_of(app, made.id)
        execute(app, sa.update(tables.credentials).values(owner="mallory"))
        with pytest.raises(DecryptionFailed):
            m9m.credentials.update(made.id, data={"apiKey": "planted"}, caller=mallory)
        assert envelope_of(app, made.id) == before


def test_a_record_that_was_made_up_is_not_sealed_anew_as_the_key_of_the_trail(
    database_url: str, keep: Kept, key: str
) -> None:
    app, m9m = keep({"database": {"url": database_url}}, key)
    with app.app_context():
        made = m9m.credentials.create("a", "apiKey", DATA)
        execute(app, sa.update(tables.credentials).values(id="audit", type="flask-m9m audit key"))
        with pytest.raises(DecryptionFailed):
            m9m.credentials.update("audit", data={"apiKey": "known"})
        with pytest.raises(NotFound):
            m9m.credentials.info(made.id)


def test_a_caller_that_another_app_knows_is_nobody_here(
    database_url: str, keep: Kept, key: str
) -> None:
    app, m9m = keep({"database": {"url": database_url}}, key)
    other, other_m9m = keep({"database": {"url": database_url}}, key)
    with other.app_context():
        theirs = other_m9m.credentials.create("theirs", "apiKey", DATA, owner="ann").id

    @app.get("/x")
    @require_auth
    def view() -> list[Any]:
        with other.app_context():
            found: list[Any] = [len(other_m9m.credentials.list())]
            try:
                found.append(other_m9m.credentials.get(theirs).data)
            except NotFound:
                found.append(None)
        return [*found, len(m9m.credentials.list())]

    with app.app_context():
        m9m.credentials.create("own", "apiKey", DATA, owner="ann")
    assert client_as(app, "ann").get("/x").json == [0, None, 2]  # they share a database
    assert client_as(app, "boss", roles=["admin"]).get("/x").json == [
        0,
        None,
        2,
    ]  # they share a database


def test_the_current_identity_itself_may_be_named_as_the_caller(
    storage: Storage, keep: Kept, key: str
) -> None:
    app, m9m = keep(storage, key)
    with app.app_context():
        which = m9m.credentials.create("a", "apiKey", DATA, owner="ann").id

    @app.get("/<which>")
    @require_auth(optional=True)
    def view(which: str) -> Any:
        return m9m.credentials.get(which, caller=current_identity).data

    assert client_as(app, "ann").get(f"/{which}").json == DATA
    for client in (client_as(app, "bob"), app.test_client()):
        assert [client.get(path).status_code for path in (f"/{which}", "/no")] == [404, 404]


def test_what_a_request_was_given_asks_for_its_caller_in_other_threads_and_later(
    storage: Storage, keep: Kept, key: str
) -> None:
    app, m9m = keep(storage, key)
    with app.app_context():
        which = m9m.credentials.create("a", "apiKey", DATA, owner="ann").id

    @app.get("/thread")
    @require_auth
    def in_a_thread() -> Any:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(m9m.credentials.get, which).result().data

    @app.get("/stream")
    @require_auth
    def while_it_streams() -> Any:
        store = m9m.credentials

        def stream() -> Iterator[str]:
            try:
                yield store.get(which).data["apiKey"]
            except NotFound:
                yield "nothing"

        return stream()

    ann, mallory = client_as(app, "ann"), client_as(app, "mallory")
    assert [client.get("/thread").status_code for client in (ann, mallory)] == [200, 404]
    assert [client.get("/stream").text for client in (ann, mallory)] == ["sk-12345", "nothing"]
