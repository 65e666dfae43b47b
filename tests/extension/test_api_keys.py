"""API keys, over HTTP and real databases."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from flask_m9m import M9M, require_auth
from flask_m9m.auth.api_key_format import make_key
from flask_m9m.auth.identity import Identity
from flask_m9m.auth.schemes.api_key import KnownKey, KnownKeys
from flask_m9m.errors import Conflict, DatabaseUnavailable, NotFound
from flask_m9m.storage import ApiKey
from flask_m9m.testing import Clock, client_as, make_settings
from tests.conftest import CHALLENGES
from tests.databases import settle
from tests.secured import Secured


def make(app: Flask, m9m: M9M, **options: Any) -> tuple[ApiKey, str]:
    with app.app_context():
        return m9m.api_keys.create(**{"name": "ci", "owner": "ann", **options})


def ask(app: Flask, key: str | None, path: str = "/x", **headers: str) -> Any:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if key is not None:
        sent["X-API-Key"] = key
    return app.test_client().get(path, headers=sent)


@contextmanager
def queries(app: Flask) -> Iterator[list[str]]:
    """Collect the statements that an app's database is asked."""
    seen: list[str] = []
    engine = app.extensions["m9m"].database._connected()

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        seen.append(statement)

    sa.event.listen(engine, "before_cursor_execute", note)
    yield seen
    sa.event.remove(engine, "before_cursor_execute", note)


def write_uses(app: Flask) -> None:
    """Write down when keys were last used, after whatever is being written already."""
    settle()
    app.extensions["m9m"].identities.api_keys._feed.write_batches()


def test_a_key_is_made_used_and_revoked(secured: Secured) -> None:
    app, m9m = secured()
    key, text = make(app, m9m, scopes=["items:read"], roles=["bot"])
    answer = ask(app, text)
    assert answer.json == {
        "subject": "ann",
        "scheme": "api_key",
        "scopes": ["items:read"],
        "roles": ["bot"],
        "key": key.id,
    }
    assert answer.headers["Cache-Control"] == "no-store"
    assert ask(app, None, Authorization=f"Api-Key {text}").status_code == 200

    with app.app_context():
        m9m.api_keys.revoke(key.id)
    refused = ask(app, text)
    assert refused.status_code == 401
    assert refused.json["code"] == "INVALID_API_KEY"
    assert refused.headers.getlist("WWW-Authenticate") == CHALLENGES
    assert text not in repr(key)


def test_a_missing_scope_is_403(secured: Secured) -> None:
    app, m9m = secured()
    _, text = make(app, m9m, scopes="items:read")
    assert ask(app, text, "/write").status_code == 403
    _, text = make(app, m9m, scopes="items:read items:write")
    assert ask(app, text, "/write").status_code == 200


def test_known_keys_and_bad_checksums_cost_no_query_and_unknown_ones_one(
    secured: Secured, clock: Clock
) -> None:
    app, m9m = secured(lockout={"enabled": False})
    _, text = make(app, m9m)
    assert ask(app, text).status_code == 200
    settle()
    with queries(app) as seen:
        for _ in range(20):
            assert ask(app, text).status_code == 200
            assert ask(app, text[:-1] + ("0" if text[-1] != "0" else "1")).status_code == 401
    assert seen == []
    with queries(app) as seen:
        assert ask(app, make_key("m9m_sk_")).status_code == 401
    assert len(seen) == 1
    clock.advance(1.5)
    with queries(app) as seen:
        for _ in range(20):
            assert ask(app, text).status_code == 200
    assert len(seen) == 1
    assert "m9m_changes" in seen[0]


def test_another_process_refuses_a_revoked_key_within_the_propagation(
    secured: Secured, clock: Clock
) -> None:
    (one, m9m), (other, _) = secured(), secured()
    key, text = make(one, m9m)
    assert ask(other, text).status_code == 200
    with one.app_context():
        m9m.api_keys.revoke(key.id)
    assert ask(one, text).status_code == 401
    clock.advance(1.1)
    assert ask(other, text).status_code == 401


