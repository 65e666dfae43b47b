"""OpenAPI: what the guard demands and answers, as a fragment of an OpenAPI 3.0 or 3.1 document.

The fragment has `components` and `paths`, and for each operation no more than `security`, the
answers 401, 403 and 429 where the guard can give them, and `x-m9m`, in full what `security` can
say in part or not at all:

    {"requirements": [{"scopes": […], "any_scope": […], "roles": […], "fresh": true}, …],
     "signed_url": {"purpose": "…"}}

All requirements hold; what one does not ask is left out of it. Security schemes have the names
that `@require_auth(schemes=…)` knows. Two more stand beside them: `csrf_token`, which a session's
cookie needs, and `signed_url`.
"""

from __future__ import annotations

from .components import ANSWERS
from .fragment import describe
from .merging import merge

__all__ = ["ANSWERS", "describe", "merge"]
