from __future__ import annotations

import json
from typing import Any

import pytest

from flask_m9m import Identity


@pytest.mark.parametrize(
    "wrong",
    [{"subject": None}, {"subject": 7}, {"roles": "non-admin"}, {"scopes": "items:read"}],
)
def test_what_stands_for_anybody_or_has_parts_of_a_word_as_rights_is_refused(
    wrong: dict[str, Any],
) -> None:
    given: dict[str, Any] = {"subject": "ann", "scheme": "basic", **wrong}
    with pytest.raises(TypeError, match="an identity's"):
        Identity(**given)


def test_an_identity_that_an_app_makes_is_frozen_all_through() -> None:
    roles, claims = {"a"}, {"groups": [{"id": 1}]}
    identity = Identity("ann", "own", roles=roles, claims=claims)  # type: ignore[arg-type]
    roles.add("admin")
    claims["groups"].append({"id": 2})
    assert identity.roles == frozenset("a")
    assert identity.claims == {"groups": ({"id": 1},)}
    with pytest.raises(TypeError):
        identity.claims["groups"][0]["id"] = 2
    assert json.dumps(identity.claims) == '{"groups": [{"id": 1}]}'
    hash(identity)
