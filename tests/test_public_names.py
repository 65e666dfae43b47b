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
        "get_request_id",
        "public",
        "rate_limit",
        "require_auth",
        "require_signed_url",
        "security_headers",
        "unlimited",
    ]
    assert all(hasattr(flask_m9m, name) for name in flask_m9m.__all__)


def test_an_app_in_flask_does_not_load_what_other_apps_need() -> None:
    code = (
        "import sys, flask_m9m; assert not [one for one in sys.modules if 'middleware' in one and "
        "one.startswith('flask_m9m') or one in ('sqlalchemy', 'alembic')]; "
        "from flask_m9m import *; M9MMiddleware(print); "
        "assert 'sqlalchemy' not in sys.modules; flask_m9m.missing"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == (
        "AttributeError: module 'flask_m9m' has no attribute 'missing'"
    )


def test_the_decorator_cors_is_not_hidden_by_the_module_of_that_name() -> None:
    code = "import flask_m9m.http.cors; from flask_m9m import cors; cors(max_age=1)"
    subprocess.run([sys.executable, "-c", code], check=True)
