"""`…/api-keys`: a user's own API keys.

An API key may call these itself only with the scope `m9m:manage`; what it makes has no scope that
it does not have, lives no longer, and counts under the same rate limit.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any

from flask import Blueprint, Response, jsonify
from pydantic import AwareDatetime, BeforeValidator, Field

from ...auth.api_keys import ApiKeys
from ...auth.identity import is_scope
from ...errors import ValidationError
from ...storage.records import ApiKey
from ...storage.records import moment as moment_at
from ..app_state import current_state
from ..decorators import require_auth
from .bodies import Body, moment, read
from .caller import denied, proved_caller

_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:", re.ASCII)

blueprint = Blueprint("m9m_api_keys", __name__)


def _written_out(given: object) -> object:
    if not isinstance(given, str) or not _MOMENT.match(given):
        raise ValueError("a moment in ISO 8601, 2030-01-31T12:00:00Z say")
    return given


Moment = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_written_out)]


class NewKey(Body):
    """What a key is for, and what it may do."""

    name: str = Field(min_length=1, max_length=255)
    scopes: list[Annotated[str, Field(max_length=255)]] = Field(default=[], max_length=256)
    expires_at: Moment | None = None


@blueprint.get("")
@require_auth
def list_keys() -> Response:
    """List the caller's keys that are not revoked."""
    keys = _api_keys().list(owner=proved_caller().subject)
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
    caller, sent = proved_caller(), read(NewKey)
    if not all(map(is_scope, sent.scopes)):
        raise ValidationError([{"field": "scopes", "message": "names of scopes (RFC 6749 §3.3)"}])
    if beyond := set(sent.scopes) - caller.scopes:
        raise denied(*sorted(beyond))
    expires_at, rate_limit, family = sent.expires_at, None, None
    if caller.scheme == "api_key":
        expires_at = _sooner(expires_at, caller.expires_at)
        rate_limit, family = caller.claims["rate_limit"], caller.claims["family"]
    try:
        key, text = _api_keys().create(
            sent.name, caller.subject, sent.scopes, (), expires_at, rate_limit, family=family
        )
    except ValueError as error:
        raise ValidationError([{"field": "", "message": str(error)}]) from None
    return jsonify({**_described(key), "key": text}), 201


@blueprint.delete("/<key_id>")
@require_auth
def revoke_key(key_id: str) -> tuple[str, int]:
    """Revoke a key of the caller's."""
    _api_keys().revoke(key_id, owner=proved_caller().subject)
    return "", 204


def _api_keys() -> ApiKeys:
    return current_state("the REST API").identities.api_keys


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
