"""A pooler that hands each transaction another connection: PgBouncer in transaction mode."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask

from flask_m9m import M9M, require_auth
from flask_m9m.testing import make_settings
from tests.databases import settle

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")

CONFIG = """\
[databases]
app = host={host} dbname={name} user={user}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 3
logfile = {folder}/log
pidfile = {folder}/pid
"""


@pytest.fixture
def pooled_url(postgres_url: str, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database behind a pooler with three connections."""
    url = sa.make_url(postgres_url)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = tmp_path / "pgbouncer.ini"
    host = url.query.get("host") or f"{url.host} port={url.port or 5432}"
    config.write_text(
        CONFIG.format(host=host, name=url.database, user=url.username, port=port, folder=tmp_path)
    )
    command = [str(PGBOUNCER), str(config)]
    if os.getuid() == 0:  # it refuses to run as root: then as the server's user
        host = str(url.query.get("host", tmp_path))
        account = pwd.getpwuid(os.stat(host).st_uid)
        if account.pw_uid == 0:
            account = pwd.getpwnam("nobody")
        for path in (tmp_path, config):
            os.chown(path, account.pw_uid, account.pw_gid)
        command[1:1] = ["-u", account.pw_name]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.1)
        yield f"postgresql://{url.username}@127.0.0.1:{port}/app"
    finally:
        process.terminate()
        process.wait(30)


def test_everything_works_behind_a_pooler_of_transactions(
    pooled_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_m9m.auth.passwords.METHOD", "scrypt:1024:8:1")
    app = Flask("app")
    settings = {
        "database": {"url": pooled_url},
        "security": {"basic_auth": {"enabled": True}},
        "credentials": {"encryption_key": "A" * 43 + "="},
        "audit": {"sinks": ["database"]},
    }
    m9m = M9M(app, settings=make_settings(settings))
    database = app.extensions["m9m"].database
    database.upgrade()
    app.add_url_rule("/x", "x", require_auth(lambda: "x"))

    def work(n: int) -> int:
        with app.app_context():
            name = f"user{n}"
            m9m.users.create(name, "correct horse")
            pair = m9m.tokens.refresh(m9m.tokens.issue_pair(name).refresh_token)
            _, key = m9m.api_keys.create("ci", name)
            made = m9m.credentials.create("one", "apiKey", {"apiKey": str(n)}, owner=name)
            assert m9m.credentials.get(made.id).data == {"apiKey": str(n)}
            client = app.test_client()
            for headers in ({"Authorization": f"Bearer {pair.access_token}"}, {"X-API-Key": key}):
                assert client.get("/x", headers=headers).status_code == 200
            m9m.tokens.revoke_subject(name)
            headers = {"Authorization": f"Bearer {pair.access_token}"}
            return client.get("/x", headers=headers).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(work, range(24))) == {401}
    with app.app_context():
        m9m.audit.flush()
        assert not m9m.audit.verify().problems
        assert len(m9m.users.list()) == 24
    settle()
    database.close()
