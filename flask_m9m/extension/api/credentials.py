"""Credential routes (`…/credentials`): the caller's stored credentials.

No response contains a secret. Only the test of a credential decrypts it; the other routes read its
metadata. Values are literal: `${NAME}` does not refer to an environment variable. An API key can
call these routes only with the scope `m9m:manage`.
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
from .bodies import NAME, Body, iso_time, read_body, read_page
from .caller import managing_caller

logger = logging.getLogger("flask_m9m")

_RETRY_AFTER = 60  # seconds; the app's operator has to change the settings first

blueprint = Blueprint("m9m_credentials", __name__)


class NewCredential(Body):
    """The request to create a credential: its name, type and fields."""

    name: str = Field(json_schema_extra=NAME)
    type: str
    data: dict[str, Any] = Field(repr=False)


class ChangedCredential(Body):
    """The request to change a credential; `data` replaces all its fields."""

    name: str = Field(default="", json_schema_extra=NAME)
    data: dict[str, Any] = Field(default={}, repr=False)


@blueprint.get("")
@require_auth
def list_credentials() -> Response:
    """List a page of the caller's credentials, of the type in the query if it has one."""
    caller, type, page = managing_caller(), request.args.get("type"), read_page()
    if type is not None and name_of(type) is None:
        return jsonify({"data": [], "total": 0})
    with _store() as store:
        found, total = store.page(type, *page, caller=caller)
    return jsonify({"data": [_json_of(credential) for credential in found], "total": total})


@blueprint.post("")
@require_auth
def create_credential() -> tuple[Response, int]:
    """Store a credential for the caller."""
    caller, sent = managing_caller(), read_body(NewCredential)
    with _store() as store:
        name = _check_name(sent.name)
        if sent.type not in store.types:
            raise _invalid("type", f"must be a known type: {', '.join(store.types)}")
        with _errors_in("data"):
            created = store.create(name, sent.type, sent.data, caller=caller, most=_most())
    return jsonify(_json_of(created)), 201


@blueprint.get("/<credential_id>")
@require_auth
def show_credential(credential_id: str) -> Response:
    """Show the metadata of one of the caller's credentials."""
    caller = managing_caller()
    with _store() as store:
        return jsonify(_json_of(store.info(credential_id, caller=caller)))


@blueprint.put("/<credential_id>")
@require_auth
def change_credential(credential_id: str) -> Response:
    """Rename one of the caller's credentials, replace its fields, or both."""
    caller, sent = managing_caller(), read_body(ChangedCredential).model_dump(exclude_unset=True)
    if not sent:
        raise _invalid("", "must have name, data or both")
    if "name" in sent:
        sent["name"] = _check_name(sent["name"])
    with _store() as store:
        if "data" in sent and store.info(credential_id, caller=caller).resolve:
            raise Conflict("the data refers to environment variables: only the app can change it")
        with _errors_in("data"):
            changed = store.update(credential_id, **sent, caller=caller)
    return jsonify(_json_of(changed))


@blueprint.delete("/<credential_id>")
@require_auth
def delete_credential(credential_id: str) -> tuple[str, int]:
    """Delete one of the caller's credentials."""
    caller = managing_caller()
    with _store() as store:
        store.delete(credential_id, caller=caller)
    return "", 204


@blueprint.post("/<credential_id>/test")
@require_auth
def test_credential(credential_id: str) -> Response:
    """Test one of the caller's credentials with the app's checker.

    An exception of the checker may contain the secret, so the response and the log name only its
    class.
    """
    caller = managing_caller()
    with _store() as store:
        check = store.types.checker_of(store.info(credential_id, caller=caller).type)
        try:
            credential = store.get(credential_id, caller=caller)
        except UnresolvedVariable:
            return _test_failure(
                credential_id, "an environment variable in its data is not set or not allowed"
            )
    try:
        passed = check(credential)
    except Exception as error:
        return _test_failure(credential_id, f"the check raised {type(error).__name__}")
    if passed is False:
        return _test_failure(credential_id, "the check returned False")
    return jsonify({"success": True})


def _most() -> int:
    return current_state("the REST API").loaded.settings.credentials.max_per_owner


@contextmanager
def _store() -> Iterator[Credentials]:
    """Provide the stored credentials, and turn errors of their encryption into HTTP errors.

    Raises:
        ServiceUnavailable: the settings lack an encryption key that the credentials need.
        InternalError: a credential cannot be decrypted.
    """
    try:
        yield current_state("the REST API").credentials
    except SettingsError as error:
        logger.error("credentials: %s", "; ".join(map(str, error.problems)))
        unavailable = ServiceUnavailable()
        unavailable.headers = [("Retry-After", str(_RETRY_AFTER))]
        raise unavailable from None
    except DecryptionFailed as error:
        credential_id = (request.view_args or {}).get("credential_id", "")
        logger.error(
            "credential %a cannot be decrypted: %s (%s)", credential_id[:64], error, error.hint
        )
        raise InternalError from None


@contextmanager
def _errors_in(field: str) -> Iterator[None]:
    """Report a `ValueError` as a validation error of a field."""
    try:
        yield
    except ValueError as error:
        raise _invalid(field, str(error)) from None


def _check_name(name: str) -> str:
    with _errors_in("name"):
        return checked_name("a credential's name", name)


def _invalid(field: str, message: str) -> ValidationError:
    return ValidationError([{"field": field, "message": message}])


def _test_failure(credential_id: str, message: str) -> Response:
    logger.warning("credential %a: %s", credential_id[:64], message)
    return jsonify({"success": False, "message": message})


def _json_of(credential: CredentialInfo) -> dict[str, Any]:
    return {
        "id": credential.id,
        "name": credential.name,
        "type": credential.type,
        "owner": credential.owner,
        "createdAt": iso_time(credential.created_at),
        "updatedAt": iso_time(credential.updated_at),
    }
