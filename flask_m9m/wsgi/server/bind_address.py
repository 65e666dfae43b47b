"""Bind address: whether it is loopback, whether its port is free, and its form for gunicorn."""

from __future__ import annotations

import errno
import ipaddress
import socket
from contextlib import closing

from ...errors import Problem, SettingsError
from ...settings.models import Settings


def is_loopback(host: str) -> bool:
    """Tell whether a host is loopback: only this machine can reach it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bind_address(host: str, port: int) -> str:
    """Format an address for gunicorn."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_development(settings: Settings, host: str) -> None:
    """Refuse development mode if other machines can reach the server.

    Args:
        settings: the app's settings.
        host: the host on which the server will listen.

    Raises:
        SettingsError: development mode is enabled, and the host is not loopback.
    """
    if settings.development.enabled and not is_loopback(host):
        found = f"true, but the server listens on {host!a}, which is not loopback"
        accepted = "set it to false, or server.host to 127.0.0.1: this mode allows any origin"
        raise SettingsError([Problem("development.enabled", found, accepted)])


def check_free(host: str, port: int) -> None:
    """Check that the server can listen on an address.

    Raises:
        SettingsError: the port is in use or not allowed, or this machine has no such address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen(1)
    except PermissionError:
        found, accepted = f"{port}, which this user may not use", "must be 1024 or higher"
        raise SettingsError([Problem("server.port", found, accepted)]) from None
    except socket.gaierror as error:
        found = f"{host!a} cannot be resolved: {error.strerror}"
        raise SettingsError(
            [Problem("server.host", found, "must be an address of this machine")]
        ) from None
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        path = "server.port" if in_use else "server.host"
        found = f"{bind_address(host, port)}: {error.strerror}"
        accepted = (
            "must be a port that no other program uses"
            if in_use
            else "must be an address of this machine"
        )
        raise SettingsError([Problem(path, found, accepted)]) from None
