from __future__ import annotations

import threading

import pytest
from werkzeug.security import generate_password_hash

from flask_m9m.auth.names import normalize
from flask_m9m.auth.passwords import PasswordHasher
from flask_m9m.errors import ServiceUnavailable


def test_a_hash_is_scrypt_with_the_parameters_of_owasp_and_its_own_salt() -> None:
    hasher = PasswordHasher()
    one, other = hasher.hash("correct horse"), hasher.hash("correct horse")
    assert one != other
    assert one.startswith("scrypt:131072:8:1$")
    assert hasher.verify(one, "correct horse")
    assert not hasher.verify(one, "correct horsf")


def test_passwords_are_taken_whole_and_in_one_normal_form() -> None:
    hasher = PasswordHasher()
    cheap = "scrypt:1024:8:1"
    long = "a" * 1000
    hashed = generate_password_hash(normalize(f"{long}\u00e9"), cheap)
    assert hasher.verify(hashed, f"{long}e\u0301")
    assert not hasher.verify(hashed, f"{long}e")
    assert not hasher.verify(hashed, long[:72])
    assert not hasher.verify(generate_password_hash("a" * 5000, cheap), "a" * 5000)


@pytest.mark.parametrize("hashed", ["", "x", "a$b", "$$"])
def test_what_is_no_hash_is_nobodys(hashed: str) -> None:
    assert not PasswordHasher().verify(hashed, "x")


def test_only_so_many_are_computed_at_once_and_the_others_wait_a_while() -> None:
    hasher = PasswordHasher(concurrency=1, patience=0.01)
    entered, leave = threading.Event(), threading.Event()

    def occupy() -> None:
        with hasher._turn():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=occupy)
    thread.start()
    entered.wait(10)
    with pytest.raises(ServiceUnavailable) as caught:
        hasher.verify("x", "y")
    assert caught.value.headers == [("Retry-After", "1")]
    leave.set()
    thread.join()
    assert not hasher.verify("x", "y")
