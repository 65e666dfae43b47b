"""`…/api-keys`: a user's own API keys.

An API key may call these itself only with the scope `m9m:manage`; what it makes has no scope that
it does not have, lives no longer, and has the same rate limit.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from flask import Blueprint, Response, jsonify
from pydantic import AwareDatetime, Field

from ..context import current_state, get_identity
from ..decorators import require_auth
from ..errors import AccessDenied, ValidationError
from ..identity import Identity
from ..storage import ApiKey
from ..storage import moment as moment_at
from .bodies import Body, moment, read

MANAGE = "m9m:manage"

blueprint = Blueprint("m9m_api_keys", __name__)


class NewKey(Body):
    """What a key is for, and what it may do."""

    name: str = Field(min_length=1, max_length=255)
    scopes: list[str] = Field(default=[], max_length=256)
    expires_at: AwareDatetime | None = None


@blueprint.get("")
@require_auth
def list_keys() -> Response:
    """List the caller's keys that are not revoked."""
    keys = current_state("the REST API").identities.api_keys.list(owner=_caller().subject)
    rows = [
        {**_described(key), "lastUsedAt": moment(key.last_used_at)}
        for key in keys
        if key.revoked_at is None
    ]
    return jsonify({"data": rows, "total": len(rows)})


@blueprint.post("")
@require_auth
def create_key() -> tuple[Response, int]:
    """Make a key of the caller's; it is told this once."""
    caller, sent = _caller(), read(NewKey)
    if beyond := set(sent.scopes) - caller.scopes:
        error = AccessDenied()
        error.scopes = sorted(beyond)
        raise error
    expires_at, rate_limit = sent.expires_at, None
    if caller.scheme == "api_key":
        expires_at = _sooner(expires_at, caller.expires_at)
        rate_limit = caller.claims["rate_limit"]
    try:
        key, text = current_state("the REST API").identities.api_keys.create(
            sent.name, caller.subject, sent.scopes, (), expires_at, rate_limit
        )
    except ValueError as error:
        raise ValidationError([{"field": "", "message": str(error)}]) from None
    return jsonify({**_described(key), "key": text}), 201


@blueprint.delete("/<key_id>")
@require_auth
def revoke_key(key_id: str) -> tuple[str, int]:
    """Revoke a key of the caller's."""
    caller = _caller()
    current_state("the REST API").identities.api_keys.revoke(key_id, owner=caller.subject)
    return "", 204


def _caller() -> Identity:
    """Return who calls.

    Raises:
        AccessDenied: it is an API key that may not manage others.
    """
    caller = get_identity()
    assert caller is not None  # noqa: S101  # the route is protected
    if caller.scheme == "api_key" and not caller.has_scope(MANAGE):
        error = AccessDenied()
        error.scopes = [MANAGE]
        raise error
    return caller


def _sooner(asked: datetime | None, latest: float | None) -> datetime | None:
    if latest is None:
        return asked
    ends = moment_at(latest)
    return ends if asked is None else min(asked, ends)


def _described(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "createdAt": moment(key.created_at),
        "expiresAt": moment(key.expires_at),
    }
