"""Encrypted columns of an app's own models."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import produce_migrations, render_python_code
from alembic.migration import MigrationContext
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column

from flask_m9m import M9M, columns
from flask_m9m.columns import (
    EncryptedJSON,
    EncryptedString,
    NotComparable,
    NotEncrypted,
    rotation,
)
from flask_m9m.credentials.encryption.cipher import Cipher
from flask_m9m.errors import DecryptionFailed
from flask_m9m.settings import CredentialSettings
from flask_m9m.testing import make_settings
from tests.credentials.conftest import new_key

SECRET = "sk-12345 \N{SNOWMAN}"


def cipher_of(*keys: str, cipher: str = "aes-256-gcm") -> Cipher:
    own = {"encryption_key": keys[0], "previous_keys": list(keys[1:]), "cipher": cipher}
    return Cipher(CredentialSettings.model_validate(own))


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    made = sa.create_engine(database_url.replace("/m9m/m9m.db", "/app.db"))
    yield made
    made.dispose()


def table_of(cipher: Cipher, engine: sa.Engine, **options: Any) -> sa.Table:
    """Make a table of one text and one object."""
    table = sa.Table(
        "accounts",
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("token", EncryptedString(cipher, **options)),
        sa.Column("other", EncryptedString(cipher)),
        sa.Column("profile", EncryptedJSON(cipher)),
    )
    table.create(engine)
    return table


def kept(connection: sa.Connection, column: str = "token") -> list[str | None]:
    """Return what is in the database itself."""
    query = sa.text(f"SELECT {column} FROM accounts ORDER BY id")
    return [row[0] for row in connection.execute(query)]


def test_values_are_envelopes_in_the_database_and_themselves_in_python(engine: sa.Engine) -> None:
    table, profile = table_of(cipher_of(new_key()), engine), {"a": [1, None, SECRET]}
    with engine.begin() as connection:
        values = {"token": SECRET, "profile": profile}
        connection.execute(sa.insert(table), [{**values, "other": ""}, {**values, "other": SECRET}])
        found = connection.execute(sa.select(table).order_by(table.c.id)).all()
        assert [tuple(row[1:]) for row in found] == [
            (SECRET, "", profile),
            (SECRET, SECRET, profile),
        ]
        for column in ("token", "other", "profile"):
            first, second = kept(connection, column)
            assert first != second
            assert str(first).startswith("m9m:1:")


def test_null_stays_null_and_can_be_asked_for(engine: sa.Engine) -> None:
    table = table_of(cipher_of(new_key()), engine)
    with engine.begin() as connection:
        rows = [{"token": None, "profile": None}, {"token": SECRET, "profile": {}}]
        connection.execute(sa.insert(table), rows)
        assert kept(connection)[0] is None
        assert kept(connection, "profile")[0] is None
        for condition, expected in (
            (table.c.token == None, [1]),  # noqa: E711 # so it is written in SQLAlchemy
            (table.c.token.is_(None), [1]),
            (table.c.token.is_(sa.null()), [1]),
            (table.c.profile.is_not(None), [2]),
            (table.c.profile != None, [2]),  # noqa: E711
        ):
            assert connection.scalars(sa.select(table.c.id).where(condition)).all() == expected


@pytest.mark.parametrize(
    "compare",
    [
        lambda column: column == SECRET,
        lambda column: column != SECRET,
        lambda column: column == column,
        lambda column: column.in_([SECRET]),
        lambda column: column.like("sk%"),
        lambda column: column.startswith("sk"),
        lambda column: column < SECRET,
        lambda column: column.desc(),
        lambda column: column + "x",
        lambda column: "x" + column,
    ],
)
@pytest.mark.parametrize("kind", [EncryptedString, EncryptedJSON])
def test_comparing_in_sql_is_refused(compare: Callable[[Any], Any], kind: type[Any]) -> None:
    table = sa.Table("accounts", sa.MetaData(), sa.Column("token", kind))
    with pytest.raises(NotComparable, match=r"cannot be compared or ordered in SQL"):
        compare(table.c.token)


@pytest.mark.parametrize("update", ["statement", "query"])
def test_a_models_rows_are_updated_in_bulk(engine: sa.Engine, update: str) -> None:
    class Base(DeclarativeBase):
        pass

    class Account(Base):
        __tablename__ = "accounts_of_a_model"
        id: Mapped[int] = mapped_column(primary_key=True)
        token: Mapped[str] = mapped_column(EncryptedString(cipher_of(new_key())))

    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Account(id=1, token="before"))
        session.commit()
        if update == "query":
            session.query(Account).update({Account.token: SECRET})
        else:
            session.execute(sa.update(Account).where(Account.id == 1).values(token=SECRET))
        kept = sa.text("SELECT token FROM accounts_of_a_model")
        assert str(session.scalar(kept)).startswith("m9m:1:")
        session.expire_all()
        assert session.get_one(Account, 1).token == SECRET


def test_an_envelope_opens_in_its_own_column_only(engine: sa.Engine) -> None:
    table = table_of(cipher_of(new_key()), engine)
    with engine.begin() as connection:
        connection.execute(sa.insert(table), {"token": SECRET, "other": "x"})
        connection.execute(sa.text("UPDATE accounts SET other = token"))
        assert connection.scalar(sa.select(table.c.token)) == SECRET
        with pytest.raises(DecryptionFailed):
            connection.scalar(sa.select(table.c.other))
        connection.execute(sa.text("UPDATE accounts SET other = 'in the clear'"))
        with pytest.raises(DecryptionFailed):
            connection.scalar(sa.select(table.c.other))


def test_what_it_is_bound_to_is_frozen() -> None:
    table = sa.Table("accounts", sa.MetaData(), sa.Column("token", EncryptedString))
    expected = b"\0\0\0\x10flask-m9m column\0\0\0\x08accounts\0\0\0\x05token"
    assert table.c.token.type.associated_data() == expected


def test_a_renamed_column_keeps_what_it_was_bound_to(engine: sa.Engine) -> None:
    cipher = cipher_of(new_key())
    table = table_of(cipher, engine)
    with engine.begin() as connection:
        connection.execute(sa.insert(table), {"token": SECRET})
        connection.execute(sa.text("ALTER TABLE accounts RENAME TO people"))
        kind = EncryptedString(cipher, bound_to=("accounts", "token"))
        renamed = sa.Table("people", sa.MetaData(), sa.Column("token", kind))
        assert connection.scalar(sa.select(renamed.c.token)) == SECRET


def test_columns_that_share_a_type_are_bound_each_to_itself() -> None:
    kind = EncryptedString()
    table = sa.Table("a", sa.MetaData(), sa.Column("x", kind), sa.Column("y", kind))
    copied = table.to_metadata(sa.MetaData(), name="b")
    every = [*table.c, *copied.c]
    assert len({column.type.associated_data() for column in every}) == 4
    assert all(column.type.place.column is column for column in every)


def test_models_that_share_a_type_are_bound_each_to_itself() -> None:
    class Base(DeclarativeBase):
        type_annotation_map = {bytes: EncryptedString()}  # noqa: RUF012 # as SQLAlchemy has it

    class Mixin:
        id: Mapped[int] = mapped_column(primary_key=True)
        x: Mapped[bytes]
        y: Mapped[str] = mapped_column(EncryptedString)

    class One(Mixin, Base):
        __tablename__ = "one"

    class Two(Mixin, Base):
        __tablename__ = "two"

    tables = [One.__table__, Two.__table__]
    every = {table.c[name].type.associated_data() for table in tables for name in "xy"}
    assert len(every) == 4


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("token", 5),
        ("token", b"secret"),
        ("token", "secret \ud800"),
        ("token", "secret" * 3_000_000),
        ("profile", {"secret"}),
        ("profile", {"secret": float("nan")}),
    ],
)
def test_what_cannot_be_encrypted_is_refused_and_never_shown(
    sqlite_url: str, tmp_path: Any, column: str, value: Any
) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'app.db'}")
    table = table_of(cipher_of(new_key()), engine)
    with engine.begin() as connection, pytest.raises(NotEncrypted) as caught:
        connection.execute(sa.insert(table), {column: value})
    assert f"accounts.{column} cannot be encrypted" in str(caught.value)
    assert "secret" not in repr(caught.value)
    assert caught.value.__context__ is None
    engine.dispose()


def test_errors_of_the_database_show_envelopes(engine: sa.Engine) -> None:
    table = table_of(cipher_of(new_key()), engine)
    row = {"id": 1, "token": SECRET, "profile": {"a": SECRET}}
    with engine.connect() as connection, pytest.raises(sa.exc.IntegrityError) as caught:
        connection.execute(sa.insert(table), [row, row])
    assert "m9m:1:" in str(caught.value)
    assert "sk-12345" not in str(caught.value)


def test_a_value_that_is_written_into_a_statement_is_encrypted_there() -> None:
    table = sa.Table("a", sa.MetaData(), sa.Column("token", EncryptedString(cipher_of(new_key()))))
    statement = sa.insert(table).values(token=SECRET)
    text = str(statement.compile(compile_kwargs={"literal_binds": True}))
    assert "'m9m:1:" in text
    assert SECRET not in text


# Flask-SQLAlchemy


def test_it_works_under_flask_sqlalchemy(engine: sa.Engine, key: str) -> None:
    db = SQLAlchemy()

    class Account(db.Model):  # type: ignore[name-defined,misc]
        __tablename__ = "accounts"
        id = db.Column(db.Integer, primary_key=True)
        token = db.Column(EncryptedString, nullable=False)
        profile = db.Column(MutableDict.as_mutable(EncryptedJSON()))

    app = Flask("app")
    url = engine.url.render_as_string(hide_password=False)
    app.config["SQLALCHEMY_DATABASE_URI"] = url
    db.init_app(app)
    M9M(app, settings=make_settings({"credentials": {"encryption_key": key}}))
    with app.app_context():
        db.create_all()
        db.session.add(Account(token=SECRET, profile={"a": 1}))
        db.session.commit()
        found = db.session.get(Account, 1)
        found.profile["a"] = 2
        db.session.commit()
        db.session.expire_all()
        found = db.session.get(Account, 1)
        assert (found.token, found.profile) == (SECRET, {"a": 2})
        other = aliased(Account)
        assert db.session.scalar(sa.select(other.token).subquery().select()) == SECRET
        with db.engine.connect() as connection:
            assert str(kept(connection)[0]).startswith("m9m:1:")
        db.session.remove()
        db.engine.dispose()


def test_the_documented_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M9M_ENCRYPTION_KEY", new_key())
    monkeypatch.chdir(tmp_path)
    text = Path(__file__).parents[1].joinpath("docs", "columns.md").read_text()
    example, naming, rotation = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {"__name__": "documented"}
    example = example.replace("sqlite:///app.db", f"sqlite:///{tmp_path / 'app.db'}")
    example = example.replace("Flask(__name__)", f"Flask(__name__, root_path={str(tmp_path)!r})")
    exec(example, names)
    db, account = names["db"], names["Account"]
    with names["app"].app_context():
        db.create_all()
        db.session.add(account(token=SECRET, profile={"a": 1}))
        db.session.commit()
        names.update(engine=db.engine, Base=db.Model)
        exec(naming, names)
        exec(rotation, names)
        assert db.session.scalars(sa.select(account.token)).all() == [SECRET]
        db.session.remove()
        db.engine.dispose()


def test_without_an_app_or_a_key_nothing_is_kept(engine: sa.Engine) -> None:
    table = table_of(None, engine)  # type: ignore[arg-type]
    with engine.begin() as connection, pytest.raises(NotEncrypted, match="application context"):
        connection.execute(sa.insert(table), {"token": SECRET})
    app = Flask("app")
    M9M(app, settings=make_settings({}))
    with (
        app.app_context(),
        engine.begin() as connection,
        pytest.raises(NotEncrypted, match="M9M_ENCRYPTION_KEY") as caught,
    ):
        connection.execute(sa.insert(table), {"token": SECRET})
    assert SECRET not in str(caught.value)


def test_statements_that_are_kept_are_kept_for_each_column(engine: sa.Engine) -> None:
    table = table_of(cipher_of(new_key()), engine)
    with engine.begin() as connection:
        connection.execute(sa.insert(table), {"token": "a", "other": "b"})
        for column in (table.c.token, table.c.other, table.c.token):
            expected = {"token": "a", "other": "b"}[column.name]
            assert connection.scalar(sa.select(column)) == expected
            literal = sa.select(sa.literal(expected, column.type))
            assert connection.scalar(literal) == expected
    first, second = (table.c[name].type._static_cache_key for name in ("token", "other"))
    assert first != second


def test_importing_the_package_loads_no_sqlalchemy() -> None:
    unused = "{'sqlalchemy', 'flask_m9m.credentials', 'flask_m9m.credentials.encryption.cipher'}"
    code = f"import sys, flask_m9m; sys.exit(not {unused}.isdisjoint(sys.modules))"
    subprocess.run([sys.executable, "-c", code], check=True)


# Alembic


@pytest.mark.parametrize("plain", [True, False])
def test_alembic_finds_the_columns_and_writes_them(engine: sa.Engine, plain: bool) -> None:
    metadata = sa.MetaData()
    columns_of = [sa.Column("id", sa.Integer, primary_key=True)]
    columns_of += [sa.Column("token", EncryptedString(cipher_of(new_key())), nullable=False)]
    columns_of += [sa.Column("profile", EncryptedJSON(bound_to=("old", "profile")))]
    sa.Table("accounts", metadata, *columns_of)
    options = {"render_item": columns.render_item} if plain else {}
    with engine.begin() as connection:
        migrations = MigrationContext.configure(connection, opts={"compare_type": True, **options})
        script = produce_migrations(migrations, metadata)
        code = render_python_code(
            script.upgrade_ops, render_item=options.get("render_item"), migration_context=migrations
        )
        if plain:
            assert "sa.Column('token', sa.Text(), nullable=False)" in code
        else:
            assert "sa.Column('token', flask_m9m.columns.EncryptedString(), nullable=False)" in code
            assert "flask_m9m.columns.EncryptedJSON(bound_to=('old', 'profile'))" in code
        metadata.create_all(connection)
        again = produce_migrations(migrations, metadata)
        assert again.upgrade_ops is not None
        assert again.upgrade_ops.is_empty()


# Rotation


@pytest.mark.parametrize("composite", [True, False])
def test_rotation_seals_every_value_anew(
    engine: sa.Engine, composite: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "_BATCH", 7)
    old, new = new_key(), new_key()

    def made(cipher: Cipher) -> sa.Table:
        keys = [
            sa.Column(name, sa.String(9), primary_key=True) for name in ("a", "b")[: 1 + composite]
        ]
        token = sa.Column("token", EncryptedString(cipher))
        return sa.Table("accounts", sa.MetaData(), *keys, token)

    table = made(cipher_of(old, cipher="fernet"))
    table.create(engine)
    rows = [{"a": str(n // 3 if composite else n), "b": str(n)} for n in range(20)]
    rows = rows if composite else [{"a": row["a"]} for row in rows]
    with engine.begin() as connection:
        tokens = [None if n == 5 else f"token {n}" for n in range(20)]
        values = [{**row, "token": token} for row, token in zip(rows, tokens, strict=True)]
        connection.execute(sa.insert(table), values)
        connection.execute(sa.text("UPDATE accounts SET token = 'broken' WHERE a = '0'"))
    broken = 3 if composite else 1
    cipher = cipher_of(new, old)
    rotated = columns.rotate(engine, made(cipher).metadata)
    in_use = {cipher.keys.primary.id: 19 - broken, "": broken}
    assert rotated == [columns.RotatedColumn("accounts.token", 19 - broken, broken, in_use)]
    table = made(cipher_of(new))
    with engine.begin() as connection:
        good = sa.select(table.c.token).where(table.c.a != "0")
        assert set(connection.scalars(good)) == set(tokens[broken:])
    assert columns.rotate(engine, table.metadata)[0].resealed == 0


def test_rotation_undoes_no_change_that_comes_in_between(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = new_key(), new_key()
    table = table_of(cipher_of(old), engine)
    with engine.begin() as connection:
        connection.execute(sa.insert(table), [{"token": str(n)} for n in range(3)])
    swapped = sa.Table(
        "accounts",
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("token", EncryptedString(cipher_of(new, old))),
    )
    change_of, changed = rotation.ColumnWalk._change_of, threading.Event()

    def change_first(self: Any, row: Any, following: str) -> Any:
        found = change_of(self, row, following)
        if not changed.is_set():
            changed.set()
            with Session(engine) as session:
                session.execute(sa.update(swapped).where(swapped.c.id == 1).values(token="new"))
                session.commit()
        return found

    monkeypatch.setattr(rotation.ColumnWalk, "_change_of", change_first)
    (result,) = columns.rotate(engine, swapped.metadata)
    assert (result.resealed, len(result.keys_in_use)) == (2, 1)
    with engine.begin() as connection:
        found = connection.scalars(sa.select(swapped.c.token).order_by(swapped.c.id)).all()
        assert found == ["new", "1", "2"]


def test_a_table_without_a_primary_key_is_named_before_anything_is_rotated() -> None:
    kind = EncryptedString(cipher_of(new_key()))
    table = sa.Table("a", sa.MetaData(), sa.Column("token", kind))
    with pytest.raises(ValueError, match=r"a\.token cannot be rotated"):
        columns.rotate(sa.create_engine("sqlite://"), table.metadata)


@pytest.fixture
def key() -> str:
    return new_key()


# SQL expressions, comparisons and errors


def insert_for(engine: sa.Engine) -> Any:
    """Return the dialect's `insert`, which can update what exists already."""
    return import_module(f"sqlalchemy.dialects.{engine.dialect.name}").insert


