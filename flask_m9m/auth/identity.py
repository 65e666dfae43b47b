"""Identity: the authenticated caller, with its scheme, scopes, roles and claims."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ..settings.arguments import check_type

_SCOPE_TOKEN = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+", re.ASCII)


def names(argument: str, given: str | Collection[str]) -> tuple[str, ...]:
    """Split and check scopes or roles.

    Args:
        argument: the caller's argument, for the error message.
        given: a collection of names, or one text with white space between them.

    Raises:
        TypeError: `given` is not a collection.
        ValueError: a name is not a scope-token (RFC 6749 §3.3).
    """
    check_type(Iterable, **{argument: given})
    separate = tuple(given.split() if isinstance(given, str) else given)
    for name in separate:
        if not is_scope(name):
            raise ValueError(
                f"{argument}: {str(name)[:64]!a} is not a scope-token (RFC 6749 §3.3): "
                "use printable ASCII without spaces, double quotes and backslashes"
            )
    return separate


def split_names(text: str) -> tuple[str, ...]:
    """Split a token's list of scopes at its spaces; nothing else separates them (RFC 6749 §3.3)."""
    return tuple(filter(None, text.split(" ")))


def is_scope(name: object) -> bool:
    """Tell whether a value can be the name of a scope or role (RFC 6749 §3.3)."""
    return isinstance(name, str) and _SCOPE_TOKEN.fullmatch(name) is not None


class FrozenDict(dict[str, Any]):
    """An immutable, hashable dictionary that JSON encoders accept."""

    def _refuse(self, *args: object, **kwargs: object) -> NoReturn:
        raise TypeError("an identity's claims cannot be changed")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenDict, (dict(self),)

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))


_CONTAINERS = (dict, list, tuple)


def freeze(value: Any) -> Any:
    """Copy JSON data with every object as a `FrozenDict` and every array as a tuple."""
    if isinstance(value, dict):
        frozen = {
            key: freeze(item) if isinstance(item, _CONTAINERS) else item
            for key, item in value.items()
        }
        return FrozenDict(frozen)
    return tuple(map(freeze, value)) if isinstance(value, _CONTAINERS) else value


_NO_CLAIMS = FrozenDict()


@dataclass(frozen=True, slots=True)
class Identity:
    """The authenticated caller of a request.

    Attributes:
        subject: the caller's name within its issuer (RFC 7519 §4.1.2).
        scheme: the scheme of the credential: `bearer`, `api_key`, `basic`, `cookie` or the name of
            the app's own scheme.
        scopes: the rights of the credential (RFC 6749 §3.3).
        roles: the roles of the subject.
        claims: the verified claims of a token, immutable at every depth.
        credential_id: the token's `jti` or the API key's id.
        expires_at: when the credential expires, in seconds since the epoch.
    """

    subject: str
    scheme: str
    scopes: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    claims: FrozenDict = field(default=_NO_CLAIMS, repr=False)
    credential_id: str | None = None
    expires_at: float | None = None

    def __post_init__(self) -> None:
        # An app's own functions make identities too. A single str as roles would grant every
        # substring as a role, and None as the subject would match anybody.
        if not isinstance(self.subject, str):
            found = type(self.subject).__name__
            raise TypeError(f"an identity's subject must be a str, found {found}")
        if isinstance(self.scopes, str) or isinstance(self.roles, str):
            raise TypeError("an identity's scopes and roles must be sets of str, found a str")
        # An identity may be remembered for later requests, so that nothing in it may change.
        for argument in ("scopes", "roles"):
            given = getattr(self, argument)
            if type(given) is not frozenset:
                check_type(Collection, **{argument: given})
                if not all(isinstance(name, str) for name in given):
                    raise TypeError(f"{argument} must be a set of str, found other values in it")
                object.__setattr__(self, argument, frozenset(given))
        if type(self.claims) is not FrozenDict:
            check_type(Mapping, claims=self.claims)
            object.__setattr__(self, "claims", freeze(dict(self.claims)))

    def has_scope(self, scope: str) -> bool:
        """Tell whether the credential has a scope."""
        return isinstance(scope, str) and scope in self.scopes

    def has_role(self, role: str) -> bool:
        """Tell whether the subject has a role."""
        return isinstance(role, str) and role in self.roles
