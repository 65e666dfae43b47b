"""OpenAPI: security schemes, requirements and error responses of the routes, as a fragment.

The fragment is a part of an OpenAPI 3.0 or 3.1 document, with `components` and `paths`. Each
operation has only `security`, the responses 401, 403 and 429 that the guard can give, and `x-m9m`.
That extension has the requirements in full, for `security` cannot express all of them:

    {"requirements": [{"scopes": […], "any_scope": […], "roles": […], "fresh": true}, …],
     "signed_url": {"purpose": "…"}}

A caller must meet every requirement in the list; keys that a requirement does not use are left out.
Security schemes have the names that `@require_auth(schemes=…)` accepts. Two are added:
`csrf_token`, which goes with a session cookie, and `signed_url`.
"""

from __future__ import annotations

from .components import ANSWERS
from .fragment import describe
from .merging import merge

__all__ = ["ANSWERS", "describe", "merge"]
