"""Facade: the base of `M9M` and `M9MMiddleware`: tokens, API keys, users, credentials, audit."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from ..audit.trail import AuditTrail
from ..auth.api_keys import ApiKeys
from ..auth.app_callbacks import AppCallbacks, CallbackDecorators
from ..auth.tokens import Tokens
from ..auth.users import Users
from ..settings.models import Settings
from .assembly import Assembly

if TYPE_CHECKING:
    from ..credentials.credentials import Credentials
    from ..credentials.encryption.cipher import Cipher
    from ..credentials.types import CredentialTypes

Check = TypeVar("Check", bound=Callable[[Any], Any])


class Facade(CallbackDecorators):
    """Gives access to the parts of an app's assembly, under the same names in every framework."""

    def __init__(self) -> None:
        self._callbacks = AppCallbacks()

    def _assembly(self, asking: str = "") -> Assembly:
        """Return the current app's assembly.

        Args:
            asking: the property that needs it, for messages, such as `m9m.tokens`.

        Raises:
            RuntimeError: there is no current app.
        """
        raise NotImplementedError

    @property
    def settings(self) -> Settings:
        """The app's settings."""
        raise NotImplementedError

    @property
    def tokens(self) -> Tokens:
        """Issue, verify, refresh and revoke tokens."""
        return self._assembly("m9m.tokens").identities.tokens

    @property
    def api_keys(self) -> ApiKeys:
        """Create, list, rotate and revoke API keys."""
        return self._assembly("m9m.api_keys").identities.api_keys

    @property
    def users(self) -> Users:
        """Create, change and disable users."""
        return self._assembly("m9m.users").identities.users

    @property
    def audit(self) -> AuditTrail:
        """Record events in the audit trail, query it and verify it."""
        return self._assembly("m9m.audit").trail

    @property
    def credentials(self) -> Credentials:
        """Create, read, change and rotate stored credentials."""
        raise NotImplementedError

    @property
    def cipher(self) -> Cipher:
        """Encrypt and decrypt the app's own data under the settings' keys."""
        return self._assembly("m9m.cipher").cipher()

    @cached_property
    def _credential_types(self) -> CredentialTypes:
        from ..credentials.types import CredentialTypes

        return CredentialTypes()

    def credential_type(self, name: str, required: Collection[str] = ()) -> None:
        """Register a type of stored credentials.

        Args:
            name: 1 to 64 letters, digits and `_.-`; begins with a letter.
            required: the fields that every credential of this type must have.

        Raises:
            ValueError: the name is invalid, or the type exists already.
        """
        self._credential_types.register(name, required)

    def credential_checker(self, type: str) -> Callable[[Check], Check]:
        """Register a function that tests credentials of a type, for `m9m.credentials.test`.

        The function gets the decrypted credential. It raises an exception if the credential does
        not work.

        Args:
            type: the credential type.
        """

        def declare(check: Check) -> Check:
            self._credential_types.checker(type, check)
            return check

        return declare


def check_engine(engine: object) -> None:
    """Check the type of an app's `engine`, without importing SQLAlchemy.

    Raises:
        TypeError: it is neither an engine nor a function that returns one.
    """
    if engine is not None and not callable(engine) and not hasattr(engine, "connect"):
        raise TypeError(
            "engine must be a SQLAlchemy Engine or a function that returns it, "
            f"found {type(engine).__name__}"
        )
