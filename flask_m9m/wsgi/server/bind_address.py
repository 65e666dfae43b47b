"""Where a server listens."""

from __future__ import annotations

import errno
import ipaddress
import socket
from contextlib import closing

from ...errors import Problem, SettingsError
from ...settings.models import Settings


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bind_address(host: str, port: int) -> str:
    """Write an address as gunicorn reads it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_development(settings: Settings, host: str) -> None:
    """Refuse development mode where others than this machine reach it.

    Raises:
        SettingsError: they do.
    """
    if settings.development.enabled and not is_loopback(host):
        found = f"true, while the server listens on {host!a}, which is not loopback"
        accepted = "false, or server.host: 127.0.0.1: development mode answers any origin"
        raise SettingsError([Problem("development.enabled", found, accepted)])


def check_free(host: str, port: int) -> None:
    """See that nothing else listens there.

    Raises:
        SettingsError: something does, or this machine has no such address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen(1)
    except PermissionError:
        found, accepted = f"{port} is not allowed to this user", "a port of 1024 or above"
        raise SettingsError([Problem("server.port", found, accepted)]) from None
    except socket.gaierror as error:
        found = f"{host!a} cannot be resolved: {error.strerror}"
        raise SettingsError([Problem("server.host", found, "an address of this machine")]) from None
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        path = "server.port" if in_use else "server.host"
        found = f"{bind_address(host, port)}: {error.strerror}"
        accepted = "a port that nothing listens on" if in_use else "an address of this machine"
        raise SettingsError([Problem(path, found, accepted)]) from None
