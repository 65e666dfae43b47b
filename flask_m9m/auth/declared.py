"""What an app brings itself: its users, its schemes, what it knows about an identity."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from ..errors import InvalidCredentials
from ..identity import Identity
from .basic import PasswordVerifier
from .custom import BUILT_IN, AuthenticateRequest

IdentityLoader = Callable[[Identity], Identity | None]

_REMEMBERED = 4_096


@dataclass(slots=True)
class Declared:
    """What was declared on an `M9M` about who calls.

    Attributes:
        password_verifier: tells whose name and password these are.
        authenticators: schemes by their names.
        identity_loader: enriches an identity, or refuses it with `None`.
        lifetime: seconds for which a loaded identity is kept; 0: it is loaded for each request.
    """

    password_verifier: PasswordVerifier | None = None
    authenticators: dict[str, AuthenticateRequest] = field(default_factory=dict)
    identity_loader: IdentityLoader | None = None
    lifetime: float = 0.0
    _loaded: OrderedDict[Identity, tuple[float, Identity]] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add_authenticator(self, scheme: str, authenticate: AuthenticateRequest) -> None:
        """Add a scheme.

        Raises:
            ValueError: there is one of that name.
        """
        if scheme in BUILT_IN or scheme in self.authenticators:
            raise ValueError(f"there is a scheme {scheme!r} already")
        self.authenticators[scheme] = authenticate

    def load(self, identity: Identity, clock: Callable[[], float]) -> Identity:
        """Return an identity as the app enriches it.

        Raises:
            InvalidCredentials: the app does not want it.
        """
        now = clock()
        known = self._loaded.get(identity) if self.lifetime else None
        if known is not None and 0 <= now - known[0] < self.lifetime:
            return known[1]
        assert self.identity_loader is not None  # noqa: S101  # asked for only where there is one
        loaded = self.identity_loader(identity)
        if loaded is None:
            raise InvalidCredentials
        if self.lifetime:
            with self._lock:
                self._loaded[identity] = (now, loaded)
                if len(self._loaded) > _REMEMBERED:
                    self._loaded.popitem(last=False)
        return loaded
