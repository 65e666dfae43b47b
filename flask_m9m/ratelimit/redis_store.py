"""RedisStore: rate limits of several machines, in Redis or Valkey.

A Lua script does all the arithmetic, by the server's clock, in one round trip. With a lease, a
process takes tokens in advance and spends them without asking the server (see `leases`).

A client has one string for each limit:

    m9m:rl:{<8 hexadecimal digits: the app><32: the limit and the client>}
    <theoretical arrival time, microseconds since 1970> <the limit's key, at most 128 characters>

Both numbers of the key are truncated HMAC-SHA256, so that nobody can read a client's name or
address from it. The string expires a second after the theoretical arrival time.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..processes.boot_clock import boot_clock
from .gcra import Hit, admitted, known, look, refused
from .leases import Leases, Reservation
from .limit import MICROSECONDS, RateLimit, read_key
from .redis_pool import CALL_SECONDS, Pool, error_code, failure, packed, take_pace
from .redis_servers import Command, open_servers
from .store import LimitStore, Spender, StoreFailure, Want

_LISTING_SECONDS = 5.0
_SCANNED_AT_ONCE = b"500"
_LABEL = 128
_MOST_LIMITS = 1_024
_VALUE = re.compile(rb"(\d{1,17}) (.*)", re.DOTALL)

_SCRIPT = b"""\
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, tolerance = tonumber(ARGV[1]), tonumber(ARGV[2])
local cost, most = tonumber(ARGV[3]), tonumber(ARGV[4])
local stored = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+) ')
local tat = tonumber(stored or '0')
if tat <= now or tat > now + tolerance then
  tat = now
end
local taken = 0
if cost > 0 then
  local available = math.floor((now + tolerance - tat) / interval)
  if available >= cost then
    taken = math.max(cost, math.min(most, math.floor(available / 4)))
  end
elseif tat > now then
  taken = cost
end
if taken ~= 0 then
  local new = math.max(now, tat + taken * interval)
  local value = string.format('%.0f ', new) .. ARGV[5]
  local kept = string.format('%.0f', math.ceil((new - now) / 1000) + 1000)
  redis.call('SET', KEYS[1], value, 'PX', kept)
