"""PasswordPolicy: which passwords users may choose (NIST SP 800-63B-4 §3.1.1.2)."""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..settings.users import UsersSettings
from .names import has_control, has_surrogate, normalize
from .passwords import LONGEST

if TYPE_CHECKING:
    from .app_callbacks import AppCallbacks

logger = logging.getLogger("flask_m9m")

_COMMON = Path(__file__).with_name("common_passwords.txt")


class PasswordPolicy:
    """Checks new passwords: their form, the commonest ones, and the app's breach service.

    Args:
        settings: the shortest length, and whether common passwords are refused.
        callbacks: the app's callbacks, of which one may know passwords from breaches.
    """

    def __init__(self, settings: UsersSettings, callbacks: AppCallbacks) -> None:
        self._settings = settings
        self._callbacks = callbacks

    def check(self, password: object) -> str:
        """Return a new password.

        Raises:
            ValueError: it may not be chosen; the message does not contain it.
        """
        shortest = self._settings.min_password_length
        if not isinstance(password, str) or not shortest <= len(password) <= LONGEST:
            raise ValueError(f"a password must have {shortest} to {LONGEST} characters")
        if has_control(password) or has_surrogate(password):
            raise ValueError("a password must not contain control characters (RFC 7617 §2)")
        if self._settings.refuse_common and normalize(password).lower() in common_passwords():
            raise ValueError("the password is one of the 10,000 commonest: choose another one")
        if self._is_breached(password):
            raise ValueError("the password is known from a breach: choose another one")
        return password

    def _is_breached(self, password: str) -> bool:
        """Ask the app's breach service; a service that fails refuses no password."""
        is_breached = self._callbacks.breach_checker
        if is_breached is None:
            return False
        try:
            return bool(is_breached(password))
        except Exception as error:
            # Without its message, which may contain the password.
            logger.warning(
                "the breach service failed (%s): a new password was not looked up",
                type(error).__name__,
            )
            return False


@lru_cache(1)
def common_passwords() -> frozenset[str]:
    """Read the list of the commonest passwords, in lower case, when it is first needed."""
    lines = _COMMON.read_text("ascii").splitlines()
    return frozenset(line for line in lines if not line.startswith("# "))