def test_no_thread_is_let_in_after_a_revocation(secured: Secured) -> None:
    app, m9m = secured(lockout={"enabled": False})
    key, text = make(app, m9m)
    revoked, late = threading.Event(), []

    def use() -> None:
        for _ in range(40):
            before = revoked.is_set()
            if ask(app, text).status_code == 200 and before:
                late.append(1)

    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(use) for _ in range(8)]
        with app.app_context():
            m9m.api_keys.revoke(key.id)
        revoked.set()
        for one in running:
            one.result()
    assert not late
    assert ask(app, text).status_code == 401


def test_a_key_expires_although_it_is_known(secured: Secured, clock: Clock) -> None:
    app, m9m = secured(revocation={"propagation": "1h", "max_staleness": "1h"})
    expires_at = datetime.fromtimestamp(clock() + 60, UTC)
    _, text = make(app, m9m, expires_at=expires_at)
    assert ask(app, text).status_code == 200
    clock.advance(60.0)
    assert ask(app, text).status_code == 401


def test_a_rotated_key_holds_for_its_grace(secured: Secured, clock: Clock) -> None:
    app, m9m = secured()
    life = timedelta(days=30)
    old, text = make(
        app,
        m9m,
        scopes="items:write",
        rate_limit="100/hour",
        expires_at=datetime.fromtimestamp(clock(), UTC) + life,
    )
    clock.advance(86_400.0)
    with app.app_context():
        new, following = m9m.api_keys.rotate(old.id, grace="1h")
        assert (new.scopes, new.rate_limit, new.owner) == (old.scopes, old.rate_limit, old.owner)
        assert new.expires_at is not None
        assert new.expires_at - new.created_at == life
    assert ask(app, text).status_code == ask(app, following).status_code == 200
    clock.advance(3_601.0)
    assert (ask(app, text).status_code, ask(app, following).status_code) == (401, 200)
    with app.app_context():
        with pytest.raises(NotFound):
            m9m.api_keys.rotate(old.id)
        m9m.api_keys.rotate(new.id, grace=0)
    assert ask(app, following).status_code == 401


def test_a_key_has_a_limit_of_its_own(secured: Secured) -> None:
    app, m9m = secured()
    _, limited = make(app, m9m, rate_limit="3/hour")
    _, free = make(app, m9m)
    answers = [ask(app, limited) for _ in range(4)]
    assert [one.status_code for one in answers] == [200, 200, 200, 429]
    assert answers[0].headers["RateLimit-Policy"] == '"api-key";q=3;w=3600'
    assert answers[3].headers["Retry-After"] == "1200"
    assert ask(app, free).status_code == 200


def test_a_key_is_rotated_once_and_counts_with_its_successor(secured: Secured) -> None:
    app, m9m = secured()
    old, text = make(app, m9m, rate_limit="3/hour")
    with app.app_context():
        new, following = m9m.api_keys.rotate(old.id, grace="1h")
        with pytest.raises(Conflict):
            m9m.api_keys.rotate(old.id, grace="10h")
        newest, last = m9m.api_keys.rotate(new.id, grace="1h")
        assert newest.expires_at is None
        assert {one.family for one in m9m.api_keys.list()} == {old.id}
    answers = [ask(app, one).status_code for one in (text, following, last, text, following, last)]
    assert answers == [200, 200, 200, 429, 429, 429]


def test_keys_that_nobody_issued_are_counted_and_good_ones_are_not(
    secured: Secured, clock: Clock
) -> None:
    app, m9m = secured(lockout={"attempts": 3, "per": "1m"})
    _, text = make(app, m9m)
    unknown = [ask(app, make_key("m9m_sk_")) for _ in range(5)]
    assert [one.status_code for one in unknown] == [401, 401, 401, 429, 429]
    assert unknown[4].json["code"] == "TOO_MANY_ATTEMPTS"
    assert unknown[4].headers["Retry-After"] == "20"
    assert ask(app, "m9m_sk_nonsense").status_code == 429
    for _ in range(10):
        assert ask(app, text).status_code == 200
    clock.advance(20.0)
    assert ask(app, make_key("m9m_sk_")).status_code == 401


