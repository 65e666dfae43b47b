from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pytest
from werkzeug.datastructures import Headers
from werkzeug.test import Client, create_environ

from flask_m9m import M9MMiddleware
from flask_m9m.testing import Clock, make_settings

Guarded = Callable[..., M9MMiddleware]


def echo(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer with who is calling."""
    identity = environ["m9m.identity"]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [(identity.subject if identity else "nobody").encode()]


def ask(app: Any, path: str, method: str = "GET", **environ: Any) -> tuple[str, Headers, bytes]:
    """Ask for a path exactly as a server hands it over."""
    request = {**create_environ("/", method=method), "PATH_INFO": path, **environ}
    status, headers, body = serve(app, request)
    return status[:3], headers, body


def serve(app: Any, environ: dict[str, Any]) -> tuple[str, Headers, bytes]:
    """Run an app as PEP 3333 has servers do; werkzeug's own lets no head be replaced."""
    head: list[Any] = []
    sent: list[bytes] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Callable[[bytes], None]:
        if exc_info is not None and sent:
            raise exc_info[1].with_traceback(exc_info[2])
        assert exc_info is not None or not head
        head[:] = [status, headers]
        return sent.append

    body = app(environ, start_response)
    try:
        for part in body:
            assert head
            if part:
                sent.append(part)
    finally:
        if hasattr(body, "close"):
            body.close()
    return head[0], Headers(head[1]), b"".join(sent)


def client_as(app: M9MMiddleware, subject: str, scopes: str = "", **more: Any) -> Client:
    """Return a client with a token in each request."""
    token = app.tokens.issue(subject, scopes.split(), **more)

    class WithToken(Client):
        def open(self, *args: Any, **options: Any) -> Any:
            headers = {"Authorization": f"Bearer {token}", **(options.pop("headers", None) or {})}
            return super().open(*args, headers=headers, **options)

    return WithToken(app)


@pytest.fixture
def guarded(clock: Clock, tmp_path: Any) -> Guarded:
    """Return a function that puts the middleware in front of an app."""

    def guard(
        policies: Sequence[Mapping[str, Any]] = (),
        settings: Mapping[str, Any] | None = None,
        app: Any = echo,
        **options: Any,
    ) -> M9MMiddleware:
        return M9MMiddleware(
            app,
            settings=make_settings(settings),
            policies=policies,
            **{"instance_path": tmp_path, "clock": clock, **options},
        )

    return guard
