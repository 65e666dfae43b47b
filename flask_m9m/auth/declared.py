"""What an app brings itself: its users, its schemes, what it knows about an identity."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from .. import forking
from ..errors import InvalidCredentials
from ..identity import Identity
from .custom import BUILT_IN, AuthenticateRequest
from .sign_in import PasswordVerifier

IdentityLoader = Callable[[Identity], Identity | None]

_REMEMBERED = 4_096


@dataclass(slots=True)
class Declared:
    """What was declared on an `M9M` about who calls.

    Attributes:
        password_verifier: tells whose name and password these are.
        authenticators: schemes by their names, and whether browsers send them by themselves.
        identity_loader: enriches an identity, or refuses it with `None`.
        lifetime: seconds for which a loaded identity is kept; 0: it is loaded for each request.
        settled: whether an app has taken the schemes over.
    """

    password_verifier: PasswordVerifier | None = None
    authenticators: dict[str, tuple[AuthenticateRequest, bool]] = field(default_factory=dict)
    identity_loader: IdentityLoader | None = None
    lifetime: float = 0.0
    settled: bool = False

    def add_authenticator(
        self, scheme: str, authenticate: AuthenticateRequest, *, ambient: bool
    ) -> None:
        """Add a scheme.

        Raises:
            ValueError: there is one of that name.
            RuntimeError: an app has begun to work already, without it.
        """
        if scheme in BUILT_IN or scheme in self.authenticators:
            raise ValueError(f"there is a scheme {scheme!r} already")
        if self.settled:
            raise RuntimeError(f"declare the authenticator {scheme!r} before the app is first used")
        self.authenticators[scheme] = (authenticate, ambient)


class LoadedIdentities:
    """Identities as one app enriches them.

    Args:
        declared: with the loader, if there is one.
        clock: seconds since the epoch.
    """

    def __init__(self, declared: Declared, clock: Callable[[], float]) -> None:
        self._declared = declared
        self._clock = clock
        self._loaded: OrderedDict[Identity, tuple[float, Identity]] = OrderedDict()
        self._lock = forking.lock(self)

    def __call__(self, identity: Identity) -> Identity:
        """Return an identity as the app enriches it; as it is where the app has no loader.

        Raises:
            InvalidCredentials: the app does not want it.
            TypeError: the loader returned what is no identity.
        """
        load, lifetime = self._declared.identity_loader, self._declared.lifetime
        if load is None:
            return identity
        if not lifetime:
            return _load(load, identity)
        now = self._clock()
        known = self._loaded.get(identity)
        if known is not None and 0 <= now - known[0] < lifetime:
            return known[1]
        loaded = _load(load, identity)
        with self._lock:
            self._loaded[identity] = (now, loaded)
            self._loaded.move_to_end(identity)
            if len(self._loaded) > _REMEMBERED:
                self._loaded.popitem(last=False)
        return loaded


def _load(load: IdentityLoader, identity: Identity) -> Identity:
    loaded = load(identity)
    if loaded is None:
        raise InvalidCredentials
    if not isinstance(loaded, Identity):
        raise TypeError(
            f"the identity loader returned {type(loaded).__name__}: return an Identity or None"
        )
    return replace(loaded, scheme=identity.scheme)
