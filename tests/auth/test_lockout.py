from __future__ import annotations

import sys
import threading
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_m9m.auth.lockout import Lockout, account_key
from flask_m9m.errors import (
    InvalidCredentials,
    LimitsUnavailable,
    ServiceUnavailable,
    TooManyAttempts,
)
from flask_m9m.http.address import Client
from flask_m9m.ratelimit.gcra import Hit
from flask_m9m.ratelimit.memory import MemoryStore
from flask_m9m.ratelimit.store import StoreFailure, Want
from flask_m9m.settings.models import LockoutSettings
from flask_m9m.testing import Clock

DAY = 86_400
HOME, ELSEWHERE = "192.0.2.7", "203.0.113.5"


def client_at(address: str) -> Client:
    return Client(address, address, secure=True)


OVER_A_SOCKET = Client(None, "unix", secure=True)


class Store(MemoryStore):
    """A store in memory that fails on demand."""

    taking_fails = refunding_fails = False

    def hit_all(self, wants: Sequence[Want]) -> list[Hit]:
        if self.taking_fails:
            raise StoreFailure("gone")
        return super().hit_all(wants)

    def hit(self, *want: Any) -> Hit:
        if self.taking_fails:
            raise StoreFailure("gone")
        return super().hit(*want)

    def refund(self, *want: Any) -> None:
        if self.refunding_fails:
            raise StoreFailure("gone")
        super().refund(*want)


MakeLockout = Callable[..., Lockout]


@pytest.fixture
def store(clock: Clock) -> Store:
    return Store(clock=clock)


@pytest.fixture
def make_lockout(store: Store, clock: Clock) -> MakeLockout:
    def make(attempts: int = 3, per: str = "60s", enabled: bool = True) -> Lockout:
        settings = LockoutSettings(attempts=attempts, per=per, enabled=enabled)  # type: ignore[arg-type]
        return Lockout(settings, store, clock)

    return make


@pytest.fixture
def lockout(make_lockout: MakeLockout) -> Lockout:
    return make_lockout()


def fail(lockout: Lockout, name: str = "ann", address: str = ELSEWHERE) -> bool:
    """Guess wrong; tell whether the guess was verified at all."""
    verified = False
    try:
        with lockout.attempt(name, client_at(address)):
            verified = True
            raise InvalidCredentials
    except (InvalidCredentials, TooManyAttempts):
        return verified


def sign_in(lockout: Lockout, name: str = "ann", address: str = HOME) -> bool:
    """Give the right password; tell whether it was verified."""
    try:
        with lockout.attempt(name, client_at(address)):
            return True
    except TooManyAttempts:
        return False


def addresses() -> Iterator[str]:
    return (f"198.51.100.{number}" for number in range(1, 255))


# Both counters


def test_so_many_failures_are_verified_and_the_next_ones_are_not(lockout: Lockout) -> None:
    assert [fail(lockout) for _ in range(5)] == [True, True, True, False, False]


def test_an_account_is_counted_from_all_addresses_together(lockout: Lockout) -> None:
    assert [fail(lockout, "ann", address) for address in "1234"] == [True, True, True, False]
    assert fail(lockout, "bob", "4")


def test_an_address_is_counted_for_all_accounts_together(lockout: Lockout) -> None:
    assert [fail(lockout, name) for name in "abcd"] == [True, True, True, False]
    assert fail(lockout, "d", HOME)


def test_a_refused_attempt_takes_nothing_from_the_other_counter(lockout: Lockout) -> None:
    for _ in range(3):
        fail(lockout, "ann", ELSEWHERE)
    for _ in range(20):
        assert not fail(lockout, "ann", HOME)  # the account is out, this address is not
        assert not fail(lockout, "bob", ELSEWHERE)  # the address is out, this account is not
    assert [fail(lockout, "bob", HOME) for _ in range(4)] == [True, True, True, False]