def typed_function(table: sa.Table) -> Any:
    """Return a function's result that is said to be of the column's type."""
    return sa.func.lower(SECRET, type_=table.c.token.type)


PLAIN: dict[str, Callable[[sa.Table], Any]] = {
    "literal": lambda table: sa.literal(SECRET),
    "func": lambda table: sa.func.lower(SECRET),
    "typed func": typed_function,
    "case": lambda table: sa.case((sa.true(), SECRET), else_=SECRET),
    "cast": lambda table: sa.cast(SECRET, sa.Text),
    "type_coerce": lambda table: sa.type_coerce(typed_function(table), table.c.token.type),
    "text": lambda table: sa.text(f"'{SECRET}'"),
    "literal_column": lambda table: sa.literal_column(f"'{SECRET}'", table.c.token.type),
    "typed bindparam": lambda table: sa.bindparam("given", SECRET, type_=sa.String),
    "concatenation": lambda table: sa.literal(SECRET) + "x",
    "another column": lambda table: table.c.name,
    "another encrypted column": lambda table: table.c.other,
    "subquery": lambda table: sa.select(table.c.name).scalar_subquery(),
    "typed subquery": lambda table: sa.select(typed_function(table)).scalar_subquery(),
}

INTO: dict[str, Callable[[sa.Table, Any, Any], Any]] = {
    "update": lambda table, value, insert: sa.update(table).values(token=value),
    "ordered update": lambda table, value, insert: sa.update(table).ordered_values(
        (table.c.token, value)
    ),
    "insert from a query": lambda table, value, insert: sa.insert(table).from_select(
        ["token"], sa.select(value)
    ),
    "insert from a union": lambda table, value, insert: sa.insert(table).from_select(
        ["token"], sa.union_all(sa.select(table.c.token), sa.select(value))
    ),
    "insert or update": lambda table, value, insert: (
        insert(table)
        .values(id=1, name=SECRET)
        .on_conflict_do_update(index_elements=["id"], set_={"token": value})
    ),
}


