"""The secret that development mode makes and keeps."""

from __future__ import annotations

import logging
import os
import secrets
from pathlib import Path

from pydantic import SecretStr

from ..errors import Problem, SettingsError
from .models import Settings

logger = logging.getLogger("flask_m9m")

_LENGTH = 64


def with_secret(settings: Settings, instance_path: str, *, wanted: bool = False) -> Settings:
    """Give development a secret of its own; say once where JWT stays switched off.

    Args:
        settings: the app's.
        instance_path: where the secret is kept.
        wanted: whether the app is in development although its settings do not say so.

    Raises:
        SettingsError: the secret cannot be kept there.
    """
    jwt = settings.security.jwt
    if jwt.secret is not None or jwt.enabled is False:
        return settings
    if not (settings.development.enabled or wanted):
        logger.warning("JWT is switched off: there is no security.jwt.secret (run: flask m9m init)")
        return settings
    secret, path = dev_secret(instance_path)
    logger.warning("development: tokens are signed with the secret in %s", path)
    jwt = jwt.model_copy(update={"secret": secret})
    security = settings.security.model_copy(update={"jwt": jwt})
    return settings.model_copy(update={"security": security})


def dev_secret(instance_path: str) -> tuple[SecretStr, Path]:
    """Return the secret kept in `<instance>/m9m/dev-secret`, made where there is none.

    Reloads, workers and the command line share it.

    Raises:
        SettingsError: the file cannot be made or read, is not this user's alone, or holds
            something else.
    """
    path = Path(instance_path, "m9m", "dev-secret")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _create(path)
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        with os.fdopen(descriptor, encoding="ascii", errors="replace") as file:
            shared = os.fstat(descriptor).st_mode & 0o077
            secret = file.read(_LENGTH + 1)
    except OSError as error:
        raise _unusable(path, error.strerror or "cannot be opened") from None
    if shared:
        raise _unusable(path, "other users may read it")
    if len(secret) != _LENGTH or not secret.isalnum():
        raise _unusable(path, "it does not hold a secret")
    return SecretStr(secret), path


def _create(path: Path) -> None:
    """Write the file whole under another name and link it into place: first come, first kept."""
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


def _unusable(path: Path, found: str) -> SettingsError:
    accepted = "delete it, or set M9M_JWT_SECRET"
    return SettingsError([Problem("security.jwt.secret", f"{path}: {found}", accepted)])
