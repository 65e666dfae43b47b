"""Identity: who is calling, by which scheme, with which scopes and roles."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, NoReturn

_SCOPE_TOKEN = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+", re.ASCII)


def names(argument: str, given: str | Collection[str]) -> tuple[str, ...]:
    """Return scopes or roles, given one by one or as one text with spaces between.

    Raises:
        ValueError: one of them is no scope-token (RFC 6749 §3.3); the message names `argument`.
    """
    separate = tuple(given.split() if isinstance(given, str) else given)
    for name in separate:
        if not is_scope(name):
            raise ValueError(f"{argument}: {str(name)[:64]!a} is no scope-token (RFC 6749 §3.3)")
    return separate


def is_scope(name: object) -> bool:
    """Tell whether something can name a scope or a role (RFC 6749 §3.3)."""
    return isinstance(name, str) and _SCOPE_TOKEN.fullmatch(name) is not None


class FrozenDict(dict[str, Any]):
    """A dictionary that cannot be changed, and that JSON encoders still take for one."""

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
    """Return JSON data with every object a `FrozenDict` and every array a tuple."""
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
    """Who is calling.

    Attributes:
        subject: the caller's name within its issuer (RFC 7519 §4.1.2).
        scheme: how it proved itself: `bearer`, `api_key`, `basic` or a registered scheme.
        scopes: what the credential may do (RFC 6749 §3.3).
        roles: what the subject is.
        claims: the verified claims of a token; frozen all through.
        credential_id: the token's `jti` or the key's id.
        expires_at: seconds since the epoch after which the credential no longer holds.
    """

    subject: str
    scheme: str
    scopes: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    claims: FrozenDict = field(default=_NO_CLAIMS, repr=False)
    credential_id: str | None = None
    expires_at: float | None = None

    def __post_init__(self) -> None:
        # Of what an app's own functions return: a lone text would have every part of it as a
        # role, and None as a subject would stand for anybody.
        if not isinstance(self.subject, str):
            raise TypeError("an identity's subject is a text")
        if isinstance(self.scopes, str) or isinstance(self.roles, str):
            raise TypeError("an identity's scopes and roles are sets of texts")

    def has_scope(self, scope: str) -> bool:
        """Tell whether the credential carries this scope."""
        return scope in self.scopes

    def has_role(self, role: str) -> bool:
        """Tell whether the subject has this role."""
        return role in self.roles
