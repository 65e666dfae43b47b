"""gunicorn's configuration from the settings: `gunicorn -c python:flask_m9m.serve app:app`.

The settings are those of `M9M_CONFIG` or `./config.yaml`, of `.env` and of the environment.
Settings that an app passes to `M9M` in code are unknown here, unless `flask m9m serve` passes them
to this module. Importing it reads the settings, and raises `SettingsError` if the server cannot
start with them.
"""

from __future__ import annotations

import math
import os
import resource
import ssl
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import gunicorn

from .audit.lines import write_somewhere
from .errors import SettingsError
from .settings.server import ServerSettings
from .settings.sources import load
from .wsgi.server import REMEDY, SERVER_SETTINGS_VARIABLE
from .wsgi.server.access_log import LINE, AccessLogger
from .wsgi.server.bind_address import bind_address, check_development
from .wsgi.server.tls import Certificate
from .wsgi.server.worker import BufferingWorker

if gunicorn.version_info < (27,):
    raise RuntimeError(f"flask-m9m needs gunicorn 27, not {gunicorn.__version__}: {REMEDY}")

_loaded = None if SERVER_SETTINGS_VARIABLE in os.environ else load()
if _loaded is None:
    _server = ServerSettings.model_validate_json(os.environ[SERVER_SETTINGS_VARIABLE])
else:
    _server = _loaded.settings.server
    check_development(_loaded.settings, _server.host)
_START_TIMEOUT = 60
_certificate = Certificate(_server.tls) if _server.tls.enabled else None


class Worker(BufferingWorker):
    """The worker class with these settings."""

    settings = _server


def _connections() -> int:
    """Compute the connections per worker: each may need a second file descriptor, for its body."""
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return max(_server.threads + 1, min(_server.limits.max_connections, (descriptors - 128) // 2))


bind = [bind_address(_server.host, _server.port)]
workers = _server.workers
threads = _server.threads
worker_class = Worker
worker_connections = _connections()
logger_class = AccessLogger
access_log_format = LINE

limit_request_line = min(8_190, _server.limits.max_header_size)
limit_request_fields = min(32_768, _server.limits.max_headers)
limit_request_field_size = _server.limits.max_header_size
keepalive = math.ceil(_server.timeouts.keep_alive)
graceful_timeout = math.ceil(_server.timeouts.graceful)

# The guard alone decides which proxies to trust.
forwarded_allow_ips = ""
secure_scheme_headers: dict[str, str] = {}
forwarder_headers = ""
proxy_protocol = False
control_socket_disable = True

if _certificate is not None:
    certfile = _server.tls.cert_file
    keyfile = _server.tls.key_file


def ssl_context(config: Any, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """Return the shared TLS context; gunicorn calls this for every connection."""
    return default() if _certificate is None else _certificate.context


def on_starting(server: Any) -> None:
    """Check the bind addresses again: gunicorn's command line may have changed them."""
    for address in server.address:
        if _loaded is not None and isinstance(address, tuple):
            try:
                check_development(_loaded.settings, address[0])
            except SettingsError as error:
                sys.exit(f"Error: {error}")


def on_reload(server: Any) -> None:
    """Renew the certificate before new workers start; on an error keep the running workers."""
    if problem := _start_problem(server.app.app_uri):
        server.log.error("The app does not start, so the running workers stay:\n%s", problem)
        server.cfg.set("workers", 0)  # without new workers gunicorn stops no old worker
        return
    if _certificate is None:
        return
    try:
        _certificate.renew()
    except SettingsError as error:
        server.log.error("The new certificate cannot be used, so the old one stays: %s", error)
    else:
        server.log.info("The certificate is valid until %s", _certificate.not_after)


def post_worker_init(worker: Any) -> None:
    """Make sure that audit lines are logged, after the app has set up its own logging."""
    write_somewhere()


def _start_problem(app: str) -> str:
    """Try to load the app; return the error or "". A worker that fails would end gunicorn."""
    code = "import sys; from gunicorn.util import import_app; import_app(sys.argv[1])"
    try:
        result = subprocess.run(  # noqa: S603  # the app is served already
            [sys.executable, "-c", code, app],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_START_TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        return f"loading the app took longer than {_START_TIMEOUT} seconds"
    return result.stderr if result.returncode else ""
