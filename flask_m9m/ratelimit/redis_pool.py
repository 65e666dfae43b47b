"""Connection pool for one Redis server: each call is one round trip, with a deadline.

redis-py makes the connections (name resolution, TLS, authentication) and reads answers. Its
retries, health checks and the announcement of its version are off: a request has no time for them.
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

from ..processes.forking import watch
from ..settings.redis_url import Address, RedisURL
from .store import StoreFailure

CALL_SECONDS = 0.12
"""Seconds that a call may wait for Redis, connecting included; a request waits twice at most."""

SLOW_SECONDS = 0.08
"""Seconds after which an answer is slow."""

_LEAST_SECONDS = 0.02
_LONGEST_QUEUE = 2.0
_CALLS_TO_CONNECT = 10
_CONNECT_SECONDS = 1.0
_MOST_IDLE = 64
_FRESH_SECONDS = 1.0
_ERROR_CODE = re.compile(r"-?([A-Z]{2,20})\b")
_LATE = "Redis cannot be used: it does not answer in time"
_HARMLESS = {None, "NOSCRIPT", "MOVED", "ASK"}
_REASONS = {
    "AuthenticationError": "it refuses the user name or password",
    "AuthenticationWrongNumberOfArgsError": "it refuses the user name or password",
    "AuthorizationError": "it refuses the user name or password",
    "BusyLoadingError": "it is loading its data",
    "ClusterDownError": "the cluster is down",
    "InvalidResponse": "its answer is not in the Redis protocol",
    "MasterDownError": "the replica has lost its master",
    "MasterNotFoundError": "the sentinels name no master",
    "NoPermissionError": "this user lacks permission for commands that rate limits need",
    "NoScriptError": "it does not keep the script",
    "OutOfMemoryError": "its memory is full",
    "ReadOnlyError": "it is read-only, or a replica",
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
    """The part of redis-py's connections that is used here."""

    def connect(self) -> None: ...

    def disconnect(self) -> None: ...

    def can_read(self, timeout: float = 0) -> bool: ...

    def send_packed_command(self, command: list[bytes], check_health: bool = True) -> None: ...

    def read_response(self) -> Any: ...


def packed(*words: bytes) -> bytes:
    """Encode a command for Redis (RESP, an array of bulk strings)."""
    return b"*%d\r\n" % len(words) + b"".join([b"$%d\r\n%b\r\n" % (len(w), w) for w in words])


def failure(error: Exception) -> StoreFailure:
    """Describe an error without any text from an address or a server's answer."""
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
    """Return the first word of an error answer; `None` if the answer is not an error.

    Which errors have their own classes depends on the version of redis-py.
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
    """Return the keyword arguments of redis-py's connections, except the address."""
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
    """Connect to a server, or to the socket file if there is no address."""
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
    """A thread that makes one connection after another while callers wait.

    Attributes:
        since: when the thread began to connect.
        failure: why it could not, once it has failed.
        lateness: the seconds for which it probably had to wait because other threads ran.
    """

    def __init__(self) -> None:
        self.since = time.monotonic()
        self.lateness = 0.0
        self.failure: str | None = None


