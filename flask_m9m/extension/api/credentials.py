"""`…/credentials`: the caller's stored credentials, of which no answer tells a secret.

What is known of a credential is told without decrypting it; only its test decrypts. Values are
literal: `${NAME}` is a text like others. An API key may call these only with the scope
`m9m:manage`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import Blueprint, Response, jsonify, request
from pydantic import Field

from ...auth.names import checked_name, name_of
from ...credentials.credentials import Credentials
from ...credentials.info import CredentialInfo
from ...errors import (
    Conflict,
    DecryptionFailed,
    InternalError,
    ServiceUnavailable,
    SettingsError,
    UnresolvedVariable,
    ValidationError,
)
from ..app_state import current_state
from ..decorators import require_auth
from .bodies import Body, moment, read
from .caller import managing_caller

logger = logging.getLogger("flask_m9m")

_RETRY_AFTER = 60  # seconds; the settings have to change first

blueprint = Blueprint("m9m_credentials", __name__)


class NewCredential(Body):
    """What a credential is for, its type and its fields."""

    name: str
    type: str
    data: dict[str, Any] = Field(repr=False)


class ChangedCredential(Body):
    """What of a credential changes; `data` is all its fields from then on."""

    name: str = ""
    data: dict[str, Any] = Field(default={}, repr=False)


@blueprint.get("")
@require_auth
def list_credentials() -> Response:
    """List the caller's credentials, of one type where the query says so."""
    caller, type = managing_caller(), request.args.get("type")
    if type is not None and name_of(type) is None:
        return jsonify({"data": [], "total": 0})
    with _store() as store:
        rows = [_described(one) for one in store.list(type, caller=caller)]
    return jsonify({"data": rows, "total": len(rows)})


@blueprint.post("")
@require_auth
def create_credential() -> tuple[Response, int]:
    """Keep a credential of the caller's."""
    caller, sent = managing_caller(), read(NewCredential)
    with _store() as store:
        name = _name(sent.name)
        if sent.type not in store.types:
            raise _invalid("type", f"known types: {', '.join(store.types)}")
        with _blamed_on("data"):
            made = store.create(name, sent.type, sent.data, caller=caller)
    return jsonify(_described(made)), 201


@blueprint.get("/<credential_id>")
@require_auth
def show_credential(credential_id: str) -> Response:
    """Tell what is known of a credential of the caller's."""
    caller = managing_caller()
    with _store() as store:
        return jsonify(_described(store.info(credential_id, caller=caller)))


@blueprint.put("/<credential_id>")
@require_auth
def change_credential(credential_id: str) -> Response:
    """Change the name of a credential of the caller's, all its fields, or both."""
    caller, sent = managing_caller(), read(ChangedCredential).model_dump(exclude_unset=True)
    if not sent:
        raise _invalid("", "name, data or both")
    if "name" in sent:
        sent["name"] = _name(sent["name"])
    with _store() as store:
        if "data" in sent and store.info(credential_id, caller=caller).resolve:
            raise Conflict("its values name environment variables: only the app changes them")
        with _blamed_on("data"):
            changed = store.update(credential_id, **sent, caller=caller)
    return jsonify(_described(changed))


@blueprint.delete("/<credential_id>")
@require_auth
def delete_credential(credential_id: str) -> tuple[str, int]:
    """Forget a credential of the caller's."""
    caller = managing_caller()
    with _store() as store:
        store.delete(credential_id, caller=caller)
    return "", 204


@blueprint.post("/<credential_id>/test")
@require_auth
def test_credential(credential_id: str) -> Response:
    """Have the app's checker try a credential of the caller's.

    Whatever the checker raises may hold the secret: neither the answer nor the log tells more of
    it than its class.
    """
    caller = managing_caller()
    with _store() as store:
        check = store.types.checker_of(store.info(credential_id, caller=caller).type)
        try:
            credential = store.get(credential_id, caller=caller)
        except UnresolvedVariable:
            return _failed(credential_id, "an environment variable that it names is not there")
    try:
        passed = check(credential)
    except Exception as error:
        return _failed(credential_id, f"the check raised {type(error).__name__}")
    if passed is False:
        return _failed(credential_id, "the check said no")
    return jsonify({"success": True})


@contextmanager
def _store() -> Iterator[Credentials]:
    """Give access to the store.

    Raises:
        ServiceUnavailable: the settings have no key, or not those that credentials need.
        InternalError: a credential does not open.
    """
    try:
        yield current_state("the REST API").credentials
    except SettingsError as error:
        logger.error("credentials: %s", "; ".join(map(str, error.problems)))
        unavailable = ServiceUnavailable()
        unavailable.headers = [("Retry-After", str(_RETRY_AFTER))]
        raise unavailable from None
    except DecryptionFailed as error:
        known = (request.view_args or {}).get("credential_id", "")
        logger.error("credential %a does not open: %s (%s)", known[:64], error, error.hint)
        raise InternalError from None


@contextmanager
def _blamed_on(field: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise _invalid(field, str(error)) from None


def _name(typed: str) -> str:
    with _blamed_on("name"):
        return checked_name("a credential's name", typed)


def _invalid(field: str, message: str) -> ValidationError:
    return ValidationError([{"field": field, "message": message}])


def _failed(credential_id: str, message: str) -> Response:
    logger.warning("credential %a: %s", credential_id[:64], message)
    return jsonify({"success": False, "message": message})


def _described(credential: CredentialInfo) -> dict[str, Any]:
    return {
        "id": credential.id,
        "name": credential.name,
        "type": credential.type,
        "owner": credential.owner,
        "createdAt": moment(credential.created_at),
        "updatedAt": moment(credential.updated_at),
    }
