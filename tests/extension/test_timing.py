"""How long a refusal takes does not tell why: of names, of passwords and of API keys.

The requests are made in turns, so that whatever slows the machine down slows all of them, and
what is compared are medians. A difference counts only if it is found again in more rounds.
"""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import count
from statistics import median

import pytest
from flask import Flask

from flask_m9m import M9M
from flask_m9m.auth.api_key_format import make_key
from flask_m9m.testing import Clock
from tests.secured import Secured

ROUNDS = 40
TRIES = 3
MOST = 0.2
"""Part of a request's time; a hash or a query more or less is at least half as much again."""

Act = Callable[[], None]


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash fast, and yet for several times as long as all else in a request."""
    monkeypatch.setattr("flask_m9m.auth.passwords.METHOD", "scrypt:1024:8:1")


def differences(acts: Mapping[str, Act], rounds: int) -> dict[str, float]:
    """Return by how much each takes longer than the first, as a part of the first one's time."""
    names = list(acts)
    took: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        at = number % len(names)  # none is always the one after the same other
        for name in names[at:] + names[:at]:
            begun = time.perf_counter()
            acts[name]()
            took[name].append(time.perf_counter() - begun)
    first, *others = names
    usual = median(took[first])
    return {
        other: median(b - a for a, b in zip(took[first], took[other], strict=True)) / usual
        for other in others
    }


def tells_nothing(acts: Mapping[str, Act]) -> None:
    """Check that all take equally long."""
    differences(acts, 3)  # connections, caches
    found = [differences(acts, ROUNDS)]
    while any(abs(difference) > MOST for difference in found[-1].values()):
        assert len(found) < TRIES, found
        found.append(differences(acts, ROUNDS * 2 ** len(found)))


def sign_in(app: Flask, name: str, password: Callable[[], str]) -> Act:
    client = app.test_client()

    def act() -> None:
        sent = b64encode(f"{name}:{password()}".encode()).decode()
        assert client.get("/x", headers={"Authorization": f"Basic {sent}"}).status_code == 401

    return act


@pytest.mark.parametrize("configured", [False, True], ids=["table", "and configured user"])
def test_a_wrong_password_takes_as_long_as_an_unknown_name(
    secured: Secured, configured: bool
) -> None:
    basic: dict[str, object] = {"enabled": True}
    if configured:
        basic |= {"username": "ops", "password": "correct horse"}
    app, m9m = secured(basic_auth=basic, lockout={"enabled": False})
    with app.app_context():
        for name in ("ann", "gone"):
            m9m.users.create(name, "correct horse")
        m9m.users.disable("gone")
    numbers = count()
    names = ["ann", "nobody", "gone", *(["ops"] if configured else [])]
    tells_nothing({name: sign_in(app, name, lambda: f"wrong {next(numbers)}") for name in names})


def make(app: Flask, m9m: M9M, **options: datetime) -> tuple[str, str]:
    with app.app_context():
        key, text = m9m.api_keys.create("ci", "ann", **options)  # type: ignore[arg-type]
    return key.id, text


def use(app: Flask, key: Callable[[], str]) -> Act:
    client = app.test_client()

    def act() -> None:
        assert client.get("/x", headers={"X-API-Key": key()}).status_code == 401

    return act


def test_an_unknown_key_takes_as_long_as_one_that_held_before(
    secured: Secured, clock: Clock
) -> None:
    app, m9m = secured(lockout={"enabled": False})
    _, expired = make(app, m9m, expires_at=datetime.fromtimestamp(clock() + 60.0, UTC))
    (key_id, revoked), (replaced_id, replaced) = make(app, m9m), make(app, m9m)
    with app.app_context():
        m9m.api_keys.revoke(key_id)
        m9m.api_keys.rotate(replaced_id, grace=0)
    clock.advance(60.0)
    unknown = [make_key("m9m_sk_") for _ in range(64)]
    numbers = count()
    tells_nothing(
        {
            "unknown": use(app, lambda: unknown[next(numbers) % 64]),
            "revoked": use(app, lambda: revoked),
            "expired": use(app, lambda: expired),
            "replaced": use(app, lambda: replaced),
        }
    )
