"""The presets of security headers (`security.headers`): CSP, HSTS, Permissions-Policy."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

HEADER_FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "x_content_type_options": "X-Content-Type-Options",
        "x_frame_options": "X-Frame-Options",
        "x_xss_protection": "X-XSS-Protection",
        "content_security_policy": "Content-Security-Policy",
        "strict_transport_security": "Strict-Transport-Security",
        "referrer_policy": "Referrer-Policy",
        "permissions_policy": "Permissions-Policy",
        "cross_origin_opener_policy": "Cross-Origin-Opener-Policy",
        "cross_origin_resource_policy": "Cross-Origin-Resource-Policy",
    }
)
"""The header fields by the names of their settings."""

FROM_PRESET = "<preset>"
"""The default of settings whose value comes from the preset."""

_SHARED = {
    "strict_transport_security": "max-age=63072000; includeSubDomains",
    "permissions_policy": (
        "accelerometer=(), browsing-topics=(), camera=(), display-capture=(), geolocation=(), "
        "gyroscope=(), microphone=(), payment=(), usb=()"
    ),
}

PRESETS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "api": {
            "content_security_policy": (
                "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
            ),
            **_SHARED,
        },
        "web": {
            "content_security_policy": (
                "default-src 'self'; base-uri 'self'; object-src 'none'; frame-ancestors 'none'; "
                "form-action 'self'; upgrade-insecure-requests"
            ),
            **_SHARED,
        },
    }
)
