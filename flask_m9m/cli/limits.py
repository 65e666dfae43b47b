"""`flask m9m limits`: show and reset the rate limits of a client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import click

from ..auth.lockout import account_key
from ..auth.schemes.api_key import own_limits
from ..extension.app_state import AppState
from ..guard.limiter import custom_key, identity_key
from ..ratelimit.gcra import Hit
from ..ratelimit.limit import RateLimit
from ..ratelimit.store import LimitStore
from ..settings.wording import printable
from .output import fail, output_option, print_rows, refusals, with_app

Row = dict[str, object]

_KEY = (
    "KEY is an address, identity:NAME, key:ID (of an API key), custom:TEXT (the result of a key= "
    "callable) or account:NAME (of a login)"
)


@dataclass(frozen=True, slots=True)
class Asked:
    """The client that a KEY argument names.

    Attributes:
        client: the client's key in the store.
        limits: the limits that may count this client.
    """

    client: str
    limits: Sequence[RateLimit]


@click.group()
def limits() -> None:
    """Show and reset the rate limits of clients."""


@limits.command(help=f"Show what is left of a client's limits.\n\n{_KEY}.")
@click.argument("key")
@click.option("--limit", "name", help="Only the limit of this name.")
@output_option
@with_app
@refusals
def show(state: AppState, key: str, name: str | None, output: str) -> None:
    asked, store = _asked(state, key), _store(state)
    chosen = named(counted_by(store, asked), name)
    print_rows(
        [_row(store.peek(limit, asked.client), asked.client, store) for limit in chosen], output
    )


@limits.command(help=f"Reset a client's limits: fill its buckets.\n\n{_KEY}.")
@click.argument("key")
@click.option("--limit", "name", help="Only the limit of this name.")
@with_app
@refusals
def reset(state: AppState, key: str, name: str | None) -> None:
    asked, store = _asked(state, key), _store(state)
    chosen = named(counted_by(store, asked), name)
    for limit in chosen:
        store.reset(limit, asked.client)
    names = ", ".join(dict.fromkeys(limit.name for limit in chosen)) or "nothing"
    click.echo(printable(f"reset {names}"))


@limits.command()
@click.option(
    "-n",
    "most",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Largest number of clients.",
)
@output_option
@with_app
@refusals
def top(state: AppState, most: int, output: str) -> None:
    """List the clients that have used the largest share of a limit's burst."""
    uncounted = state.identities.lockout.known_addresses.limits
    print_rows(spenders(_store(state), known(state), uncounted)[:most], output)


def known(state: AppState) -> list[RateLimit]:
    """Return all limits of the settings and of the routes."""
    lockout = state.identities.lockout
    general = state.guard.limits.general
    return [
        *([general] if general is not None else []),
        *lockout.by_address,
        lockout.by_account,
        *_of_routes(state, ("address", "identity", "custom")),
    ]


def counted_by(store: LimitStore, asked: Asked) -> list[RateLimit]:
    """Return the limits that may count a client, and those that the store has counted it by."""
    found = {limit.key: limit for limit in asked.limits}
    for spender in store.spenders():
        limit = spender.limit
        if limit.key not in found and spender.client_id == store.client_id(limit, asked.client):
            found[limit.key] = limit
    return list(found.values())


def named(candidates: Sequence[RateLimit], name: str | None) -> Sequence[RateLimit]:
    """Return the limits of a name, or all limits if the name is `None`.

    Raises:
        ValueError: no limit has this name.
    """
    chosen = [limit for limit in candidates if name in (None, limit.name)]
    if name is not None and not chosen:
        names = ", ".join(sorted({limit.name for limit in candidates})) or "none"
        raise ValueError(f"no limit {name[:64]!a} counts this client; these do: {names}")
    return chosen


def spenders(
    store: LimitStore, known_limits: Iterable[RateLimit], uncounted: Iterable[RateLimit] = ()
) -> list[Row]:
    """Return the clients whose buckets are not full, the largest share used first.

    Args:
        store: the store.
        known_limits: the limits of the app, which have names.
        uncounted: limits to leave out, for they count nothing that a client does.
    """
    names = {limit.key: limit.name for limit in known_limits}
    left_out = {limit.key for limit in uncounted}
    spending = [spender for spender in store.spenders() if spender.limit.key not in left_out]
    found = sorted(spending, key=lambda spender: _share_left(spender.hit))
    return [
        {
            "limit": names.get(spender.limit.key, spender.limit.name),
            **_left(spender.hit, spender.client_id),
        }
        for spender in found
    ]


def _share_left(hit: Hit) -> tuple[float, int]:
    return hit.remaining / hit.limit.burst, -hit.full_after


def _row(hit: Hit, client: str, store: LimitStore) -> Row:
    return {"limit": hit.limit.name, **_left(hit, store.client_id(hit.limit, client))}


def _left(hit: Hit, client_id: str) -> Row:
    return {
        "remaining": hit.remaining,
        "burst": hit.limit.burst,
        "full_in_seconds": hit.full_after,
        "client": client_id,
    }


def _store(state: AppState) -> LimitStore:
    store = state.guard.store
    if not store.shared:
        raise fail(
            f"rate limits are counted {store.where}, where no command reads them: set "
            "performance.rate_limit.storage: shared or redis"
        )
    return store


def _asked(state: AppState, key: str) -> Asked:
    """Find the client that a KEY names.

    Raises:
        UsageError: the KEY has none of the accepted forms.
        ClickException: no API key has this id, or it has no limit of its own.
    """
    kind, _, name = key.partition(":")
    address = state.guard.resolver.key_of(key)
    if address is not None:
        return Asked(address, [*_general(state, "address"), *_of_routes(state, ("address",))])
    if kind == "identity" and name:
        counting = [*_general(state, "identity"), *_of_routes(state, ("identity",))]
        return Asked(identity_key(name), counting)
    if kind == "custom":
        return Asked(custom_key(name), list(_of_routes(state, ("custom",))))
    if kind == "account" and name:
        return Asked(account_key(name), [state.identities.lockout.by_account])
    if kind == "key" and name:
        return _api_key(state, name)
    raise click.UsageError(_KEY)


def _api_key(state: AppState, key_id: str) -> Asked:
    for key in state.identities.api_keys.list():
        if key.id == key_id:
            own = own_limits(key.rate_limit, key.family)
            if not own:
                raise fail(f"the API key {key_id} has no rate limit of its own")
            return Asked(own[0][1], [limit for limit, _ in own])
    raise fail(f"no API key has the id {key_id[:64]!a}")


def _general(state: AppState, kind: str) -> list[RateLimit]:
    """Return the limits, apart from routes' own, that count clients of a kind."""
    general, default = state.guard.limits.general, state.guard.limits.default_key
    # A limit by caller counts requests without a known caller by their address.
    counts = general is not None and kind in ("address", default)
    return [
        *([general] if counts else []),
        *(state.identities.lockout.by_address if kind == "address" else ()),
    ]


def _of_routes(state: AppState, kinds: Sequence[str]) -> Iterator[RateLimit]:
    """Yield the routes' limits that count clients of these kinds."""
    default = state.guard.limits.default_key
    for _, _, policy in state.routes.all():
        for route_limit in policy.limits:
            key = route_limit.mark.key or default
            # Without an identity or a callable's key, the request counts by its address.
            counted = ("custom" if callable(key) else key, "address")
            if any(kind in counted for kind in kinds):
                yield from route_limit.fixed or ()
