from __future__ import annotations

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