def table_with_name(engine: sa.Engine, **options: Any) -> sa.Table:
    """Make a table with a plain column, and a row in it."""
    cipher = cipher_of(new_key())
    table = sa.Table(
        "accounts",
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String),
        sa.Column("born", sa.Date),
        sa.Column("token", EncryptedString(cipher)),
        sa.Column("other", EncryptedString(cipher)),
    )
    table.create(engine)
    with engine.begin() as connection:
        connection.execute(sa.insert(table), {"id": 1, "name": SECRET, "other": SECRET})
    return table


@pytest.mark.parametrize("statement", INTO)
@pytest.mark.parametrize("value", PLAIN)
def test_no_sql_expression_stores_plain_text(engine: sa.Engine, value: str, statement: str) -> None:
    table = table_with_name(engine)
    with engine.connect() as connection:
        with pytest.raises(NotEncrypted) as caught:
            connection.execute(INTO[statement](table, PLAIN[value](table), insert_for(engine)))
        assert SECRET not in str(caught.value)
        connection.rollback()
        assert kept(connection) == [None]


def test_no_row_of_several_stores_plain_text(engine: sa.Engine) -> None:
    table = table_with_name(engine)
    rows = [{"token": "x"}, {"token": sa.literal(SECRET)}]
    textual = sa.text("SELECT 'x' AS token").columns(sa.column("token", sa.String))
    statements: list[Callable[[sa.Connection], Any]] = [
        lambda connection: connection.execute(sa.insert(table).values(rows)),
        lambda connection: connection.execute(sa.insert(table), rows),
        lambda connection: connection.execute(sa.insert(table), rows[1]),
        lambda connection: connection.execute(sa.insert(table).from_select(["token"], textual)),
    ]
    if engine.dialect.name == "postgresql":
        inner = sa.insert(table).values(token=sa.literal(SECRET)).returning(table.c.id).cte()
        statements.append(lambda connection: connection.execute(sa.select(inner)))
    with engine.connect() as connection:
        for execute in statements:
            with pytest.raises(NotEncrypted):
                execute(connection)
            connection.rollback()
        assert kept(connection) == [None]