end
return {taken, tat, now}
"""
_SHA = hashlib.sha1(_SCRIPT, usedforsecurity=False).hexdigest().encode()


class _Call(NamedTuple):
    """The arguments of one call of the script.

    Attributes:
        key: the key of the client's string.
        arguments: the limit's interval and tolerance, the tokens to take (negative to put back, 0
            to look), the most tokens to take, and the limit's key.
    """

    key: bytes
    arguments: tuple[bytes, ...]


class RedisStore(LimitStore):
    """Theoretical arrival times in Redis.

    Args:
        url: the URL of the servers (see `settings.redis_url`).
        key: the key that hashes clients' names: at least 16 random bytes, the same for all
            processes of an app.
        app: the app's name; apps of the same name and key share their clients' buckets.
        lease: the most tokens to take in one round trip, at least 1; 1 takes none in advance.
        clock: a monotonic clock, in microseconds.

    Raises:
        ValueError: the URL has no known form, or the lease is less than 1.
        ModuleNotFoundError: redis-py is not installed.
    """

    where = "by all machines (Redis)"

    def __init__(
        self,
        url: str,
        key: bytes,
        app: str,
        lease: int = 1,
        clock: Callable[[], int] = boot_clock,
    ) -> None:
        if lease < 1:
            raise ValueError(f"lease must be at least 1, found {lease}")
        self._servers = open_servers(url)
        self._key = hmac.digest(key, b"flask-m9m rate limits\0" + _bytes(app), "sha256")
        self._prefix = b"m9m:rl:{" + self._hash(b"app")[:8]
        self._lease = lease
        self._clock = clock
        self._leases = Leases()
        self._numbers: dict[str, tuple[bytes, bytes, bytes]] = {}

    def hit(self, limit: RateLimit, client: str, cost: int = 1) -> Hit:
        """Take `cost` tokens, 1 to `limit.burst`, from this client's bucket."""
        hit = self._leases.spend(limit, client, cost, self._clock)
        if hit is None:
            sent = self._clock()
            [answer] = self._run([self._call(limit, client, cost)])
            hit = self._leases.add(limit, client, cost, answer, sent)
        return hit

    def hit_all(self, wants: Sequence[Want]) -> list[Hit]:
        """Take tokens from several buckets: from all of them, or from none.

        The buckets without a lease here are asked for in one round trip.

        Returns:
            The result of each bucket up to the first that has too few tokens; the last tells
            whether all had enough.
        """
        if len(wants) == 1:
            return [self.hit(*wants[0])]
        spent, hits = self._leases.spend_all(wants, self._clock)
        asked = []
        for place, hit in enumerate(hits):
            if hit is None:
                asked.append(place)
            elif not hit.admitted:
                return [*_untaken(wants, hits[:place]), hit]
        if spent:
            return [hit for hit in hits if hit is not None]
        deadline, sent = _deadline(), self._clock()
        calls = [self._call(*wants[place]) for place in asked]
        answers = dict(zip(asked, self._run(calls, deadline), strict=True))
        if all(answer.taken for answer in answers.values()):
            return self._spend_all(wants, answers, sent)
        self._run(self._undo_calls(wants, answers, sent), deadline)
        for place, (taken, tat, now) in answers.items():
            limit, _, cost = wants[place]
            if not taken:
                return [*_untaken(wants, hits[:place]), refused(limit, tat, now, cost)]
            hits[place] = admitted(limit, tat + cost * limit.interval, now)
        raise AssertionError("one bucket has too few tokens")

    def refund(self, limit: RateLimit, client: str, cost: int = 1) -> None:
        """Put back tokens that were taken; this process keeps those of a lease."""
        if self._leases.give_back(limit, client, cost):
            return
        self._leases.forget(limit, client)
        self._run([self._call(limit, client, -cost)])

    def peek(self, limit: RateLimit, client: str) -> Hit:
        """Return the result that the client's next request would get, and take nothing."""
        [answer] = self._run([self._call(limit, client, 0)])
        return look(limit, answer.tat, answer.now)

    def reset(self, limit: RateLimit, client: str) -> None:
        """Fill the client's bucket; other processes may refuse the client for a second more."""
        self._leases.forget(limit, client)
        key = self._client_key(limit, client)
        [answer] = self._servers.ask([Command(key, packed(b"DEL", key))], _deadline())
        _integers([answer], 1)

    def was_slow(self) -> bool | None:
        """Tell whether Redis answered this thread's last call slowly; `None`: it was not asked."""
        return take_pace()

    def client_id(self, limit: RateLimit, client: str) -> str:
        """Return the part of the client's key that identifies it."""
        return self._client_key(limit, client)[len(self._prefix) : -1].decode()

    def spenders(self) -> Iterator[Spender]:
        """Return the clients whose buckets are not full, from all servers, in no order.

        It is for the command line: each round trip may take seconds.
        """
        seen: set[bytes] = set()
        for pool in self._servers.masters(_deadline(_LISTING_SECONDS)):
            cursor: Any = b"0"
            while True:
                scan = (b"SCAN", cursor, b"MATCH", self._prefix + b"*", b"COUNT", _SCANNED_AT_ONCE)
                cursor, keys = _read_scan(*_ask_server(pool, packed(*scan)))
                keys = [key for key in keys if key not in seen]
                seen.update(keys)
                if keys:
                    yield from self._read(pool, keys)
                if cursor == b"0":
                    break

    def _read(self, pool: Pool, keys: list[bytes]) -> Iterator[Spender]:
        clock, *values = _ask_server(pool, packed(b"TIME"), *[packed(b"GET", key) for key in keys])
        try:
            now = int(clock[0]) * MICROSECONDS + int(clock[1])
        except (TypeError, ValueError, IndexError):
            raise _unknown_answer() from None
        for key, value in zip(keys, values, strict=True):
            match = _VALUE.fullmatch(value) if isinstance(value, bytes) else None
            try:
                limit = read_key(match[2].decode()) if match else None
            except ValueError:
                continue
            if limit is not None and match is not None and known(limit, int(match[1]), now) > now:
                client_id = key[len(self._prefix) : -1].decode("ascii", "backslashreplace")
                yield Spender(limit, client_id, look(limit, int(match[1]), now))

    def _spend_all(
        self, wants: Sequence[Want], answers: Mapping[int, Reservation], sent: int
    ) -> list[Hit]:
        """Spend the tokens that the servers gave, and those of leases."""
        by_place = {p: self._leases.add(*wants[p], answer, sent) for p, answer in answers.items()}
        for place, want in enumerate(wants):
            if place in by_place:
                continue
            hit = by_place[place] = self.hit(*want)
            if not hit.admitted:  # another thread has spent the lease
                for other in by_place.keys() - {place}:
                    self.refund(*wants[other])
                return [*_untaken(wants, [by_place.get(n) for n in range(place)]), hit]
        return [by_place[place] for place in range(len(wants))]

    def _undo_calls(
        self, wants: Sequence[Want], answers: Mapping[int, Reservation], sent: int
    ) -> list[_Call]:
        """Keep the leases that servers gave; return the calls that put back the other tokens."""
        back = []
        for place, answer in answers.items():
            limit, client, cost = wants[place]
            if answer.taken == cost:
                back.append(self._call(limit, client, -cost))
            else:
                self._leases.add(limit, client, 0 if answer.taken else cost, answer, sent)
        return back

    def _call(self, limit: RateLimit, client: str, cost: int) -> _Call:
        numbers = self._numbers.get(limit.key)
        if numbers is None:
            if len(self._numbers) >= _MOST_LIMITS:
                self._numbers.clear()
            numbers = self._numbers[limit.key] = (
                b"%d" % limit.interval,
                b"%d" % limit.tolerance,
                _bytes(limit.key[:_LABEL]),
            )
        interval, tolerance, label = numbers
        most = 1
        if cost > 0 and self._lease > 1:
            most = self._leases.ahead(limit, client, self._lease, self._clock())
        arguments = (interval, tolerance, b"%d" % cost, b"%d" % most, label)
        return _Call(self._client_key(limit, client), arguments)

    def _run(self, calls: Sequence[_Call], deadline: float | None = None) -> list[Reservation]:
        """Run the script for all calls, in one round trip to each server."""
        if not calls:
            return []
        deadline = deadline or _deadline()
        answers = self._servers.ask([_command(b"EVALSHA", _SHA, call) for call in calls], deadline)
        unknown = [n for n, answer in enumerate(answers) if error_code(answer) == "NOSCRIPT"]
        if unknown:
            again = [_command(b"EVAL", _SCRIPT, calls[n]) for n in unknown]
            for n, answer in zip(unknown, self._servers.ask(again, deadline), strict=True):
                answers[n] = answer
        return [Reservation(*_integers(answer, 3)) for answer in answers]

    def _hash(self, *parts: bytes) -> bytes:
        """Hash texts, each prefixed with its length, to hexadecimal digits."""
        message = b"".join([len(part).to_bytes(4) + part for part in parts])
        return hmac.digest(self._key, message, "sha256").hex().encode()

    def _client_key(self, limit: RateLimit, client: str) -> bytes:
        digits = self._hash(b"client", _bytes(limit.key), _bytes(client))[:32]
        return self._prefix + digits + b"}"


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _deadline(seconds: float = CALL_SECONDS) -> float:
    return time.monotonic() + seconds