def test_a_made_up_key_costs_no_query_once_its_address_is_locked(
    secured: Secured, clock: Clock
) -> None:
    app, m9m = secured(lockout={"attempts": 3, "per": "1m"})
    _, text = make(app, m9m)
    gone, revoked = make(app, m9m)
    with app.app_context():
        m9m.api_keys.revoke(gone.id)
    for _ in range(3):
        assert ask(app, make_key("m9m_sk_")).status_code == 401
    with queries(app) as seen:
        for _ in range(50):
            assert ask(app, make_key("m9m_sk_")).status_code == 429
        assert ask(app, revoked).status_code == 429
        assert not [one for one in seen if "FROM m9m_api_keys" in one]
        assert ask(app, text).status_code == 200  # unknown to this process until now
        assert len([one for one in seen if "FROM m9m_api_keys" in one]) == 1
    later, another = make(app, m9m)
    assert ask(app, another).status_code == 200
    with app.app_context():
        m9m.api_keys.revoke(later.id)
    assert ask(app, another).status_code == 429
    with queries(app) as seen:
        other = app.test_client().get(
            "/x",
            headers={"X-API-Key": make_key("m9m_sk_")},
            environ_base={"REMOTE_ADDR": "192.0.2.9"},
        )
        assert other.status_code == 401
        assert [one for one in seen if "m9m_api_keys" in one]


