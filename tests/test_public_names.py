"""What users depend on by name."""

from __future__ import annotations

import subprocess
import sys

import flask_m9m


def test_the_public_names_are_these() -> None:
    assert flask_m9m.__all__ == [
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
    assert all(hasattr(flask_m9m, name) for name in flask_m9m.__all__)


def test_the_decorator_cors_is_not_hidden_by_the_module_of_that_name() -> None:
    code = "import flask_m9m.cors; from flask_m9m import cors; cors(max_age=1)"
    subprocess.run([sys.executable, "-c", code], check=True)