def _command(verb: bytes, script: bytes, call: _Call) -> Command:
    return Command(call.key, packed(verb, script, b"1", call.key, *call.arguments))


def _unknown_answer() -> StoreFailure:
    return StoreFailure("Redis cannot be used: its answer has an unknown form")


def _integers(answer: Any, count: int) -> list[int]:
    """Return an answer's integers.

    Raises:
        StoreFailure: the answer is an error, or anything else.
    """
    if isinstance(answer, Exception):
        raise failure(answer)
    if isinstance(answer, list) and len(answer) == count and all(type(n) is int for n in answer):
        return answer
    raise _unknown_answer()


def _ask_server(pool: Pool, *commands: bytes) -> list[Any]:
    return pool.exchange(commands, _deadline(_LISTING_SECONDS))


def _read_scan(answer: Any) -> tuple[bytes, list[bytes]]:
    if isinstance(answer, Exception):
        raise failure(answer)
    try:
        cursor, keys = answer
        return bytes(cursor), [bytes(key) for key in keys]
    except (TypeError, ValueError):
        raise _unknown_answer() from None


def _untaken(wants: Sequence[Want], hits: Sequence[Hit | None]) -> list[Hit]:
    """Return the results with the tokens that they took counted as remaining."""
    untaken = []
    for want, hit in zip(wants, hits, strict=False):
        if hit is not None:
            hit.remaining += want.cost
            untaken.append(hit)
    return untaken