def test_with_too_many_keys_to_load_a_locked_out_address_makes_no_queries(
    secured: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_m9m.auth.issued_keys._CAPACITY", 1)
    app, m9m = secured(lockout={"attempts": 1, "per": "1m"})
    (_, known), (_, unknown) = make(app, m9m), make(app, m9m)
    assert ask(app, known).status_code == 200
    assert ask(app, make_key("m9m_sk_")).status_code == 401
    with queries(app) as seen:
        assert ask(app, make_key("m9m_sk_")).status_code == 429
        assert ask(app, unknown).status_code == 429
        assert ask(app, known).status_code == 200
    assert not [one for one in seen if "FROM m9m_api_keys" in one]


def test_looking_up_a_good_key_counts_for_nothing(secured: Secured) -> None:
    app, m9m = secured(lockout={"attempts": 2, "per": "1m"})
    for _ in range(5):
        _, text = make(app, m9m)
        assert ask(app, text).status_code == 200
    assert [ask(app, make_key("m9m_sk_")).status_code for _ in range(3)] == [401, 401, 429]


def test_forged_tokens_are_counted_and_revoked_or_expired_ones_are_not(
    secured: Secured, clock: Clock
) -> None:
    app, m9m = secured(lockout={"attempts": 3, "per": "1m"})

    def statuses(token: str) -> list[int]:
        bearer = f"Bearer {token}"
        return [ask(app, None, Authorization=bearer).status_code for _ in range(5)]

    with app.app_context():
        revoked, expired, good = (m9m.tokens.issue("ann", expires_in=one) for one in (90, 60, 90))
        m9m.tokens.revoke(revoked)
    clock.advance(60.0)
    assert statuses(revoked) == statuses(expired) == [401] * 5
    assert statuses(good[:-4] + "AAAA") == [401, 401, 401, 429, 429]
    assert statuses(good) == [200] * 5
    assert statuses(expired) == [401] * 5


@pytest.mark.parametrize("kind", ["bearer", "both places", "with basic"])
def test_several_credentials_are_400(secured: Secured, kind: str) -> None:
    app, m9m = secured(basic_auth={"enabled": True, "username": "a", "password": "b"})
    _, text = make(app, m9m)
    token = client_as(app, "ann").environ_base["HTTP_AUTHORIZATION"]
    other = {"bearer": token, "both places": f"Api-Key {text}", "with basic": "Basic YTpi"}[kind]
    answer = ask(app, text, Authorization=other)
    assert (answer.status_code, answer.json["code"]) == (400, "INVALID_REQUEST")


def test_another_services_key_is_no_credential_unless_it_came_alone(secured: Secured) -> None:
    app, m9m = secured()
    _, text = make(app, m9m)
    token = client_as(app, "bob").environ_base["HTTP_AUTHORIZATION"]
    assert ask(app, "sk_live_theirs", Authorization=token).json["subject"] == "bob"
    assert ask(app, "theirs", Authorization=f"Api-Key {text}").json["subject"] == "ann"
    for alone in ("sk_live_theirs", ""):
        assert ask(app, alone).json["code"] == "INVALID_API_KEY"


@pytest.mark.parametrize("place", ["?api_key={}", "?X-API-Key={}", "?access_token={}"])
def test_a_key_in_the_query_string_is_not_looked_at(secured: Secured, place: str) -> None:
    app, m9m = secured()
    _, text = make(app, m9m)
    assert ask(app, None, "/x" + place.format(text)).json["code"] == "AUTH_REQUIRED"


@pytest.mark.parametrize(
    "wrong", ["{} ", "{}\n", "{}\x00", "{},{}", "{}\u0660", "m9m_sk_", "x" * 100_000, "\xff" * 45]
)
def test_garbage_is_the_same_401(secured: Secured, wrong: str) -> None:
    app, m9m = secured()
    _, text = make(app, m9m)
    sent = wrong.replace("{}", text).encode().decode("latin-1")
    for field in ({"HTTP_X_API_KEY": sent}, {"HTTP_AUTHORIZATION": f"Api-Key {sent}"}):
        answer = app.test_client().get("/x", environ_overrides=field)
        assert (answer.status_code, answer.json["code"]) == (401, "INVALID_API_KEY")


def test_the_header_and_the_prefix_are_the_settings(secured: Secured) -> None:
    app, m9m = secured(api_keys={"header": "X-Acme-Token", "prefix": "acme_"})
    _, text = make(app, m9m)
    assert text.startswith("acme_")
    assert ask(app, text).json["code"] == "AUTH_REQUIRED"
    assert ask(app, None, X_Acme_Token=text).status_code == 200
    assert 'header="X-Acme-Token"' in ask(app, None).headers.getlist("WWW-Authenticate")[1]


def test_when_a_key_was_last_used_is_noted_in_batches(secured: Secured, clock: Clock) -> None:
    app, m9m = secured()
    _, text = make(app, m9m)
    with queries(app) as seen:
        for _ in range(30):
            assert ask(app, text).status_code == 200
            clock.advance(1.1)
    noted = [one for one in seen if one.startswith("UPDATE")]
    assert len(noted) <= 1
    last = clock() - 1.1
    clock.advance(61.0)
    ask(app, text)
    write_uses(app)
    with app.app_context():
        (found,) = m9m.api_keys.list()
    assert found.last_used_at is not None
    assert found.last_used_at.timestamp() >= last


def test_unused_keys_are_listed_and_pruned(secured: Secured, clock: Clock) -> None:
    app, m9m = secured()
    idle, text = make(app, m9m, name="idle")
    _, used = make(app, m9m, name="used")
    clock.advance(100 * 86_400.0)
    assert ask(app, used).status_code == 200
    write_uses(app)
    make(app, m9m, name="new")
    with app.app_context():
        assert [one.name for one in m9m.api_keys.list(unused_for="90d")] == ["idle"]
        assert [one.id for one in m9m.api_keys.prune("90d")] == [idle.id]
        assert [one.name for one in m9m.api_keys.list()] == ["used", "new"]
        with pytest.raises(ValueError, match="hour"):
            m9m.api_keys.prune("1m")
    assert ask(app, text).status_code == 401
    assert ask(app, used).status_code == 200


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "x" * 256},
        {"name": "a\nb"},
        {"owner": ""},
        {"owner": None},
        {"scopes": ["a b"]},
        {"roles": ["\u00e4"]},
        {"rate_limit": "often"},
        {"expires_at": datetime(2999, 1, 1, tzinfo=UTC)},
        {"expires_at": datetime(2001, 1, 1, tzinfo=UTC)},
        {"expires_at": datetime(2050, 1, 1)},  # that is what is wrong with it
    ],
)
def test_what_cannot_be_a_key_is_refused(secured: Secured, wrong: dict[str, Any]) -> None:
    app, m9m = secured()
    with app.app_context():
        with pytest.raises(ValueError):
            m9m.api_keys.create(**{"name": "ci", "owner": "ann", **wrong})
        assert m9m.api_keys.list() == []