def test_no_model_stores_plain_text(engine: sa.Engine) -> None:
    table = table_with_name(engine)

    class Account(DeclarativeBase):
        metadata = table.metadata

    class Model(Account):
        __table__ = table
        secret = table.c.token  # the attribute has a name of its own

    plain: Any = sa.func.lower(SECRET)
    steps: list[Callable[[Session], Any]] = [
        lambda session: session.add(Model(id=9, secret=plain)),
        lambda session: setattr(session.get(Model, 1), "secret", plain),
        lambda session: session.execute(sa.insert(Model).values(secret=plain)),
        lambda session: session.execute(sa.update(Model).values(secret=plain)),
        lambda session: session.execute(sa.update(Model).values({Model.secret: table.c.name})),
        lambda session: session.query(Model).update({"secret": plain}),
        lambda session: session.bulk_insert_mappings(Model, [{"secret": plain}]),  # type: ignore[arg-type]
        lambda session: session.bulk_update_mappings(Model, [{"id": 1, "secret": plain}]),  # type: ignore[arg-type]
        lambda session: session.bulk_save_objects([Model(id=9, secret=plain)]),
    ]
    for step in steps:
        with Session(engine) as session, pytest.raises(NotEncrypted), session.begin():
            step(session)
    with engine.connect() as connection:
        assert kept(connection) == [None]


