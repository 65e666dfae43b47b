"""Connections to one Redis server: a call is one message there and one back, within its time.

redis-py makes the connections (names, TLS, log-in) and reads answers. What it does besides
(retries, health checks, telling its own name) is off: a request has no time for it.
"""

from __future__ import annotations

import inspect
import re
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol

from .. import forking
from ..settings.redis_url import Address, RedisURL
from .store import StoreFailure

CALL_SECONDS = 0.12
"""How long a request waits for Redis, connecting included: no more than twice (see `failover`)."""

_CONNECT_SECONDS = 1.0
_MOST_IDLE = 64
_FRESH_SECONDS = 1.0
_ERROR_CODE = re.compile(r"-?([A-Z]{2,20})\b")
_LATE = "Redis cannot be used: it does not answer in time"
_HARMLESS = {None, "NOSCRIPT", "MOVED", "ASK"}
_REASONS = {
    "AuthenticationError": "it refuses user and password",
    "AuthenticationWrongNumberOfArgsError": "it refuses user and password",
    "AuthorizationError": "it refuses user and password",
    "BusyLoadingError": "it is loading its data",
    "ClusterDownError": "the cluster is down",
    "InvalidResponse": "its answer is not Redis's",
    "MasterDownError": "it has lost its master",
    "MasterNotFoundError": "the sentinels name no master",
    "NoPermissionError": "it does not permit this user what rate limits need",
    "NoScriptError": "it forgets the script",
    "OutOfMemoryError": "its memory is full",
    "ReadOnlyError": "it is a replica, or read-only",
    "TimeoutError": "it does not answer in time",
}


_CODES = {
    "AskError": "ASK",
    "ClusterDownError": "CLUSTERDOWN",
    "MasterDownError": "MASTERDOWN",
    "MovedError": "MOVED",
    "NoScriptError": "NOSCRIPT",
    "ReadOnlyError": "READONLY",
}


class Connection(Protocol):
    """What is used of redis-py's connections."""

    def connect(self) -> None: ...

    def disconnect(self) -> None: ...

    def can_read(self, timeout: float = 0) -> bool: ...

    def send_packed_command(self, command: list[bytes], check_health: bool = True) -> None: ...

    def read_response(self) -> Any: ...


def packed(*words: bytes) -> bytes:
    """Write a command as Redis reads it (RESP, an array of bulk strings)."""
    return b"*%d\r\n" % len(words) + b"".join([b"$%d\r\n%b\r\n" % (len(w), w) for w in words])


def failure(error: Exception) -> StoreFailure:
    """Say what went wrong, without anything that an address or a server's answer holds."""
    reason = _REASONS.get(type(error).__name__)
    if reason is None:
        cause: object = error
        while isinstance(cause, BaseException) and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        code = _ERROR_CODE.match(str(error))
        if isinstance(cause, ssl.SSLError):
            reason = f"TLS failed, {cause.reason}"
        elif isinstance(cause, OSError) and cause.strerror:
            reason = cause.strerror[:80]
        elif type(error).__name__ == "ConnectionError":
            reason = "it closed the connection"
        elif type(error).__name__ == "ResponseError" and code:
            reason = f"it answered {code[1]}"
        else:
            reason = f"{type(error).__name__}"
    return StoreFailure(f"Redis cannot be used: {reason}")


def error_code(answer: Any) -> str | None:
    """Return the first word of an error; `None` where an answer is none.

    Which errors redis-py has classes of their own for depends on its version.
    """
    if not isinstance(answer, Exception):
        return None
    code = _ERROR_CODE.match(str(answer))
    return _CODES.get(type(answer).__name__) or (code[1] if code else "")


def load_redis() -> None:
    """Import redis-py.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    try:
        import_module("redis")
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "rate limits in Redis need redis-py: pip install 'flask-m9m[redis]'", name="redis"
        ) from None


def connection_options(url: RedisURL, login: Mapping[str, str]) -> dict[str, Any]:
    """Return what redis-py's connections are made with, besides an address."""
    options: dict[str, Any] = {
        **url.options,
        **login,
        "socket_timeout": _CONNECT_SECONDS,
        "socket_connect_timeout": _CONNECT_SECONDS,
        "protocol": 2,
    }
    known = inspect.signature(
        import_module("redis.connection").AbstractConnection.__init__
    ).parameters
    if "driver_info" in known:
        options["driver_info"] = None
    else:
        options.update(lib_name=None, lib_version=None)
    return options


def connect_to(url: RedisURL, address: Address | None) -> Connection:
    """Make a connection to one of the servers, or to the socket file."""
    module = import_module("redis.connection")
    options = connection_options(url, url.login) | {"db": url.db}
    connection: Connection
    if address is None:
        connection = module.UnixDomainSocketConnection(path=url.path, **options)
    else:
        kind = module.SSLConnection if url.tls else module.Connection
        connection = kind(host=address[0], port=address[1], **options)
    connection.connect()
    return connection


