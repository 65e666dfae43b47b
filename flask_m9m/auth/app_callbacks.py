"""The app's own callbacks for authentication: password verifier, schemes and identity loader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ..errors import InvalidCredentials
from ..processes.bounded_cache import BoundedCache
from ..settings.arguments import check_callable, check_type, checked_duration
from .identity import Identity, is_scope
from .schemes.app_scheme import BUILT_IN
from .sign_in import PasswordVerifier

if TYPE_CHECKING:
    from .schemes.app_scheme import AuthenticateRequest

Verify = TypeVar("Verify", bound=Callable[[str, str], Identity | bool | None])
Check = TypeVar("Check", bound=Callable[[str], object])
LoadIdentity = TypeVar("LoadIdentity", bound=Callable[[Identity], Identity | None])

IdentityLoader = Callable[[Identity], Identity | None]

_CAPACITY = 4_096
_LONGEST_SCHEME = 64


@dataclass(slots=True)
class AppCallbacks:
    """The callbacks that were registered on an `M9M`.

    Attributes:
        password_verifier: verifies a name and password against the app's users.
        authenticators: the app's schemes by name: the function, and whether the scheme is ambient.
        identity_loader: enriches an identity, or rejects it with `None`.
        lifetime: seconds to cache a loaded identity; 0 loads it for each request.
        breach_checker: tells whether a password is known from a breach.
        user_loader: returns the app's own object for an identity, in Flask.
        settled: whether an app has been assembled, after which no scheme can be added.
    """

    password_verifier: PasswordVerifier | None = None
    authenticators: dict[str, tuple[AuthenticateRequest, bool]] = field(default_factory=dict)
    identity_loader: IdentityLoader | None = None
    lifetime: float = 0.0
    breach_checker: Callable[[str], object] | None = None
    user_loader: Callable[[Identity], Any] | None = None
    settled: bool = False

    def add_authenticator(
        self, scheme: str, authenticate: AuthenticateRequest, *, ambient: bool
    ) -> None:
        """Add a scheme.

        Args:
            scheme: the scheme's name in marks.
            authenticate: the app's function.
            ambient: whether browsers send the credential automatically.

        Raises:
            ValueError: the name is taken or not valid.
            RuntimeError: an app is in use already.
        """
        if not is_scope(scheme) or len(scheme) > _LONGEST_SCHEME:
            raise ValueError(
                f"scheme must be 1 to {_LONGEST_SCHEME} characters of printable ASCII, without "
                f"spaces, double quotes and backslashes, found {ascii(scheme)[:66]}"
            )
        check_callable(authenticate=authenticate)
        check_type(bool, ambient=ambient)
        if scheme in BUILT_IN or scheme in self.authenticators:
            raise ValueError(f"a scheme {scheme!r} exists already: choose another name")
        if self.settled:
            raise RuntimeError(f"declare the authenticator {scheme!r} before the app is first used")
        self.authenticators[scheme] = (authenticate, ambient)


class CallbackDecorators:
    """The decorators with which an app registers its callbacks."""

    _callbacks: AppCallbacks

    def password_verifier(self, verify: Verify) -> Verify:
        """Register a function that verifies passwords of the app's users, for HTTP Basic.

        The function gets a name and a password, both in Unicode's NFC. It returns an `Identity` or
        `True`, or `None` or `False` if they are wrong. Attempts are throttled before the call. The
        function should take as long for an unknown name as for a wrong password.
        """
        check_callable(verify=verify)
        self._callbacks.password_verifier = verify
        return verify

    def breach_checker(self, is_breached: Check) -> Check:
        """Register a function that tells whether a password is known from a breach.

        It is called with each new password of a user of `m9m.users`, and refuses it by returning a
        true value. If it raises, the password is taken, and a warning is logged: a service that is
        down stops nobody from choosing a password.
        """
        check_callable(is_breached=is_breached)
        self._callbacks.breach_checker = is_breached
        return is_breached

    @overload
    def identity_loader(self, load: LoadIdentity, /) -> LoadIdentity: ...

    @overload
    def identity_loader(
        self, load: None = None, /, *, lifetime: float | str = 0
    ) -> Callable[[LoadIdentity], LoadIdentity]: ...

    def identity_loader(self, load: Any = None, /, *, lifetime: float | str = 0) -> Any:
        """Register a function that enriches the identities of all schemes.

        The function gets an `Identity` and returns an `Identity`, for example
        `dataclasses.replace(identity, roles=…)`, or `None` to reject it with a 401. Without
        `lifetime` the function is called for every request.

        Args:
            load: the function, if the decorator is used without parentheses.
            lifetime: how long a result is cached, as seconds or as `"60s"`.
        """

        seconds = checked_duration("lifetime", lifetime)

        def declare(load: LoadIdentity) -> LoadIdentity:
            check_callable(load=load)
            self._callbacks.identity_loader = load
            self._callbacks.lifetime = seconds
            return load

        return declare if load is None else declare(load)


class LoadedIdentities:
    """Applies the app's `identity_loader`, and caches its results.

    Args:
        callbacks: the app's callbacks.
        clock: seconds since the epoch.
    """

    def __init__(self, callbacks: AppCallbacks, clock: Callable[[], float]) -> None:
        self._callbacks = callbacks
        self._clock = clock
        self._loaded: BoundedCache[Identity, tuple[float, Identity]] = BoundedCache(_CAPACITY)

    def __call__(self, identity: Identity) -> Identity:
        """Enrich an identity; return it unchanged if the app has no loader.

        Raises:
            InvalidCredentials: the loader rejected the identity.
            TypeError: the loader returned a value of another type.
        """
        load, lifetime = self._callbacks.identity_loader, self._callbacks.lifetime
        if load is None:
            return identity
        if not lifetime:
            return _load(load, identity)
        now = self._clock()
        known = self._loaded.find(identity)
        if known is not None and 0 <= now - known[0] < lifetime:
            return known[1]
        loaded = _load(load, identity)
        self._loaded.keep(identity, (now, loaded))
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