def test_what_holds_envelopes_of_the_column_is_stored(engine: sa.Engine) -> None:
    table, insert = table_with_name(engine), insert_for(engine)
    both = insert(table).values(id=1, token="new")
    with engine.begin() as connection:
        for statement, expected in (
            (sa.update(table).values(token="a"), "a"),
            (sa.update(table).values(token=sa.bindparam("given")), "b"),
            (sa.update(table).values(token=table.c.token), "b"),
            (sa.update(table).values(token=sa.select(table.c.token).scalar_subquery()), "b"),
            (
                both.on_conflict_do_update(
                    index_elements=["id"], set_={"token": both.excluded.token}
                ),
                "new",
            ),
            (both.on_conflict_do_update(index_elements=["id"], set_={"token": "c"}), "c"),
            (sa.update(table).values(token=sa.null()), None),
        ):
            given = {"given": "b"} if "given" in str(statement) else {}
            connection.execute(statement, given)
            assert connection.scalar(sa.select(table.c.token)) == expected
            assert all(text is None or text.startswith("m9m:") for text in kept(connection))


QUERIES: dict[str, Callable[[sa.Table], Any]] = {
    "ORDER BY": lambda table: sa.select(table.c.id).order_by(table.c.token),
    "ORDER BY a label": lambda table: sa.select(table.c.token.label("x")).order_by("x"),
    "ORDER BY a name": lambda table: sa.select(table.c.id).order_by(sa.desc("token")),
    "GROUP BY": lambda table: sa.select(sa.func.count()).group_by(table.c.token),
    "GROUP BY a name": lambda table: sa.select(table.c.token).group_by("token"),
    "an aggregate": lambda table: sa.select(sa.func.max(table.c.token)),
    "COUNT DISTINCT": lambda table: sa.select(sa.func.count(table.c.token.distinct())),
    "DISTINCT": lambda table: sa.select(table.c.token).distinct(),
    "UNION": lambda table: sa.union(sa.select(table.c.token), sa.select(table.c.token)),
    "a function": lambda table: sa.select(table.c.id).where(sa.func.lower(table.c.token) == "x"),
    "the right side": lambda table: sa.select(table.c.id).where(table.c.name == table.c.token),
    "a literal before it": lambda table: sa.select(table.c.id).where(
        sa.literal("x") == table.c.token
    ),
    "IN a query": lambda table: sa.select(table.c.id).where(
        table.c.name.in_(sa.select(table.c.token))
    ),
    "IN a list": lambda table: sa.select(table.c.id).where(table.c.name.in_([table.c.token])),
    "BETWEEN": lambda table: sa.select(table.c.id).where(table.c.name.between(table.c.token, "x")),
    "a tuple": lambda table: sa.select(table.c.id).where(
        sa.tuple_(table.c.id, table.c.token).in_([(1, "x")])
    ),
    "CASE": lambda table: sa.select(sa.case({"x": 1}, value=table.c.token)),
    "CAST": lambda table: sa.select(table.c.id).where(sa.cast(table.c.token, sa.String) == "x"),
    "OVER": lambda table: sa.select(sa.func.row_number().over(order_by=table.c.token)),
    "PARTITION BY": lambda table: sa.select(sa.func.count().over(partition_by=table.c.token)),
    "a subquery's column": lambda table: sa.select(sub := sa.select(table).subquery()).order_by(
        sub.c.token
    ),
    "an inner query": lambda table: sa.select(
        sa.select(table.c.id).order_by(table.c.token).limit(1).scalar_subquery()
    ),
    "a DELETE": lambda table: sa.delete(table).where(table.c.name == table.c.token),
}


