"""Imports from n8n and m9m, and exports to n8n."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from flask_m9m import M9M, Identity
from flask_m9m.credentials import SYSTEM, Imported, imports
from flask_m9m.credentials.n8n_format import write_old
from flask_m9m.errors import AccessDenied, DecryptionFailed, SettingsError, UnreadableImport
from flask_m9m.storage import tables

from .conftest import Kept, new_key

Storage = dict[str, Any]
CASES = json.loads((Path(__file__).with_name("n8n-samples.json")).read_text())["cases"]
OBJECTS = [case for case in CASES if case["plaintextName"] == "json"]
OTHERS = [case for case in CASES if case["plaintextName"] != "json"]
DATA = {"accessToken": "ghp_0123456789abcdef", "nested": {"a": [1, 2, 3]}, "ok": True}
KEY = "test_key"
DOES_NOT_OPEN = "the instance key does not match"


def label(case: dict[str, Any]) -> str:
    return f"{case['producer']} {case['format']} {case['keyName']}"


def entry(name: str = "GitHub", **changed: Any) -> dict[str, Any]:
    """Return a record as n8n exports it."""
    return {
        "createdAt": "2024-05-01T10:00:00.000Z",
        "updatedAt": "2024-05-01T10:00:00.000Z",
        "id": "Ox8O54VQrmBrb4qL",
        "name": name,
        "data": dict(DATA),
        "type": "githubApi",
        "isManaged": False,
        **changed,
    }


def deployment_key(case: dict[str, Any]) -> list[dict[str, Any]]:
    if "dekId" not in case:
        return []
    row = {"id": case["dekId"], "value": case["wrappedDek"], "algorithm": "aes-256-gcm"}
    return [{**row, "type": "data_encryption", "status": "active"}]


def everything(app: Flask) -> str:
    """Return a hash of all rows of all tables."""
    digest = hashlib.sha256()
    with app.extensions["m9m"].database._connected().connect() as connection:
        for table in tables.metadata.sorted_tables:
            digest.update(repr(list(connection.execute(sa.select(table)))).encode())
    return digest.hexdigest()


def reasons(result: Imported) -> dict[str, str]:
    return {one.name: one.reason for one in result.unreadable}


@pytest.fixture
def kept(keep: Kept, key: str) -> tuple[Flask, M9M]:
    return keep({"credentials": {"storage": "memory"}}, key)


# Both of n8n's forms, and plain data


@pytest.mark.parametrize("case", OBJECTS, ids=label)
def test_what_n8n_encrypted_is_imported(storage: Storage, keep: Kept, key: str, case: Any) -> None:
    app, m9m = keep(storage, key)
    records = [entry(data=case["ciphertext"])]
    with app.app_context():
        result = m9m.credentials.import_n8n(records, case["instanceKey"], deployment_key(case))
        assert (result.skipped, result.unreadable) == ([], [])
        (made,) = result.imported
        assert (made.name, made.id, made.type) == ("GitHub", "Ox8O54VQrmBrb4qL", "githubApi")
        found = m9m.credentials.get(made.id)
        assert found.data == DATA
        assert (found.owner, found.resolve, found.type) == (None, False, "githubApi")


@pytest.mark.parametrize("case", OTHERS, ids=label)
def test_what_is_no_object_is_unreadable(kept: tuple[Flask, M9M], case: Any) -> None:
    app, m9m = kept
    with app.app_context():
        result = m9m.credentials.import_n8n(
            [entry(data=case["ciphertext"])], case["instanceKey"], deployment_key(case)
        )
        assert DOES_NOT_OPEN in reasons(result)["GitHub"]
        assert m9m.credentials.list() == []


def test_decrypted_records_need_no_key_and_encrypted_ones_do(kept: tuple[Flask, M9M]) -> None:
    app, m9m = kept
    old = entry("old", id="2", data=OBJECTS[0]["ciphertext"])
    with app.app_context():
        result = m9m.credentials.import_n8n([entry("plain", id="1"), old])
        assert [one.name for one in result.imported] == ["plain"]
        assert reasons(result) == {
            "old": "n8n: the data is encrypted; give the key (N8N_ENCRYPTION_KEY)"
        }
        assert m9m.credentials.get("1").data == DATA


@pytest.mark.parametrize("case", OBJECTS, ids=label)
def test_a_wrong_key_accepts_nothing(kept: tuple[Flask, M9M], case: Any) -> None:
    app, m9m = kept
    records = [entry(str(n), id=str(n), data=case["ciphertext"]) for n in range(20)]
    with app.app_context():
        for _ in range(20):
            wrong = secrets.token_urlsafe(24)
            result = m9m.credentials.import_n8n(records, wrong, deployment_key(case))
            assert len(result.unreadable) == 20
        assert m9m.credentials.list() == []


def test_rows_that_are_no_data_keys_are_passed_over(kept: tuple[Flask, M9M]) -> None:
    app, m9m = kept
    case = next(case for case in OBJECTS if "dekId" in case)
    other = {"id": "x", "type": "signing.jwt", "value": "…", "algorithm": None}
    with app.app_context():
        rows = [other, *deployment_key(case)]
        result = m9m.credentials.import_n8n(
            [entry(data=case["ciphertext"])], case["instanceKey"], rows
        )
        assert len(result.imported) == 1
        without = m9m.credentials.import_n8n(
            [entry(id="2", data=case["ciphertext"])], case["instanceKey"], [other]
        )
        assert f"unknown data key '{case['dekId']}'" in reasons(without)["GitHub"]
        for bad in ([{"id": "x"}], [7], [{"id": "x", "value": "v", "algorithm": None}]):
            with pytest.raises(ValueError, match="deployment_keys must be rows of"):
                m9m.credentials.import_n8n([entry(id="3")], KEY, bad)


# Records that cannot be taken


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"name": ""}, "a credential's name must be"),
        ({"name": "a\x1b[2Jb"}, "a credential's name must be"),
        ({"name": "\ud800"}, "a credential's name must be"),
        ({"name": "x" * 256}, "a credential's name must be"),
        ({"name": None}, "a credential's name must be"),
        ({"type": "two words"}, "a credential type's name must be"),
        ({"type": "x" * 65}, "a credential type's name must be"),
        ({"type": 7}, "a credential type's name must be"),
        ({"type": "slackApi", "data": {"user": "x"}}, "needs accessToken"),
        ({"data": None}, "must be an encrypted string or a JSON object"),
        ({"data": ["x"]}, "must be an encrypted string or a JSON object"),
        ({"data": ""}, "a value must be 1 to"),
        ({"data": "…"}, "ASCII characters"),
        ({"data": "not base64!"}, "not base64"),
        ({"data": "U2FsdGVkX18="}, "unknown form"),
        ({"data": OBJECTS[0]["ciphertext"][:-4] + "AAA="}, ""),
        ({"data": "a key:AAAA"}, "is not a key id"),
        ({"data": "key:AAAA"}, "unknown data key 'key'"),
        ({"data": {"x": float("inf")}}, "credential data must be JSON"),
        ({"data": {"x": "\ud800"}}, "credential data must be JSON"),
        ({"data": {"x": "y" * 1_048_576}}, "at most 1048576 bytes"),
    ],
)
def test_one_that_cannot_be_taken_does_not_stop_the_others(
    kept: tuple[Flask, M9M], changed: dict[str, Any], reason: str
) -> None:
    app, m9m = kept
    records = [entry("a", id="1"), entry(**{"id": "bad", **changed}), entry("b", id="3")]
    with app.app_context():
        result = m9m.credentials.import_n8n(records, KEY)
        assert [one.name for one in result.imported] == ["a", "b"]
        (bad,) = result.unreadable
        assert bad.id == "bad"
        assert reason in bad.reason
        assert len(bad.reason) < 200
        assert bad.name in (changed.get("name"), "record 2", "GitHub", "x" * 255)
        assert [one.name for one in m9m.credentials.list()] == ["a", "b"]


@pytest.mark.parametrize("bad", [None, 7, "text", [], ["id", "name"], True])
def test_what_is_no_record_is_named_by_its_place(kept: tuple[Flask, M9M], bad: Any) -> None:
    app, m9m = kept
    with app.app_context():
        result = m9m.credentials.import_n8n([entry("a"), bad])
        assert reasons(result) == {
            "record 2": "a record must be a JSON object with a name, a type and data"
        }
        assert result.unreadable[0].id == ""


def test_flipping_any_octet_of_a_ciphertext_never_stops_an_import(
    kept: tuple[Flask, M9M],
) -> None:
    app, m9m = kept
    case = next(case for case in OBJECTS if "dekId" in case)
    text = case["ciphertext"]
    damaged = [text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :] for at in range(len(text))]
    records = [entry(str(n), id=str(n), data=one) for n, one in enumerate(damaged)]
    with app.app_context():
        result = m9m.credentials.import_n8n(records, case["instanceKey"], deployment_key(case))
        assert [one.name for one in result.imported] == []
        assert len(result.unreadable) == len(text)


def test_values_are_taken_literally(
    kept: tuple[Flask, M9M], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("M9M_ENCRYPTION_KEY", "no")
    app, m9m = kept
    data = {"token": "${M9M_ENCRYPTION_KEY}", "n8n": "={{ $env.HOME }}"}
    with app.app_context():
        for take in (m9m.credentials.import_n8n, m9m.credentials.import_m9m):
            (made,) = take([entry(id=take.__name__, data=data)]).imported
            assert m9m.credentials.get(made.id).data == data


# Ids


def test_a_second_import_skips_what_is_there(storage: Storage, keep: Kept, key: str) -> None:
    app, m9m = keep(storage, key)
    records = [entry(str(n), id=f"id{n}") for n in range(5)]
    with app.app_context():
        m9m.credentials.import_n8n(records[:2])
        m9m.credentials.update("id0", name="renamed", data={"mine": "now"})
        result = m9m.credentials.import_n8n(records)
        assert [one.name for one in result.imported] == ["2", "3", "4"]
        assert [(one.name, one.reason) for one in result.skipped] == [
            (name, "a credential with this id exists already") for name in ("0", "1")
        ]
        assert m9m.credentials.get("id0").data == {"mine": "now"}
        assert len(m9m.credentials.list()) == 5


def test_of_two_records_of_one_id_the_first_that_opens_is_taken(kept: tuple[Flask, M9M]) -> None:
    app, m9m = kept
    records = [entry("a", data=None), entry("b"), entry("c")]
    with app.app_context():
        result = m9m.credentials.import_n8n(records)
        assert [one.name for one in result.unreadable] == ["a"]
        assert [one.name for one in result.imported] == ["b"]
        assert [one.reason for one in result.skipped] == ["an earlier record has the same id"]


def test_ids_that_cannot_be_are_replaced_and_known_again(kept: tuple[Flask, M9M]) -> None:
    app, m9m = kept
    given = ["x" * 37, "a/b", "é", "\ud800", 7, "..", "a\n"]
    records = [entry(str(n), id=one) for n, one in enumerate(given)]
    with app.app_context():
        made = m9m.credentials.import_n8n(records).imported
        assert len(made) == len(given)
        assert made[4].id == "7"
        assert all(len(one.id) == 36 for one in made if one.id != "7")
        assert len(m9m.credentials.import_n8n(records).skipped) == len(given)
        for without in (None, "", True, ["x"]):
            for _ in range(2):
                assert len(m9m.credentials.import_n8n([entry(id=without)]).imported) == 1


def test_an_import_that_is_cut_short_keeps_whole_batches_and_goes_on(
    database_url: str, keep: Kept, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "_BATCH", 3)
    app, m9m = keep({"database": {"url": database_url}}, key)
    records = [entry(str(n), id=str(n)) for n in range(8)]
    store_batch, times = imports.Import._store_batch, iter(range(9))

    def cut_short(self: Any, sealed: Any) -> None:
        if next(times) == 2:
            raise KeyboardInterrupt
        store_batch(self, sealed)

    monkeypatch.setattr(imports.Import, "_store_batch", cut_short)
    with app.app_context():
        with pytest.raises(KeyboardInterrupt):
            m9m.credentials.import_n8n(records)
        assert len(m9m.credentials.list()) == 6
        result = m9m.credentials.import_n8n(records)
        assert (len(result.imported), len(result.skipped)) == (2, 6)


def test_more_than_a_batch_is_imported_and_exported(storage: Storage, keep: Kept, key: str) -> None:
    app, m9m = keep(storage, key)
    records = [entry(str(n), id=str(n), data={"n": n}) for n in range(1_100)]
    with app.app_context():
        m9m.credentials.import_n8n(records[490:560])
        result = m9m.credentials.import_n8n(records)
        assert (len(result.imported), len(result.skipped)) == (1_030, 70)
        assert {one.id for one in m9m.credentials.list()} == {one["id"] for one in records}
        assert m9m.credentials.get("1099").data == {"n": 1_099}
        again = m9m.credentials.import_n8n(m9m.credentials.export_n8n(KEY), KEY)
        assert len(again.skipped) == 1_100


def test_one_that_appears_during_an_import_is_skipped(
    database_url: str, keep: Kept, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, m9m = keep({"database": {"url": database_url}}, key)
    store_batch, first = imports.Import._store_batch, [True]

    def after_another(self: Any, sealed: Any) -> None:
        if first and first.pop():
            m9m.credentials.import_n8n([entry("theirs")])
        store_batch(self, sealed)

    monkeypatch.setattr(imports.Import, "_store_batch", after_another)
    with app.app_context():
        result = m9m.credentials.import_n8n([entry("ours"), entry("other", id="2")])
        assert [one.name for one in result.imported] == ["other"]
        assert [one.name for one in result.skipped] == ["ours"]


# Whose they are


def test_imported_records_get_the_owner_that_is_named(
    storage: Storage, keep: Kept, key: str
) -> None:
    app, m9m = keep(storage, key)
    with app.app_context():
        (made,) = m9m.credentials.import_n8n([entry()], owner="ann").imported
        ann, bob = Identity("ann", "bearer"), Identity("bob", "bearer")
        assert m9m.credentials.get(made.id, caller=ann).data == DATA
        assert m9m.credentials.list(caller=bob) == []
        with pytest.raises(ValueError, match="an owner must be"):
            m9m.credentials.import_n8n([entry(id="2")], owner="")


def test_only_the_app_and_admins_import_and_each_exports_its_own(kept: tuple[Flask, M9M]) -> None:
    app, m9m = kept
    ann = Identity("ann", "bearer")
    admin = Identity("root", "bearer", roles=frozenset(["admin"]))
    with app.app_context():
        for caller in (ann, None):
            for take in (m9m.credentials.import_n8n, m9m.credentials.import_m9m):
                with pytest.raises(AccessDenied):
                    take([entry()], caller=caller)
                with pytest.raises(AccessDenied):
                    take("no such file", caller=caller)
            with pytest.raises(AccessDenied):
                m9m.credentials.import_n8n([entry()], KEY, "no such file", caller=caller)
        m9m.credentials.import_n8n([entry("the app's", id="1")], caller=SYSTEM)
        m9m.credentials.import_n8n([entry("ann's", id="2")], owner="ann", caller=admin)
        for caller, names in ((ann, ["ann's"]), (None, []), (admin, ["the app's", "ann's"])):
            made = m9m.credentials.export_n8n(KEY, caller=caller)
            assert [one["name"] for one in made] == names


# Files


def test_a_file_is_read_as_records_are(kept: tuple[Flask, M9M], tmp_path: Path) -> None:
    app, m9m = kept
    path, one, rows = (tmp_path / name for name in ("all.json", "one.json", "rows.json"))
    case = next(case for case in OBJECTS if "dekId" in case)
    path.write_text("\ufeff" + json.dumps([entry(id="1", data=case["ciphertext"])]))
    one.write_text(json.dumps(entry(id="2")))
    rows.write_text(json.dumps(deployment_key(case)))
    with app.app_context():
        for source in (path, str(one)):
            result = m9m.credentials.import_n8n(source, case["instanceKey"], rows)
            assert len(result.imported) == 1


@pytest.mark.parametrize(
    ("octets", "problem"),
    [
        (b"", r"is not JSON \(line 1, column 1\)"),
        (b'[{"secret": hunter2}]', r"is not JSON \(line 1, column 13\)"),
        (b"[\xff]", r"byte 2 is not UTF-8"),
        (b"[NaN]", "out of range, or the nesting too deep"),
        (b"[" * 100_000 + b"]" * 100_000, "out of range, or the nesting too deep"),
        (b"[" + b"9" * 10_000 + b"]", "out of range, or the nesting too deep"),
        (b'"hunter2"', "an array of records, or a single record"),
        (b"null", "an array of records, or a single record"),
        (b"7", "an array of records, or a single record"),
        (b"[" + b"0," * 100_000 + b"0]", "at most 100000 records"),
        (b"[" + b"[]," * 1_000_000 + b"0]", "more than 1000000 arrays and objects"),
        (b" " * (2**25 + 1), "larger than 33554432 bytes"),
    ],
)
def test_a_file_of_something_else_is_refused_and_not_repeated(
    kept: tuple[Flask, M9M], tmp_path: Path, octets: bytes, problem: str
) -> None:
    app, m9m = kept
    path = tmp_path / "export.json"
    path.write_bytes(octets)
    with app.app_context(), pytest.raises(UnreadableImport, match=problem) as caught:
        m9m.credentials.import_n8n(path)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert str(caught.value).startswith(ascii(str(path))) is ("records" not in problem)


def test_a_file_that_is_not_there_is_named(kept: tuple[Flask, M9M], tmp_path: Path) -> None:
    app, m9m = kept
    with app.app_context():
        for path, why in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
            with pytest.raises(UnreadableImport, match=why):
                m9m.credentials.import_n8n(path)
        with pytest.raises(UnreadableImport, match="not a valid path"):
            m9m.credentials.import_m9m("a\0b")
        if os.path.exists("/dev/zero"):
            with pytest.raises(UnreadableImport, match="larger than"):
                m9m.credentials.import_n8n("/dev/zero")


@pytest.mark.parametrize("typed", ["", "\ud800"])
def test_what_cannot_be_an_instance_key_is_refused(kept: tuple[Flask, M9M], typed: str) -> None:
    app, m9m = kept
    with app.app_context():
        for call in (
            lambda: m9m.credentials.import_n8n([entry()], typed),
            lambda: m9m.credentials.export_n8n(typed),
        ):
            with pytest.raises(ValueError, match="n8n: the instance key must"):
                call()
        assert m9m.credentials.list() == []


# A dry run


def test_a_dry_run_tells_what_would_be_and_changes_nothing(
    database_url: str, keep: Kept, key: str
) -> None:
    app, m9m = keep({"database": {"url": database_url}}, key)
    records = [
        entry("new", id="1", data=OBJECTS[0]["ciphertext"]),
        entry("there", id="2"),
        entry("bad", id="3", data="…"),
        entry("twice", id="1"),
    ]
    with app.app_context():
        m9m.credentials.import_n8n([entry(id="2")])
        before = everything(app)
        dry = m9m.credentials.import_n8n(records, KEY, dry_run=True)
        assert everything(app) == before
        assert [one.name for one in dry.imported] == ["new"]
        assert [one.name for one in dry.skipped] == ["there", "twice"]
        assert [one.name for one in dry.unreadable] == ["bad"]
        assert m9m.credentials.import_n8n(records, KEY) == dry
        assert everything(app) != before


def test_a_dry_run_makes_no_database(tmp_path: Path, keep: Kept, key: str) -> None:
    app = Flask("app", instance_path=str(tmp_path / "instance"))
    m9m = M9M(app, settings={"security": {"jwt": {"enabled": False}}, "credentials": _of(key)})
    with app.app_context():
        assert len(m9m.credentials.import_n8n([entry()], dry_run=True).imported) == 1
    assert not (tmp_path / "instance").exists()
    app.extensions["m9m"].database.close()


def _of(key: str) -> dict[str, Any]:
    return {"encryption_key": key}


def test_a_wrong_key_of_ours_is_told_before_a_row_is_touched(
    database_url: str, keep: Kept, key: str
) -> None:
    storage = {"database": {"url": database_url}}
    app, m9m = keep(storage, key)
    with app.app_context():
        m9m.credentials.import_n8n([entry()])
        needed = m9m.cipher.keys.primary.id
        before = everything(app)
    wrong, theirs = keep(storage, new_key())
    calls: list[Callable[[], object]] = [
        lambda: theirs.credentials.import_n8n([entry(id="2")]),
        lambda: theirs.credentials.import_m9m([entry(id="2")]),
        lambda: theirs.credentials.export_n8n(KEY),
    ]
    with wrong.app_context():
        for call in calls:
            with pytest.raises(SettingsError, match=f"need the key {needed}"):
                call()
    assert everything(app) == before


# m9m's export


def test_m9ms_plain_records_are_imported(storage: Storage, keep: Kept, key: str) -> None:
    app, m9m = keep(storage, key)
    records = [
        {"id": "cred_1", "name": "Slack", "type": "slackApi", "data": {"accessToken": "xoxb"}},
        {"id": "cred_2", "name": "bad", "type": "slackApi", "data": {}},
        {"id": "cred_3", "name": "sealed", "type": "slackApi", "data": "AAAA"},
    ]
    with app.app_context():
        result = m9m.credentials.import_m9m(records)
        assert m9m.credentials.get("cred_1").data == {"accessToken": "xoxb"}
        assert reasons(result) == {
            "bad": "data of a credential of type slackApi needs accessToken",
            "sealed": "m9m: data must be a JSON object",
        }


# Back to n8n


@pytest.mark.parametrize("key_of_n8n", ["test_key", "clé-ünïcode", "键-ключ-key"])
def test_what_is_exported_is_imported_again(
    storage: Storage, keep: Kept, key: str, key_of_n8n: str
) -> None:
    app, m9m = keep(storage, key)
    with app.app_context():
        m9m.credentials.import_n8n([entry("a", id="1"), entry("pass 🔑", id="2", data={"x": "é"})])
        mine = m9m.credentials.create("mine", "apiKey", {"apiKey": "${NAME}"}, resolve=True)
        made = m9m.credentials.export_n8n(key_of_n8n)
        assert "ghp_" not in json.dumps(made)
        assert {one["id"] for one in made} == {"1", "2", mine.id}
        assert all(one["data"].startswith("U2FsdGVkX1") for one in made)
        before = {one["id"]: one for one in made}
    app, m9m = keep({"credentials": {"storage": "memory"}}, new_key())
    with app.app_context():
        result = m9m.credentials.import_n8n(json.loads(json.dumps(made)), key_of_n8n)
        assert len(result.imported) == 3
        for one in m9m.credentials.list():
            assert (one.name, one.type) == (before[one.id]["name"], before[one.id]["type"])
        assert m9m.credentials.get("1").data == DATA
        assert m9m.credentials.get("2").data == {"x": "é"}
        assert m9m.credentials.get(mine.id).data == {"apiKey": "${NAME}"}


def test_one_that_does_not_open_stops_an_export_and_is_named(
    database_url: str, keep: Kept, key: str
) -> None:
    app, m9m = keep({"database": {"url": database_url}}, key)
    with app.app_context():
        m9m.credentials.import_n8n([entry("a", id="1"), entry("b", id="2")])
        with app.extensions["m9m"].database._connected().begin() as connection:
            same = tables.credentials.c.id == "2"
            connection.execute(sa.update(tables.credentials).where(same).values(owner="mallory"))
        with pytest.raises(DecryptionFailed) as caught:
            m9m.credentials.export_n8n(KEY)
        assert "credential 2" in caught.value.__notes__


# Afterwards


def test_a_record_of_a_type_that_is_not_known_can_be_changed(kept: tuple[Flask, M9M]) -> None:
    app, m9m = kept
    with app.app_context():
        m9m.credentials.import_n8n([entry(id="1"), entry(id="2", type="slackApi")])
        m9m.credentials.update("1", data={"other": "fields"})
        assert m9m.credentials.get("1").data == {"other": "fields"}
        with pytest.raises(ValueError, match="needs accessToken"):
            m9m.credentials.update("2", data={})
        with pytest.raises(ValueError, match="unknown credential type"):
            m9m.credentials.create("x", "githubApi", DATA)


def test_the_log_tells_who_imported_and_exported_what_and_no_secret(
    kept: tuple[Flask, M9M], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    app, m9m = kept
    with app.app_context():
        m9m.credentials.import_n8n([entry(id="1", data=write_old(DATA, KEY))], KEY)
        m9m.credentials.import_n8n([entry(id="2")], dry_run=True)
        m9m.credentials.export_n8n(KEY)
    said = [record.getMessage() for record in caplog.records if record.name == "flask_m9m.audit"]
    (imported,) = [json.loads(one) for one in said if "credential_changed" in one]
    assert imported["target"] == "1"
    assert imported["details"] == {"change": "imported", "owner": "", "type": "githubApi"}
    (exported,) = [json.loads(one) for one in said if "credential_read" in one]
    assert exported["target"] == "1"
    assert exported["details"]["exported"] is True
    assert "ghp_" not in caplog.text
    assert KEY not in caplog.text
