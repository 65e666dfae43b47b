"""Names however they are typed, and names that nobody can have."""

from __future__ import annotations

from base64 import b64encode

import pytest
from flask import Flask

from flask_m9m.auth.jwt.issuer import Issuer
from flask_m9m.auth.names import checked_name, name_of
from flask_m9m.errors import InvalidToken, NotFound
from tests.secured import Secured

PASSWORD = "correct horse"
NFC, NFD = "jos\u00e9", "jose\u0301"
ODD = ["a\0b", "\ud800", "", "x" * 256, "a\u0301\u0316" * 500_000, "a\x7f", "a\nb"]


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_m9m.auth.passwords.METHOD", "scrypt:1024:8:1")


def status(app: Flask, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return app.test_client().get("/x", headers=headers).status_code


def test_a_token_ends_with_its_user_however_the_name_was_typed(secured: Secured) -> None:
    app, m9m = secured()
    with app.app_context():
        m9m.users.create(NFC, PASSWORD)
        tokens = [m9m.tokens.issue(NFD), m9m.tokens.issue_pair(NFD).access_token]
        assert m9m.tokens.verify(tokens[0]).subject == NFC
        m9m.users.disable(NFD)
        assert [status(app, one) for one in tokens] == [401, 401]
        other = m9m.tokens.issue_pair("Zoe\u0308")
        m9m.tokens.revoke_subject("Zoe\u0308")
        assert status(app, other.access_token) == 401
        with pytest.raises(InvalidToken):
            m9m.tokens.refresh(other.refresh_token)


def test_another_issuers_spelling_of_a_subject_is_the_same_subject(
    secured: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, m9m = secured()
    with app.app_context():
        ring = m9m.tokens._issuer._ring  # type: ignore[union-attr]
        clock = m9m.tokens._clock
        token = Issuer(ring, expiration=60, clock=clock).issue(NFD)
        assert status(app, token) == 200
        m9m.tokens.revoke_subject(NFC)
        assert status(app, token) == 401


@pytest.mark.parametrize("name", ODD, ids=range(len(ODD)))
def test_a_name_that_nobody_can_have_is_nobodys(secured: Secured, name: str) -> None:
    app, m9m = secured(basic_auth={"enabled": True})
    with app.app_context():
        m9m.users.create("ann", PASSWORD)
        assert m9m.users.get(name) is None
        assert m9m.users.verify_password(name, PASSWORD) is None
        assert m9m.api_keys.list(owner=name) == []
        for act in (m9m.users.disable, m9m.users.update, m9m.api_keys.revoke, m9m.api_keys.rotate):
            with pytest.raises(NotFound):
                act(name)
        with pytest.raises(ValueError, match="subject"):
            m9m.tokens.issue_pair(name)
        m9m.tokens.revoke_session(name)
    if "\ud800" not in name:
        sent = b64encode(f"{name}:{PASSWORD}".encode()).decode()
        answer = app.test_client().get("/x", headers={"Authorization": f"Basic {sent}"})
        assert answer.status_code == 401


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "\u202e\u2028", "a\nb"])
def test_a_subject_of_any_text_can_be_revoked(secured: Secured, name: str) -> None:
    app, m9m = secured()
    with app.app_context():
        token = m9m.tokens.issue(name)
        assert status(app, token) == 200
        m9m.tokens.revoke_subject(name)
        assert status(app, token) == 401


def test_a_name_is_bounded_in_the_form_that_is_kept() -> None:
    assert name_of("e\u0301" * 255) == "\u00e9" * 255
    assert name_of("e\u0301" * 256) is None
    assert name_of("\ufb2c" * 128) is None  # twice as long in NFC
    for odd in ODD:
        assert name_of(odd) is None
    for value in (None, 7, b"ann", ["ann"]):
        assert name_of(value) is None
    with pytest.raises(ValueError, match="printable"):
        checked_name("a username", "ann\u202e")