@pytest.mark.parametrize("query", QUERIES)
def test_no_statement_compares_or_orders_envelopes(engine: sa.Engine, query: str) -> None:
    table = table_with_name(engine)
    with engine.connect() as connection, pytest.raises(NotComparable):
        connection.execute(QUERIES[query](table))


def test_what_a_primary_key_tells_apart_is_no_comparison(engine: sa.Engine) -> None:
    table = table_with_name(engine)
    for query in (
        sa.select(table).distinct().order_by(table.c.id),
        sa.select(table.c.id, table.c.token).group_by(table.c.id, table.c.token),
        sa.union(sa.select(table), sa.select(table)),
        sa.select(sa.func.count(table.c.token)),
        sa.union_all(sa.select(table.c.token)),
        sa.select(sa.select(table).subquery()),
        sa.select(table.c.id).where(sa.type_coerce(table.c.token, sa.Text) != "x"),
    ):
        with engine.connect() as connection:
            connection.execute(query).all()


@pytest.mark.parametrize(
    ("error", "options", "constraints"),
    [
        (NotComparable, {"unique": True}, []),
        (NotComparable, {"index": True}, []),
        (NotComparable, {"primary_key": True}, []),
        (NotComparable, {}, [lambda: sa.UniqueConstraint("token")]),
        (NotComparable, {}, [lambda: sa.UniqueConstraint("id", "token")]),
        (NotComparable, {}, [lambda: sa.Index("by_token", "token")]),
        (NotComparable, {}, [lambda: sa.ForeignKeyConstraint(["token"], ["others.id"])]),
        (NotEncrypted, {"server_default": SECRET}, []),
        (NotEncrypted, {"server_default": sa.text("'x'")}, []),
        (NotEncrypted, {"server_onupdate": sa.FetchedValue()}, []),
        (NotEncrypted, {"default": sa.func.lower(SECRET)}, []),
        (NotEncrypted, {"onupdate": sa.func.lower(SECRET)}, []),
    ],
)
def test_a_table_that_cannot_hold_what_it_says_is_refused(
    error: type[Exception], options: dict[str, Any], constraints: list[Callable[[], Any]]
) -> None:
    with pytest.raises(error) as caught:
        sa.Table(
            "accounts",
            sa.MetaData(),
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("token", EncryptedString, **options),
            *(make() for make in constraints),
        )
    assert SECRET not in str(caught.value)


