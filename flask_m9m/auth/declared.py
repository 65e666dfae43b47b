"""What an app brings itself: its users, its schemes, what it knows about an identity."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ..errors import InvalidCredentials
from ..identity import Identity
from ..processes.forking import fork_safe_lock
from ..settings import parse_duration
from .custom import BUILT_IN
from .sign_in import PasswordVerifier

if TYPE_CHECKING:
    from .custom import AuthenticateRequest

Verify = TypeVar("Verify", bound=Callable[[str, str], Identity | bool | None])
LoadIdentity = TypeVar("LoadIdentity", bound=Callable[[Identity], Identity | None])

IdentityLoader = Callable[[Identity], Identity | None]

_REMEMBERED = 4_096


@dataclass(slots=True)
class AppCallbacks:
    """What was declared on an `M9M` about who calls.

    Attributes:
        password_verifier: tells whose name and password these are.
        authenticators: schemes by their names, and whether browsers send them by themselves.
        identity_loader: enriches an identity, or refuses it with `None`.
        lifetime: seconds for which a loaded identity is kept; 0: it is loaded for each request.
        user_loader: returns the app's own object for an identity, in Flask.
        settled: whether an app has taken the schemes over.
    """

    password_verifier: PasswordVerifier | None = None
    authenticators: dict[str, tuple[AuthenticateRequest, bool]] = field(default_factory=dict)
    identity_loader: IdentityLoader | None = None
    lifetime: float = 0.0
    user_loader: Callable[[Identity], Any] | None = None
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


class CallbackDecorators:
    """Something on which an app declares who calls."""

    _callbacks: AppCallbacks

    def password_verifier(self, verify: Verify) -> Verify:
        """Take a function that knows the app's users, for HTTP Basic.

        It gets a name and a password, both in Unicode's NFC, and returns an `Identity`, `True`,
        or nothing where they are wrong. Guesses are throttled before it is asked; that an unknown
        name costs what a wrong password costs is its own to see to.
        """
        self._callbacks.password_verifier = verify
        return verify

    @overload
    def identity_loader(self, load: LoadIdentity, /) -> LoadIdentity: ...

    @overload
    def identity_loader(
        self, load: None = None, /, *, lifetime: float | str = 0
    ) -> Callable[[LoadIdentity], LoadIdentity]: ...

    def identity_loader(self, load: Any = None, /, *, lifetime: float | str = 0) -> Any:
        """Take a function that enriches an identity, whichever scheme proved it.

        It gets an `Identity` and returns one, `dataclasses.replace(identity, roles=…)` say, or
        `None` to refuse it with a 401. Without `lifetime` it is asked for every request.

        Args:
            load: the function, where it stands without parentheses.
            lifetime: how long an answer is kept, as seconds or as `"60s"`.
        """

        def declare(load: LoadIdentity) -> LoadIdentity:
            self._callbacks.identity_loader = load
            self._callbacks.lifetime = parse_duration(lifetime)
            return load

        return declare if load is None else declare(load)


class LoadedIdentities:
    """Identities as one app enriches them.

    Args:
        callbacks: with the loader, if there is one.
        clock: seconds since the epoch.
    """

    def __init__(self, callbacks: AppCallbacks, clock: Callable[[], float]) -> None:
        self._callbacks = callbacks
        self._clock = clock
        self._loaded: OrderedDict[Identity, tuple[float, Identity]] = OrderedDict()
        self._lock = fork_safe_lock()

    def __call__(self, identity: Identity) -> Identity:
        """Return an identity as the app enriches it; as it is where the app has no loader.

        Raises:
            InvalidCredentials: the app does not want it.
            TypeError: the loader returned what is no identity.
        """
        load, lifetime = self._callbacks.identity_loader, self._callbacks.lifetime
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
