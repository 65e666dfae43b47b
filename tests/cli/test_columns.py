"""Encrypted columns of an app's models on the command line: their keys, and plain text in them."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.conftest import SECRET, Folder
from tests.cli.credentials import new_key

SECRET_VALUE = "sk-hunter2secret"

FLASK_SQLALCHEMY = """\
import os
from flask import Flask
from flask_m9m import M9M
from flask_m9m.columns import EncryptedJSON, EncryptedString
from flask_sqlalchemy import SQLAlchemy

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ.get("APP_URL", "sqlite:///app.db")
db, m9m = SQLAlchemy(app), M9M(app)

class Account(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    token = db.Column(EncryptedString)
    profile = db.Column(EncryptedJSON)

def add(*tokens):
    with app.app_context():
        db.create_all()
        db.session.add_all([Account(token=t, profile={"of": t}) for t in tokens])
        db.session.commit()

def read():
    with app.app_context():
        accounts = db.session.query(Account).order_by(Account.id)
        print([(account.token, account.profile) for account in accounts])
"""
PLAIN_SQLALCHEMY = """\
import os
import sqlalchemy as sa
from flask import Flask
from flask_m9m import M9M
from flask_m9m.columns import EncryptedJSON, EncryptedString
from sqlalchemy.orm import DeclarativeBase, Session, mapped_column

app = Flask(__name__)
engine = sa.create_engine(os.environ.get("APP_URL", f"sqlite:///{app.instance_path}/app.db"))
m9m = M9M(app)

class Base(DeclarativeBase): pass

class Account(Base):
    __tablename__ = "account"
    id = mapped_column(sa.Integer, primary_key=True)
    token = mapped_column(EncryptedString)
    profile = mapped_column(EncryptedJSON)

NAMED

def add(*tokens):
    os.makedirs(app.instance_path, exist_ok=True)
    Base.metadata.create_all(engine)
    with app.app_context(), Session(engine) as session, session.begin():
        session.add_all([Account(token=t, profile={"of": t}) for t in tokens])

def read():
    with app.app_context(), Session(engine) as session:
        accounts = session.query(Account).order_by(Account.id)
        print([(account.token, account.profile) for account in accounts])
"""
NAMED = "m9m.encrypted_columns(engine, Base.metadata)"
APPS = {
    "flask-sqlalchemy": FLASK_SQLALCHEMY,
    "named": PLAIN_SQLALCHEMY.replace("NAMED", NAMED),
    "named-by-function": PLAIN_SQLALCHEMY.replace(
        "NAMED", NAMED.replace("engine,", "lambda: engine,")
    ),
    "engine": PLAIN_SQLALCHEMY.replace("NAMED", "").replace("M9M(app)", "M9M(app, engine=engine)"),
}


class AppFolder(Folder):
    """A folder with an app that has encrypted columns; its commands run in other processes."""

    def use_keys(self, key: str = "", *previous: str) -> None:
        lines = [f"M9M_JWT_SECRET={SECRET}", "M9M_SECURITY_DEFAULT_ACCESS=authenticated"]
        if key:
            lines.append(f"M9M_ENCRYPTION_KEY={key}")
        if previous:
            lines.append(f"M9M_CREDENTIALS_PREVIOUS_KEYS={','.join(previous)}")
        self.write(".env", "\n".join(lines) + "\n")

    def add(self, *tokens: str) -> None:
        self.python(f"import app; app.add(*{tokens!r})")

    def values(self) -> str:
        return self.python("import app; app.read()").strip()

    def stored(self, column: str = "token") -> list[str]:
        code = (
            "import app, json, sqlalchemy as sa\n"
            "with app.app.app_context():\n"
            "  engine = app.db.engine if hasattr(app, 'db') else app.engine\n"
            "  with engine.connect() as connection:\n"
            f"    rows = connection.execute(sa.text('SELECT {column} FROM account ORDER BY id'))\n"
            "    print(json.dumps([row[0] for row in rows]))"
        )
        found: list[str] = json.loads(self.python(code))
        return found

    def execute(self, statement: str) -> None:
        self.python(
            "import app, sqlalchemy as sa\n"
            "with app.app.app_context():\n"
            "  engine = app.db.engine if hasattr(app, 'db') else app.engine\n"
            "  with engine.begin() as connection:\n"
            f"    connection.execute(sa.text({statement!r}))"
        )

    def succeed(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        result = self.m9m(*arguments)
        assert result.returncode == 0, result.stderr
        assert SECRET_VALUE not in result.stdout + result.stderr
        return result

    def fail(self, *arguments: str) -> str:
        result = self.m9m(*arguments)
        assert result.returncode == 1, result.stdout
        assert "Traceback" not in result.stderr
        assert SECRET_VALUE not in result.stdout + result.stderr
        return result.stderr

    def findings(self) -> dict[str, list[str]]:
        """Run the doctor; return where it found each kind about columns."""
        result = self.m9m("doctor", "-o", "json")
        found: dict[str, list[str]] = {}
        for finding in json.loads(result.stdout)["findings"]:
            if "column" in finding["where"]:
                found.setdefault(finding["id"], []).append(finding["where"])
        return found


def key_ids(stored: list[str]) -> set[str]:
    return {envelope.split(":")[2] for envelope in stored}


@pytest.fixture(params=sorted(APPS))
def any_app(request: pytest.FixtureRequest, tmp_path: Path) -> AppFolder:
    folder = AppFolder(tmp_path)
    folder.write("app.py", APPS[request.param])
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> AppFolder:
    made = AppFolder(tmp_path)
    made.write("app.py", FLASK_SQLALCHEMY)
    return made


def test_a_key_that_a_column_needs_cannot_be_deleted_unnoticed(any_app: AppFolder) -> None:
    old, new = new_key(), new_key()
    any_app.use_keys(old)
    any_app.add(SECRET_VALUE, "b")
    [needed] = key_ids(any_app.stored())
    any_app.use_keys(new)
    before = any_app.stored()
    columns = ("account.token", "account.profile")

    found = any_app.findings()["credentials-unreadable"]
    assert {f"column {column}, key {needed}" for column in columns} == set(found)
    for command in (["serve"], ["serve", "--dev"], ["credential", "rotate"]):
        said = any_app.fail(*command)
        for column in columns:
            assert f"2 values of {column} need the key {needed}, which is not there" in said
        assert "list it under credentials.previous_keys" in said
    assert any_app.stored() == before

    any_app.use_keys(new, old)
    assert "credentials-unreadable" not in any_app.findings()
    assert set(any_app.findings()["credentials-under-retired-key"]) == set(found)
    said = any_app.succeed("credential", "rotate").stdout
    assert "account.token: re-encrypted: 2" in said
    assert f"the key {needed} (credentials.previous_keys) is not needed" in said
    any_app.use_keys(new)
    assert not any_app.findings()
    assert any_app.values() == str([(token, {"of": token}) for token in (SECRET_VALUE, "b")])


def test_without_any_key_the_start_is_refused_where_values_need_one(folder: AppFolder) -> None:
    folder.use_keys(new_key())
    folder.add("a")
    folder.use_keys()
    assert "credentials.encryption_key: no encryption key" in folder.fail("serve")
    assert "no encryption key" in folder.fail("credential", "rotate")


def test_what_is_not_looked_at_is_said_first_and_its_keys_are_kept(tmp_path: Path) -> None:
    folder, old, new = AppFolder(tmp_path), new_key(), new_key()
    folder.write("app.py", PLAIN_SQLALCHEMY.replace("NAMED", ""))
    folder.use_keys(old)
    folder.add("a")
    [needed] = key_ids(folder.stored())
    folder.use_keys(new, old)
    assert set(folder.findings()["column-not-seen"]) == {
        "column account.token",
        "column account.profile",
    }
    result = folder.succeed("credential", "rotate")
    assert "m9m.cipher is not looked at" in result.stderr.splitlines()[0]
    assert "the column account.token is not looked at: name its database" in result.stderr
    [line] = [line for line in result.stdout.splitlines() if needed in line]
    assert "may be needed by account.profile, account.token: keep it" in line
    assert "not needed" not in result.stdout


def test_a_dry_run_counts_and_changes_nothing(folder: AppFolder) -> None:
    old, new = new_key(), new_key()
    folder.use_keys(old)
    folder.add("a", "b", "c")
    folder.use_keys(new, old)
    before = folder.stored()
    said = folder.succeed("credential", "rotate", "--dry-run").stdout
    assert "account.token: to be re-encrypted: 3" in said
    assert f"the key {key_ids(before).pop()} (credentials.previous_keys) is needed by" in said
    assert "3 values of account.token" in said
    assert folder.stored() == before


def test_a_value_that_does_not_open_stays_and_is_counted(folder: AppFolder) -> None:
    old, new = new_key(), new_key()
    folder.use_keys(old)
    folder.add("a", "b")
    folder.execute("UPDATE account SET token = profile WHERE id = 1")
    folder.use_keys(new, old)
    said = folder.fail("credential", "rotate")
    assert "1 values of account.token cannot be decrypted and stay as they are" in said
    before, after = folder.stored()
    assert key_ids([before]) != key_ids([after])


def test_a_rotation_that_is_killed_is_finished_by_the_next(folder: AppFolder) -> None:
    old, new = new_key(), new_key()
    folder.use_keys(old)
    folder.add(*(str(n) for n in range(3_000)))
    [needed] = key_ids(folder.stored())
    folder.use_keys(new, old)
    command = [sys.executable, "-m", "flask", "m9m", "credential", "rotate"]
    process = subprocess.Popen(
        command,
        cwd=folder.path,
        env=folder.environ(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    query = "SELECT count(DISTINCT substr(token, 1, 15)) FROM account"
    with closing(sqlite3.connect(folder.path / "instance" / "app.db", timeout=30)) as connection:
        while process.poll() is None and connection.execute(query).fetchone() == (1,):
            time.sleep(0.001)
    process.kill()
    assert process.wait(60) == -signal.SIGKILL
    assert needed in key_ids([*folder.stored(), *folder.stored("profile")])
    assert "is not needed" in folder.succeed("credential", "rotate").stdout
    folder.use_keys(new)
    assert folder.values() == str([(str(n), {"of": str(n)}) for n in range(3_000)])


def test_columns_and_the_keys_of_their_values_are_listed(folder: AppFolder) -> None:
    old, new = new_key(), new_key()
    folder.use_keys(old)
    folder.add("a", "b")
    [needed] = key_ids(folder.stored())
    folder.execute("INSERT INTO account (token) VALUES ('plain')")
    folder.use_keys(new, old)
    rows = json.loads(folder.succeed("columns", "list", "-o", "json").stdout)
    assert [row for row in rows if row["column"] == "account.token"] == [
        {"column": "account.token", "key": "", "listed": "plain text", "values": 1},
        {"column": "account.token", "key": needed, "listed": "previous", "values": 2},
    ]
    assert "previous" in folder.succeed("columns", "list").stdout


def test_a_database_that_does_not_exist_yet_is_not_made(folder: AppFolder) -> None:
    folder.use_keys(new_key())
    assert json.loads(folder.succeed("columns", "list", "-o", "json").stdout) == []
    assert not folder.findings()
    folder.succeed("columns", "encrypt")
    assert not list(folder.path.rglob("app.db"))


def test_a_database_that_does_not_answer_is_named_without_its_password(tmp_path: Path) -> None:
    folder = AppFolder(tmp_path)
    folder.write("app.py", APPS["named"])
    folder.use_keys(new_key())
    url = "postgresql+psycopg://app:hunter2password@127.0.0.1:1/app"
    result = folder.m9m("credential", "rotate", APP_URL=url)
    assert result.returncode == 1
    said = result.stderr
    assert re.search("the column account.(token|profile) cannot be used: OperationalError", said)
    assert "hunter2password" not in said + result.stdout
    assert "Traceback" not in said


PLAIN_ROWS = (
    "INSERT INTO account (token, profile) VALUES "
    f"('{SECRET_VALUE}', '{{\"a\": [1, null]}}'), ('', '\"text\"'), (NULL, NULL), ('m9m:1:x', '7')"
)


def test_plain_text_is_encrypted_by_a_command(any_app: AppFolder) -> None:
    any_app.use_keys(new_key())
    any_app.add("already")
    any_app.execute(PLAIN_ROWS)
    assert set(any_app.findings()["column-plain-text"]) == {
        "column account.token",
        "column account.profile",
    }
    before = any_app.stored()
    said = any_app.succeed("columns", "encrypt", "--dry-run").stdout
    assert "account.token: to be encrypted: 3" in said
    assert any_app.stored() == before

    assert any_app.succeed("columns", "encrypt", "account.token").stdout == (
        "account.token: encrypted: 3\n"
    )
    assert any_app.succeed("columns", "encrypt").stdout.splitlines() == [
        "account.token: encrypted: 0",
        "account.profile: encrypted: 3",
    ]
    assert any_app.stored()[0] == before[0]
    assert not any_app.findings()
    assert any_app.values() == str(
        [
            ("already", {"of": "already"}),
            (SECRET_VALUE, {"a": [1, None]}),
            ("", "text"),
            (None, None),
            ("m9m:1:x", 7),
        ]
    )


def test_plain_text_that_is_no_json_stays_and_is_an_error(folder: AppFolder) -> None:
    folder.use_keys(new_key())
    folder.add("a")
    folder.execute(f"INSERT INTO account (profile) VALUES ('{{{SECRET_VALUE}')")
    said = folder.fail("columns", "encrypt")
    assert "a value of account.profile is not of its type" in said
    assert folder.stored("profile")[1] == f"{{{SECRET_VALUE}"


def test_a_column_that_is_not_there_is_an_error(folder: AppFolder) -> None:
    folder.use_keys(new_key())
    assert "no encrypted column is named 'account.id'" in folder.fail(
        "columns", "encrypt", "account.id"
    )


@pytest.mark.parametrize("arguments", [("x", "y"), (None, None)])
def test_what_encrypted_columns_takes_is_checked(arguments: tuple[object, object]) -> None:
    from flask_m9m import M9M

    with pytest.raises(TypeError, match=r"^engine must be"):
        M9M().encrypted_columns(*arguments)  # type: ignore[arg-type]