def test_an_index_over_an_expression_is_refused() -> None:
    table = sa.Table("accounts", sa.MetaData(), sa.Column("token", EncryptedString))
    with pytest.raises(NotComparable):
        sa.Index("by_token", sa.func.lower(table.c.token))


def test_no_error_quotes_a_value(engine: sa.Engine) -> None:
    table = table_with_name(engine)
    insert = sa.insert(table)
    steps: list[Callable[[sa.Connection], Any]] = [
        lambda connection: connection.execute(insert, {"born": "today", "token": SECRET}),
        lambda connection: connection.execute(insert, [{"born": "x", "token": SECRET}] * 3),
        lambda connection: connection.execute(insert, {"id": object(), "token": SECRET}),
        lambda connection: connection.execute(insert, {"id": 1, "token": SECRET}),
        lambda connection: connection.execute(
            insert.values(token=SECRET, born=sa.bindparam("missing"))
        ),
        lambda connection: connection.execute(
            insert, [{"id": 8, "born": None, "token": SECRET}, {"id": 9, "token": SECRET}]
        ),
    ]
    for step in steps:
        with engine.connect() as connection, pytest.raises(sa.exc.SQLAlchemyError) as caught:
            step(connection)
        shown = f"{caught.value} {caught.value!r} {getattr(caught.value, 'params', None)}"
        assert SECRET not in shown


def test_long_values_are_rotated_in_short_transactions(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "_MAX_BYTES", 10_000)
    old, new = new_key(), new_key()
    table = table_of(cipher_of(old), engine)
    with engine.begin() as connection:
        lengths = [400 if n % 10 else 30_000 for n in range(40)]
        connection.execute(sa.insert(table), [{"token": "x" * length} for length in lengths])
    rotated = sa.Table(
        "accounts",
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("token", EncryptedString(cipher_of(new, old))),
    )
    groups: list[list[int]] = []

    def watch(conn: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("UPDATE"):
            rows = parameters if isinstance(parameters, list) else [parameters]
            values = [row.values() if isinstance(row, dict) else row for row in rows]
            groups.append([max(len(str(value)) for value in row) for row in values])

    sa.event.listen(engine, "before_cursor_execute", watch)
    assert columns.rotate(engine, rotated.metadata)[0].resealed == 40
    assert sum(map(len, groups)) == 40
    assert all(len(group) == 1 or sum(group) <= 10_000 for group in groups)
    assert max(map(len, groups)) > 1
