"""API key routes (`…/api-keys`): users list, create and revoke their own API keys.

Creating a key needs a fresh token, as a login gives it: a key outlives the token. An API key can
call these routes only with the scope `m9m:manage`. A key that it creates has only scopes that it
has itself, expires no later, shares its rate limit, and is revoked with it.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any

from flask import Blueprint, Response, jsonify
from pydantic import AwareDatetime, BeforeValidator, Field

from ...auth.api_keys import ApiKeys
from ...auth.identity import Identity, is_scope
from ...errors import FreshTokenRequired, ValidationError
from ...storage.records import ApiKey, moment
from ..app_state import current_state
from ..decorators import require_auth
from .bodies import NAME, SCOPE, Body, iso_time, read_body, read_page
from .caller import access_denied, proved_caller

_ISO_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:", re.ASCII)

blueprint = Blueprint("m9m_api_keys", __name__)


def _check_iso_text(given: object) -> object:
    """Refuse numbers, which pydantic reads as seconds since the epoch, and dates without a time."""
    if not isinstance(given, str) or not _ISO_TIME.match(given):
        raise ValueError("must be a time in ISO 8601, such as 2030-01-31T12:00:00Z")
    return given


ISOTime = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_check_iso_text)]


class NewKey(Body):
    """The request to create a key: its name, scopes and expiry time."""

    name: str = Field(min_length=1, max_length=255, json_schema_extra=NAME)
    scopes: list[Annotated[str, Field(max_length=255, json_schema_extra=SCOPE)]] = Field(
        default=[], max_length=256
    )
    expires_at: ISOTime | None = None


@blueprint.get("")
@require_auth
def list_keys() -> Response:
    """List a page of the caller's keys that are not revoked."""
    keys, total = _api_keys().page(proved_caller().subject, *read_page())
    rows = [{**_json_of(key), "lastUsedAt": iso_time(key.last_used_at)} for key in keys]
    return jsonify({"data": rows, "total": total})


@blueprint.post("")
@require_auth
def create_key() -> tuple[Response, int]:
    """Create a key for the caller; no later response contains the key's text."""
    caller, sent = proved_caller(), read_body(NewKey)
    if caller.scheme != "api_key" and not _is_fresh(caller):
        raise FreshTokenRequired
    if not all(map(is_scope, sent.scopes)):
        message = "each must be a scope-token (RFC 6749 §3.3)"
        raise ValidationError([{"field": "scopes", "message": message}])
    if beyond := set(sent.scopes) - caller.scopes:
        raise access_denied(*sorted(beyond))
    expires_at, rate_limit = sent.expires_at, None
    if caller.scheme == "api_key":
        expires_at = _earlier(expires_at, caller.expires_at)
        rate_limit = caller.claims["rate_limit"]
    try:
        key, text = _api_keys().create(
            sent.name,
            caller.subject,
            sent.scopes,
            (),
            expires_at,
            rate_limit,
            presented=caller,
            most=current_state("the REST API").loaded.settings.security.api_keys.max_per_owner,
        )
    except ValueError as error:
        raise ValidationError([{"field": "", "message": str(error)}]) from None
    return jsonify({**_json_of(key), "key": text}), 201


@blueprint.delete("/<key_id>")
@require_auth
def revoke_key(key_id: str) -> tuple[str, int]:
    """Revoke a key of the caller's."""
    _api_keys().revoke(key_id, owner=proved_caller().subject)
    return "", 204


def _api_keys() -> ApiKeys:
    return current_state("the REST API").identities.api_keys


def _is_fresh(caller: Identity) -> bool:
    return caller.scheme in ("bearer", "cookie") and caller.claims.get("fresh") is True


def _earlier(requested: datetime | None, latest: float | None) -> datetime | None:
    if latest is None:
        return requested
    limit = moment(latest)
    return limit if requested is None else min(requested, limit)


def _json_of(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "createdAt": iso_time(key.created_at),
        "expiresAt": iso_time(key.expires_at),
    }
