"""flask-m9m: authentication, rate limits, CORS and security headers for HTTP APIs in Flask."""

from typing import TYPE_CHECKING, Any

from .auth.identity import Identity
from .errors import M9MError, SettingsError
from .extension.context import (
    csp_nonce,
    current_identity,
    current_user,
    get_client_address,
    get_identity,
    get_request_id,
)
from .extension.decorators import (
    cacheable,
    cors,
    public,
    rate_limit,
    require_auth,
    require_signed_url,
    security_headers,
    unlimited,
)
from .extension.m9m import M9M
from .settings import Settings

if TYPE_CHECKING:
    from .wsgi.middleware import M9MMiddleware

__all__ = [
    "M9M",
    "Identity",
    "M9MError",
    "M9MMiddleware",
    "Settings",
    "SettingsError",
    "cacheable",
    "cors",
    "csp_nonce",
    "current_identity",
    "current_user",
    "get_client_address",
    "get_identity",
    "get_request_id",
    "public",
    "rate_limit",
    "require_auth",
    "require_signed_url",
    "security_headers",
    "unlimited",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import `M9MMiddleware` at its first use, since most Flask apps do not need it."""
    if name == "M9MMiddleware":
        from .wsgi.middleware import M9MMiddleware

        return M9MMiddleware
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