class _Attempt:
    """Connections being made by a thread, one after another, as long as somebody waits."""

    def __init__(self) -> None:
        self.since = time.monotonic()
        self.failure: str | None = None


class Pool:
    """Idle connections to a server, the last one used first.

    Connections are made in a thread of their own, one at a time, so that neither a name that is
    not found nor a server that does not answer holds a request longer than its time. What comes
    late is kept for the next one.

    Args:
        connect: makes a connection, or raises.
    """

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._error: type[Exception] = import_module("redis.exceptions").ResponseError
        self.after_fork()
        forking.watch(self)

    def after_fork(self) -> None:
        """Forget the parent's connections, without a word on them."""
        self._changed = threading.Condition(threading.Lock())
        self._idle: list[tuple[float, Connection]] = []
        self._waiting = 0
        self._attempt: _Attempt | None = None

    def exchange(self, commands: Sequence[bytes], deadline: float) -> list[Any]:
        """Send commands in one message, and return the answer to each.

        Args:
            commands: packed ones.
            deadline: of `time.monotonic`.

        Returns:
            Answers; what redis-py makes of an error is among them and not raised.

        Raises:
            StoreFailure: no answers came in time.
        """
        connection = self._take(deadline)
        try:
            _allow(connection, deadline)
            connection.send_packed_command([b"".join(commands)], check_health=False)
            answers = [self._answer(connection, deadline) for _ in commands]
        except BaseException as error:
            connection.disconnect()
            self.drop()
            if isinstance(error, StoreFailure) or not isinstance(error, Exception):
                raise
            raise failure(error) from None
        self._give_back(connection, answers)
        return answers

    def drop(self) -> None:
        """Close the idle connections: what befell one of them befell the server."""
        while self._idle:
            try:
                _, connection = self._idle.pop()
            except IndexError:
                return
            connection.disconnect()

    def _answer(self, connection: Connection, deadline: float) -> Any:
        _allow(connection, deadline)
        try:
            return connection.read_response()
        except self._error as error:
            return error

    def _give_back(self, connection: Connection, answers: list[Any]) -> None:
        codes = {error_code(answer) for answer in answers}
        if not codes <= _HARMLESS:
            connection.disconnect()
            if "READONLY" in codes:
                self.drop()
            return
        if len(self._idle) >= _MOST_IDLE:
            connection.disconnect()
            return
        self._idle.append((time.monotonic(), connection))
        if self._waiting:
            with self._changed:
                self._changed.notify()

    def _take(self, deadline: float) -> Connection:
        while self._idle:
            try:
                used, connection = self._idle.pop()
            except IndexError:
                break
            if time.monotonic() - used < _FRESH_SECONDS or _is_open(connection):
                return connection
            connection.disconnect()
        with self._changed:
            self._waiting += 1
            try:
                return self._wait(deadline)
            finally:
                self._waiting -= 1

    def _wait(self, deadline: float) -> Connection:
        """Return a connection that becomes free or is made; the lock is held."""
        attempt = None
        patience = max(CALL_SECONDS, deadline - time.monotonic())
        while True:
            try:
                return self._idle.pop()[1]
            except IndexError:
                if attempt is not None and attempt.failure is not None:
                    raise StoreFailure(attempt.failure) from None
            attempt = self._attempt or self._begin()
            now = time.monotonic()
            if now >= deadline or now - attempt.since > patience:
                raise StoreFailure(_LATE)
            self._changed.wait(deadline - now)

    def _begin(self) -> _Attempt:
        attempt = self._attempt = _Attempt()
        thread = threading.Thread(
            target=self._connect_while_awaited, args=(attempt,), name="m9m-redis", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # the process has as many as it may, or is ending
            self._attempt = None
            raise StoreFailure("Redis cannot be used: no thread to connect in") from None
        return attempt

    def _connect_while_awaited(self, attempt: _Attempt) -> None:
        while True:
            connection = None
            try:
                connection = self._connect()
            except Exception as error:
                attempt.failure = str(failure(error))
            with self._changed:
                if connection is not None:
                    self._idle.append((time.monotonic(), connection))
                    attempt.since = time.monotonic()
                self._changed.notify_all()
                if connection is None or len(self._idle) >= self._waiting:
                    self._attempt = None
                    return


def _allow(connection: Any, deadline: float) -> None:
    """Let a connection's socket wait until the deadline, each time."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise StoreFailure(_LATE)
    connection._sock.settimeout(left)


def _is_open(connection: Connection) -> bool:
    """Whether a connection has neither been closed nor got an answer that nobody asked for."""
    try:
        return not connection.can_read(timeout=0)
    except Exception:
        return False
