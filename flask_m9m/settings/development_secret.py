"""Development secret: the JWT secret that development mode makes and stores in a file."""

from __future__ import annotations

import logging
import os
import secrets
import time
from pathlib import Path

from pydantic import SecretStr

from ..errors import Problem, SettingsError
from .models import Settings
from .secret_files import read_regular_file

logger = logging.getLogger("flask_m9m")

_LENGTH = 64
_PATIENCE = 1.0  # seconds for another process to finish the file


def with_secret(settings: Settings, instance_path: str, *, wanted: bool = False) -> Settings:
    """Add the development secret to settings without a JWT secret.

    Outside of development, log a warning that JWT is switched off. Settings that have a secret, or
    that switch JWT off, are returned unchanged.

    Args:
        settings: the app's settings.
        instance_path: the folder in which the secret is stored.
        wanted: whether development mode applies although the settings do not enable it.

    Raises:
        SettingsError: the secret cannot be stored or read.
    """
    jwt = settings.security.jwt
    if jwt.secret is not None or jwt.enabled is False:
        return settings
    if not (settings.development.enabled or wanted):
        logger.warning("JWT is switched off: security.jwt.secret is not set (run: flask m9m init)")
        return settings
    secret, path = dev_secret(instance_path)
    logger.warning("Development mode: tokens are signed with the secret in %s", path)
    jwt = jwt.model_copy(update={"secret": secret})
    security = settings.security.model_copy(update={"jwt": jwt})
    return settings.model_copy(update={"security": security})


def dev_secret(instance_path: str) -> tuple[SecretStr, Path]:
    """Read the secret in `<instance>/m9m/dev-secret`; create it if it is missing.

    Reloads, workers and the command line share it.

    Args:
        instance_path: the app's instance folder.

    Returns:
        The secret and the file's path.

    Raises:
        SettingsError: the file cannot be created or read, other users can access it or
            replace it, or it does not contain a secret.
    """
    path = Path(instance_path, "m9m", "dev-secret")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _create(path)
        octets, status = _read(path)
        folder = path.parent.stat()
    except OSError as error:
        raise _unusable(path, error.strerror or "cannot be opened") from None
    if os.name == "posix":
        _check_owners(path, status, folder)
    secret = octets.decode("ascii", "replace")
    if len(secret) != _LENGTH or not secret.isalnum():
        raise _unusable(path, "it does not contain a secret")
    return SecretStr(secret), path


def _read(path: Path) -> tuple[bytes, os.stat_result]:
    """Read the file, after the process that creates it has removed its draft, the second link."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        octets, status = read_regular_file(path, _LENGTH + 1, follow=False)
        if status.st_nlink == 1 or time.monotonic() >= deadline:
            return octets, status
        time.sleep(0.01)


def _check_owners(path: Path, status: os.stat_result, folder: os.stat_result) -> None:
    """Refuse a secret that another user may have written, or may know."""
    if status.st_mode & 0o077:
        raise _unusable(path, "other users can access it")
    if status.st_uid != os.geteuid():
        raise _unusable(path, "it belongs to another user")
    if status.st_nlink != 1:
        raise _unusable(path, "it has another hard link")
    if folder.st_mode & 0o022 or folder.st_uid not in (0, os.geteuid()):
        raise _unusable(path.parent, "other users can write to the folder", "run: chmod go-w on it")


def _create(path: Path) -> None:
    """Write the file under another name, then link it: the first process to do so wins."""
    if path.exists():
        return
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(_LENGTH // 2))
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _unusable(path: Path, found: str, remedy: str = "delete it") -> SettingsError:
    accepted = f"{remedy}, or set M9M_JWT_SECRET"
    return SettingsError([Problem("security.jwt.secret", f"{path}: {found}", accepted)])