class Pool:
    """Idle connections to a server; the last one used is used again first.

    A separate thread makes connections, one at a time, so that neither name resolution nor a
    server that does not answer can delay a request past its deadline. A connection that is made
    too late is kept for the next request.

    Args:
        connect: makes a connection, or raises.
    """

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._error: type[Exception] = import_module("redis.exceptions").ResponseError
        self.after_fork()
        watch(self)

    def after_fork(self) -> None:
        """Forget the parent's connections, and send nothing on them."""
        self._changed = threading.Condition(threading.Lock())
        self._idle: list[tuple[float, Connection]] = []
        self._waiting = 0
        self._moved_at = time.monotonic()
        self._attempt: _Attempt | None = None

    def exchange(self, commands: Sequence[bytes], deadline: float) -> list[Any]:
        """Send commands in one message, and return the answer to each.

        Args:
            commands: packed commands.
            deadline: a time of `time.monotonic`.

        Returns:
            The answers; an error answer is returned as redis-py's exception, not raised.

        Raises:
            StoreFailure: the answers did not arrive in time.
        """
        connection = self._take(deadline)
        try:
            _set_timeout(connection, deadline)
            connection.send_packed_command([b"".join(commands)], check_health=False)
            _note_pace(connection)
            deadline = max(deadline, time.monotonic() + _LEAST_SECONDS)
            answers = [self._read_answer(connection, deadline) for _ in commands]
        except BaseException as error:
            connection.disconnect()
            self.drop()
            if isinstance(error, StoreFailure) or not isinstance(error, Exception):
                raise
            raise failure(error) from None
        self._give_back(connection, answers)
        return answers

    def drop(self) -> None:
        """Close the idle connections: a failure of one is usually a failure of the server."""
        while self._idle:
            try:
                _, connection = self._idle.pop()
            except IndexError:
                return
            connection.disconnect()

    def _read_answer(self, connection: Connection, deadline: float) -> Any:
        _set_timeout(connection, deadline)
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
        self._moved_at = time.monotonic()
        self._idle.append((self._moved_at, connection))
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
        """Return a connection that becomes idle or is made; the caller holds the lock.

        As long as other threads get answers, the server is not to blame for the wait. Nor is it
        where this thread wakes up late because others run: the one that connects is as late at
        each of its calls.
        """
        begun = time.monotonic()
        patience, attempt = deadline - begun, None
        while True:
            try:
                return self._idle.pop()[1]
            except IndexError:
                if attempt is not None and attempt.failure is not None:
                    raise StoreFailure(attempt.failure) from None
            attempt = self._attempt or self._start_attempt()
            due = min(
                max(begun, self._moved_at) + patience,
                max(attempt.since, self._moved_at) + max(CALL_SECONDS, patience),
            )
            due = min(due + attempt.lateness, deadline + _LONGEST_QUEUE)
            now = time.monotonic()
            if now >= due:
                raise StoreFailure(_LATE)
            if not self._changed.wait(due - now):
                lateness = _CALLS_TO_CONNECT * (time.monotonic() - due)
                attempt.lateness = max(attempt.lateness, lateness)

    def _start_attempt(self) -> _Attempt:
        attempt = self._attempt = _Attempt()
        thread = threading.Thread(
            target=self._connect_while_needed, args=(attempt,), name="m9m-redis", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # the process has reached its limit of threads, or is ending
            self._attempt = None
            raise StoreFailure("Redis cannot be used: no thread can start to connect") from None
        return attempt

    def _connect_while_needed(self, attempt: _Attempt) -> None:
        while True:
            connection = None
            try:
                connection = self._connect()
            except Exception as error:
                attempt.failure = str(failure(error))
            with self._changed:
                if connection is not None:
                    self._idle.append((time.monotonic(), connection))
                    attempt.since = self._moved_at = time.monotonic()
                self._changed.notify_all()
                if connection is None or len(self._idle) >= self._waiting:
                    self._attempt = None
                    return


def _set_timeout(connection: Any, deadline: float) -> None:
    """Let the next call on a connection's socket wait until the deadline.

    After the deadline it waits a moment: this thread may be late because others ran.
    """
    connection._sock.settimeout(max(_LEAST_SECONDS, deadline - time.monotonic()))


_pace = threading.local()


def _note_pace(connection: Connection) -> None:
    """Note whether an answer begins to arrive in time.

    The system measures that: the time that this thread then waits to go on, because others run, is
    not the server's.
    """
    slow = not connection.can_read(timeout=SLOW_SECONDS)
    _pace.slow = slow or getattr(_pace, "slow", None) or False


def take_pace() -> bool | None:
    """Tell whether a server has been slow to answer this thread since the last call.

    Returns:
        `None` if no server was asked.
    """
    slow: bool | None = getattr(_pace, "slow", None)
    _pace.slow = None
    return slow


def _is_open(connection: Connection) -> bool:
    """Tell whether a connection is open and has no unread answer."""
    try:
        return not connection.can_read(timeout=0)
    except Exception:
        return False