@pytest.mark.parametrize("key_id", ["", "nobody", "x" * 10_000, "'; DROP TABLE m9m_api_keys;--"])
def test_an_unknown_id_is_an_error_and_changes_nothing(secured: Secured, key_id: str) -> None:
    app, m9m = secured()
    key, _ = make(app, m9m)
    with app.app_context():
        for act in (m9m.api_keys.revoke, m9m.api_keys.rotate):
            with pytest.raises(NotFound):
                act(key_id)
        with pytest.raises(NotFound):
            m9m.api_keys.revoke(key.id, owner="bob")
        assert m9m.api_keys.list() == [key]


def test_an_app_without_a_database_refuses_every_key_and_makes_none(tmp_path: Path) -> None:
    app = Flask("app", instance_path=str(tmp_path))
    m9m = M9M(app, settings=make_settings())
    app.add_url_rule("/x", "x", require_auth(lambda: "x"))
    assert ask(app, make_key("m9m_sk_")).status_code == 401
    with app.app_context():
        assert m9m.api_keys.list() == []
        with pytest.raises(NotFound):
            m9m.api_keys.revoke("x")
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_is_away_is_503_and_known_keys_go_on_for_a_while(
    secured: Secured, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, m9m = secured()
    _, text = make(app, m9m)
    _, unseen = make(app, m9m)
    bearer = client_as(app, "ann")
    assert ask(app, text).status_code == 200

    def away(query: Any) -> Any:
        raise DatabaseUnavailable("down")

    monkeypatch.setattr(app.extensions["m9m"].database, "read", away)
    clock.advance(20.0)
    assert ask(app, text).status_code == 200
    answer = ask(app, unseen)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    clock.advance(11.0)
    assert ask(app, text).status_code == 503
    assert bearer.get("/x").status_code == 503  # it may be revoked


def test_keys_that_are_switched_off_are_nothing(secured: Secured) -> None:
    app, m9m = secured(api_keys={"enabled": False})
    _, text = make(app, m9m)
    answer = ask(app, text)
    assert answer.json["code"] == "AUTH_REQUIRED"
    assert answer.headers.getlist("WWW-Authenticate") == CHALLENGES[:1]


def test_an_apps_own_engine_is_used(tmp_path: Path, clock: Clock) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'app.db'}")
    app = Flask("app", instance_path=str(tmp_path / "instance"))
    m9m = M9M(app, settings=make_settings(), clock=clock, engine=engine)
    app.add_url_rule("/x", "x", require_auth(lambda: "x"))
    _, text = make(app, m9m)
    assert ask(app, text).status_code == 200
    assert "m9m_api_keys" in sa.inspect(engine).get_table_names()
    assert not (tmp_path / "instance").exists()
    engine.dispose()


def test_an_owner_is_the_same_however_it_is_typed(secured: Secured) -> None:
    app, m9m = secured()
    key, _ = make(app, m9m, owner="Zoe\u0308")
    with app.app_context():
        assert key.owner == "Zo\u00eb"
        for typed in ("Zoe\u0308", "Zo\u00eb"):
            assert [one.id for one in m9m.api_keys.list(owner=typed)] == [key.id]
        with pytest.raises(ValueError, match="owner"):
            m9m.api_keys.create("ci", "\ufb2c" * 200)  # three times as long in NFC
        m9m.api_keys.revoke(key.id, owner="Zoe\u0308")


def test_a_key_that_is_used_rarely_is_not_pruned_after_its_use(
    secured: Secured, clock: Clock
) -> None:
    app, m9m = secured()
    _, text = make(app, m9m)
    for _ in range(3):
        clock.advance(30 * 86_400.0)
        assert ask(app, text).status_code == 200
        settle()
    with app.app_context():
        assert m9m.api_keys.prune("20d") == []


def test_a_users_keys_are_found_without_a_walk_through_all() -> None:
    known = KnownKeys()
    for number in range(5):
        identity = Identity(f"user-{number % 2}", "api_key")
        known.keep(bytes([number]), KnownKey(f"key-{number}", identity))

    known.drop("user", "user-1")
    assert list(known._known) == [b"\0", b"\2", b"\4"]
    known.drop("api_key", "key-2")
    known.drop("user", "nobody")
    assert list(known._known) == [b"\0", b"\4"]
    known.drop("user", "user-0")
    assert known._touched_by == {}
