"""Schemathesis' hooks: a new token for each request, unless it is a stranger's."""

from __future__ import annotations

import os
from typing import Any
from urllib.request import urlopen

import schemathesis

TOKENS = os.environ.get("M9M_TEST_TOKENS")

if TOKENS is not None:

    @schemathesis.auth(refresh_interval=None)
    class FreshToken:
        """A fresh access token."""

        def get(self, case: Any, context: Any) -> str:
            assert TOKENS is not None
            with urlopen(TOKENS) as answer:
                token: str = answer.read().decode()
            return token

        def set(self, case: Any, data: str, context: Any) -> None:
            case.headers = {**(case.headers or {}), "Authorization": f"Bearer {data}"}