def test_a_success_takes_nothing(lockout: Lockout) -> None:
    assert all(sign_in(lockout) for _ in range(50))
    assert [fail(lockout, "ann", HOME) for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize("error", [ServiceUnavailable, ZeroDivisionError, KeyboardInterrupt])
def test_only_a_wrong_password_counts_and_no_other_error(
    lockout: Lockout, error: type[BaseException]
) -> None:
    for _ in range(10):
        with pytest.raises(error), lockout.attempt("ann", client_at(HOME)):
            raise error
    assert [fail(lockout, "ann", HOME) for _ in range(4)] == [True, True, True, False]


def test_an_error_is_not_a_sign_in(lockout: Lockout) -> None:
    with pytest.raises(ZeroDivisionError), lockout.attempt("ann", client_at(HOME)):
        raise ZeroDivisionError
    for address in addresses():
        fail(lockout, "ann", address)
    assert not sign_in(lockout, "ann", HOME)


def test_the_refusal_says_when_the_next_attempt_is_due_and_then_it_is(
    make_lockout: MakeLockout, clock: Clock
) -> None:
    lockout = make_lockout(attempts=3, per="60s")
    for _ in range(3):
        fail(lockout)
    with pytest.raises(TooManyAttempts) as caught, lockout.attempt("ann", client_at(ELSEWHERE)):
        raise AssertionError("the password must not be verified")
    assert list(caught.value.headers) == [("Retry-After", "20")]
    clock.advance(19)
    assert not fail(lockout)
    clock.advance(1)
    assert fail(lockout)
    assert not fail(lockout)


@pytest.mark.parametrize("per", ["0.2s", "1s", "1.5s"])
def test_a_refusal_never_says_to_come_back_at_once(make_lockout: MakeLockout, per: str) -> None:
    lockout = make_lockout(attempts=1000, per=per)
    for _ in range(1000):
        fail(lockout)
    with pytest.raises(TooManyAttempts) as caught, lockout.attempt("ann", client_at(ELSEWHERE)):
        pass
    assert list(caught.value.headers) == [("Retry-After", "1")]


def test_a_lockout_that_is_switched_off_asks_no_store(
    make_lockout: MakeLockout, store: Store
) -> None:
    store.taking_fails = store.refunding_fails = True
    lockout = make_lockout(attempts=1, enabled=False)
    assert all(fail(lockout) and sign_in(lockout) for _ in range(5))
    assert lockout.count_forged(client_at(HOME)) is None


# The owner's own addresses


def test_strangers_guesses_do_not_lock_the_owner_out(lockout: Lockout) -> None:
    assert sign_in(lockout, "ann", HOME)
    for address in addresses():
        fail(lockout, "ann", address)
    assert not sign_in(lockout, "ann", ELSEWHERE)
    assert sign_in(lockout, "ann", HOME)


def test_a_known_address_gives_so_many_guesses_and_no_more(lockout: Lockout) -> None:
    sign_in(lockout, "ann", HOME)
    assert [fail(lockout, "ann", HOME) for _ in range(5)] == [True, True, True, False, False]
    assert fail(lockout, "ann", ELSEWHERE)  # they took nothing from everybody's counter


def test_an_address_is_known_for_the_account_that_signed_in_there_alone(lockout: Lockout) -> None:
    sign_in(lockout, "mallory", HOME)
    for address in addresses():
        fail(lockout, "ann", address)
    assert not sign_in(lockout, "ann", HOME)


def test_a_failed_sign_in_makes_no_address_known(lockout: Lockout) -> None:
    fail(lockout, "ann", HOME)
    for address in addresses():
        fail(lockout, "ann", address)
    assert not sign_in(lockout, "ann", HOME)


@pytest.mark.parametrize(("passed", "known"), [(30 * DAY, True), (31 * DAY, False)])
def test_an_address_is_known_for_thirty_days(
    lockout: Lockout, clock: Clock, passed: float, known: bool
) -> None:
    sign_in(lockout, "ann", HOME)
    clock.advance(passed)
    for address in addresses():
        fail(lockout, "ann", address)
    assert sign_in(lockout, "ann", HOME) is known


# Unix sockets


def test_over_a_socket_the_account_alone_is_counted(lockout: Lockout) -> None:
    def attempt(name: str) -> bool:
        try:
            with lockout.attempt(name, OVER_A_SOCKET):
                raise InvalidCredentials
        except InvalidCredentials:
            return True
        except TooManyAttempts:
            return False

    assert [attempt("ann") for _ in range(4)] == [True, True, True, False]
    assert all(attempt(f"user {number}") for number in range(20))


def test_a_sign_in_over_a_socket_makes_no_address_of_it(lockout: Lockout) -> None:
    with lockout.attempt("ann", OVER_A_SOCKET):
        pass
    for address in addresses():
        fail(lockout, "ann", address)
    with pytest.raises(TooManyAttempts), lockout.attempt("ann", OVER_A_SOCKET):
        pass


def test_forged_tokens_over_a_socket_are_not_counted(lockout: Lockout) -> None:
    assert {lockout.count_forged(OVER_A_SOCKET) for _ in range(20)} == {None}


# Forged tokens and API keys


def test_forged_tokens_are_counted_by_address_and_apart_from_passwords(lockout: Lockout) -> None:
    client = client_at(HOME)
    assert [lockout.count_forged(client) for _ in range(3)] == [None] * 3
    error = lockout.count_forged(client)
    assert isinstance(error, TooManyAttempts)
    assert list(error.headers) == [("Retry-After", "20")]
    assert lockout.count_forged(client_at(ELSEWHERE)) is None
    assert [fail(lockout, "ann", HOME) for _ in range(4)] == [True, True, True, False]


# Stores that fail


def test_a_store_that_fails_lets_nobody_guess(lockout: Lockout, store: Store) -> None:
    store.taking_fails = True
    with pytest.raises(LimitsUnavailable) as caught, lockout.attempt("ann", client_at(HOME)):
        raise AssertionError("the password must not be verified")
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert isinstance(lockout.count_forged(client_at(HOME)), LimitsUnavailable)


def test_a_refund_that_fails_spoils_no_sign_in_and_hides_no_error(
    lockout: Lockout, store: Store
) -> None:
    store.refunding_fails = True
    assert sign_in(lockout)
    with pytest.raises(ZeroDivisionError), lockout.attempt("ann", client_at(HOME)):
        raise ZeroDivisionError


# Clocks


def test_a_slow_verification_gives_back_no_token_that_was_refilled_meanwhile(
    make_lockout: MakeLockout, clock: Clock
) -> None:
    lockout = make_lockout(attempts=3, per="60s")
    for _ in range(2):
        fail(lockout, "ann", HOME)
    with lockout.attempt("ann", client_at(HOME)):  # takes the third token of three
        clock.advance(20)
    assert [fail(lockout, "ann", ELSEWHERE) for _ in range(2)] == [True, False]


def test_a_clock_that_steps_back_blocks_nobody_longer_than_an_empty_bucket_does(
    make_lockout: MakeLockout, clock: Clock
) -> None:
    lockout = make_lockout(attempts=3, per="60s")
    for _ in range(4):
        fail(lockout)
    clock.advance(-365 * DAY)
    assert [fail(lockout) for _ in range(4)] == [True, True, True, False]
    clock.advance(20)
    assert fail(lockout)


# Names


@pytest.mark.parametrize(
    ("name", "spelling"),
    [
        ("ann", "ANN"),
        ("ann", "\uff41\uff4e\uff4e"),
        ("straße", "STRASSE"),
        ("jos\u00e9", "JOSE\u0301"),
        ("σίσυφος", "ΣΊΣΥΦΟΣ"),
        ("\u212aelvin", "kelvin"),
        ("ﬁnn", "FINN"),
        ("ſam", "sam"),
        ("\u0390", "\u0399\u0308\u0301"),  # ΐ and its capitals, which no single character is
        ("\u03b0", "\u03ab\u0301"),
        ("\u1fb3", "ΑΙ"),
        ("kır", "KIR"),
        ("ann", "a\u00adn\u200bn\ufe0f"),
    ],
)
def test_all_spellings_of_a_name_are_one_account(name: str, spelling: str) -> None:
    assert account_key(name) == account_key(spelling)


@pytest.mark.parametrize(
    ("name", "other"),
    [("ann", "ann "), ("ann", "bob"), ("ann", "ann\0"), ("a b", "ab"), ("", " "), ("e", "é")],
)
def test_different_names_are_different_accounts(name: str, other: str) -> None:
    assert account_key(name) != account_key(other)


@given(st.text(st.characters(), max_size=50) | st.sampled_from(["\ud800", "x" * 100_000]))
def test_the_key_of_any_name_is_short_and_says_nothing_of_it(name: str) -> None:
    key = account_key(name)
    assert len(key) == 64
    assert set(key) <= set("0123456789abcdef")
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert account_key(unicodedata.normalize(form, name)) == key


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_every_character_is_of_one_account_with_its_capitals_and_small_letters(form: str) -> None:
    apart = []
    for char in map(chr, range(sys.maxunicode + 1)):
        forms = {unicodedata.normalize(form, text) for text in (char, char.upper(), char.lower())}
        forms |= {char.title(), char.casefold(), char.swapcase()}
        if len({account_key(f"x{text}y") for text in forms if len(forms) > 1}) > 1:
            apart.append(char)
    assert apart == []


def test_a_name_of_any_length_and_any_characters_costs_little() -> None:
    def cost(name: str) -> float:
        begun = time.thread_time()
        account_key(name)
        return time.thread_time() - begun

    bases = ["a\u0301\u0316", "\ufdfa", "\u0390", "\u200b", "\ud800", "İ"]
    for base in bases:
        short = min(cost(base * 512) for _ in range(20))
        assert min(cost(base * 100_000) for _ in range(5)) < 20 * short + 1e-3


# Threads


@pytest.fixture
def switching() -> Iterator[None]:
    """Let threads take turns as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("count", [1, 8, 64])
def test_no_more_guesses_are_verified_at_a_time_than_attempts_are_left(
    make_lockout: MakeLockout, count: int
) -> None:
    lockout = make_lockout(attempts=5)
    lock, decided = threading.Lock(), threading.Event()
    seen: Counter[str] = Counter()

    def note(decision: str) -> None:
        with lock:
            seen[decision] += 1
            if seen.total() == count:
                decided.set()

    def guess(number: int) -> None:
        try:
            with lockout.attempt("ann", client_at(f"198.51.100.{number}")):
                note("verified")
                assert decided.wait(30)  # all are being verified at once
                raise InvalidCredentials
        except TooManyAttempts:
            note("refused")
        except InvalidCredentials:
            pass

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(guess, range(count)))
    assert seen["verified"] == min(count, 5)
    assert seen["refused"] == count - min(count, 5)


@pytest.mark.usefixtures("switching")
@pytest.mark.parametrize("count", [1, 8, 64])
def test_guesses_in_any_number_of_threads_are_verified_so_often_and_no_more(
    make_lockout: MakeLockout, count: int
) -> None:
    lockout = make_lockout(attempts=10, per="1h")
    barrier = threading.Barrier(count)

    def attack(number: int) -> int:
        barrier.wait()
        return sum(fail(lockout, "ann", f"198.51.100.{number}") for _ in range(64 // count * 2))

    with ThreadPoolExecutor(count) as pool:
        assert sum(pool.map(attack, range(count))) == 10


@pytest.mark.usefixtures("switching")
@pytest.mark.parametrize("count", [1, 8, 64])
def test_threads_that_sign_in_and_err_leave_every_token_where_it_was(
    make_lockout: MakeLockout, count: int
) -> None:
    lockout = make_lockout(attempts=3 * count, per="1h")
    barrier = threading.Barrier(count)

    def use(number: int) -> Counter[str]:
        barrier.wait()
        seen: Counter[str] = Counter()
        for turn in range(30):
            try:
                with lockout.attempt("ann", client_at(HOME)):
                    if turn % 3 == 0:
                        raise ZeroDivisionError
                    seen["signed in"] += 1
            except ZeroDivisionError:
                seen["failed otherwise"] += 1
        return seen

    with ThreadPoolExecutor(count) as pool:
        seen = sum(pool.map(use, range(count)), Counter())
    assert seen == {"signed in": 20 * count, "failed otherwise": 10 * count}
    guesses = [fail(lockout, "ann", HOME) for _ in range(3 * count + 1)]
    assert guesses == [True] * (3 * count) + [False]
