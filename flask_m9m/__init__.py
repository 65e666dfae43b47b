"""One Flask extension that secures an HTTP API."""

from .context import csp_nonce, current_identity, current_user, get_client_address, get_identity
from .decorators import (
    cacheable,
    cors,
    public,
    rate_limit,
    require_auth,
    require_signed_url,
    security_headers,
    unlimited,
)
from .errors import M9MError, SettingsError
from .extension import M9M
from .identity import Identity
from .middleware import M9MMiddleware
from .settings import Settings

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
    "public",
    "rate_limit",
    "require_auth",
    "require_signed_url",
    "security_headers",
    "unlimited",
]

__version__ = "0.1.0"
