"""What a request's fields cost: 16 KiB of anything, in any of them, is at most five plain requests.

CPU time of the thread is compared within one run, the least of several: other work on the machine
only makes a case be measured again.
"""

from __future__ import annotations

import base64
import io
import logging
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask

from flask_m9m import M9M, M9MMiddleware, require_auth, require_signed_url
from flask_m9m.testing import make_settings
from tests.databases import settle

SIZE = 16_384
MOST = 5.0  # plain requests
RUNS = 60  # at most, where a case seems dear

UNITS = {
    "blanks": " ",
    "tabs": "\t",
    "commas": ",",
    "blank items": " ,",
    "items": "a,",
    "items and blanks": "a ,",
    "semicolons": ";",
    "names": "a;",
    "pairs": "a=b;",
    "weights": "gzip;q=0,",
    "unequal": "q=1;",
    "quotes": '"',
    "quoted items": '"a",',
    "escaped quotes": '\\"',
    "backslashes": "\\",
    "octal escapes": "\\054",
    "digits": "1",
    "letters": "a",
    "dotted": "1.",
    "dots": ".",
    "colons": ":",
    "brackets": "[",
    "closed brackets": "[]",
    "braces": "{",
    "parentheses": "(",
    "percent": "%",
    "escapes": "%e9",
    "equal signs": "=",
    "ampersands": "&",
    "parameters": "a=1&",
    "slashes": "/",
    "segments": "/a",
    "parents": "/..",
    "extended": "a*0=b;",
    "entity tags": 'W/"a",',
    "ranges": "0-1,",
    "octets": "\xe9",
    "combining": "\xcc\x95\xd6\xb0",
    "hops": "127.0.0.1,",
    "forwarded hops": "for=127.0.0.1,",
    "forwarded pairs": "for=127.0.0.1;a=b;",
    "sites": "cross-site,",
    "hyphens": "-",
    "problems": "application/problem+json,",
}
FIELDS = {
    "HTTP_ACCEPT": ("", "application/problem+json", 'application/problem+json;a="'),
    "HTTP_ACCEPT_ENCODING": ("",),
    "HTTP_ACCEPT_LANGUAGE": ("",),
    "HTTP_ACCESS_CONTROL_REQUEST_HEADERS": ("", "x-"),
    "HTTP_ACCESS_CONTROL_REQUEST_METHOD": ("",),
    "HTTP_AUTHORIZATION": ("", "Bearer ", "Bearer a.", "Basic ", "Api-Key ", "Digest "),
    "HTTP_CACHE_CONTROL": ("",),
    "HTTP_CONNECTION": ("", "upgrade,"),
    "HTTP_COOKIE": ("", "session=", 'session="', "__Host-m9m-access=", "__Host-m9m-access;"),
    "HTTP_EXPECT": ("",),
    "HTTP_FORWARDED": ("", "for=", 'for="', "for=127.0.0.1;"),
    "HTTP_HOST": ("", "a.", "localhost:", "["),
    "HTTP_IF_MODIFIED_SINCE": ("", "Mon, "),
    "HTTP_IF_NONE_MATCH": ("", "W/"),
    "HTTP_ORIGIN": ("", "https://", "https://a."),
    "HTTP_RANGE": ("", "bytes="),
    "HTTP_REFERER": ("",),
    "HTTP_SEC_FETCH_MODE": ("",),
    "HTTP_SEC_FETCH_SITE": ("",),
    "HTTP_TRANSFER_ENCODING": ("",),
    "HTTP_UPGRADE": ("", "websocket,"),
    "HTTP_USER_AGENT": ("",),
    "HTTP_X_API_KEY": ("", "m9m_sk_"),
    "HTTP_X_CSRF_TOKEN": ("",),
    "HTTP_X_FORWARDED_FOR": ("", "["),
    "HTTP_X_FORWARDED_HOST": ("", "a:"),
    "HTTP_X_FORWARDED_PREFIX": ("",),
    "HTTP_X_FORWARDED_PROTO": ("", "https,"),
    "HTTP_X_REQUEST_ID": ("",),
    "CONTENT_LENGTH": ("", "1"),
    "CONTENT_TYPE": ("", "application/json;", 'application/json;a="', "multipart/form-data;"),
    "QUERY_STRING": ("", "a=", f"signature=1.{'A' * 43}&"),
    "PATH_INFO": ("/", "/open/"),
    "SCRIPT_NAME": ("/",),
    "REQUEST_METHOD": ("",),
}
PREFLIGHT = {
    "REQUEST_METHOD": "OPTIONS",
    "HTTP_ORIGIN": "https://a.example.com",
    "HTTP_ACCESS_CONTROL_REQUEST_METHOD": "POST",
}


def settings_of(url: str, **server: Any) -> Any:
    server = {"trusted_proxies": ["127.0.0.1"], "trust_forwarded_host": True, **server}
    limit = {"enabled": True, "requests_per_minute": 10**6, "burst": 10**6, "storage": "memory"}
    security = {
        "jwt": {"secret": "x1" * 32, "cookie": {"enabled": True}},
        "basic_auth": {"enabled": True},
        "cors": {
            "allowed_origins": ["https://*.example.com"],
            "allowed_headers": ["*"],
            "allow_credentials": True,
        },
    }
    return make_settings(
        {
            "api": {"enabled": True},
            "database": {"url": url},
            "performance": {"rate_limit": limit},
            "security": security,
            "server": server,
        }
    )


def app_of(url: str, **server: Any) -> Any:
    app = Flask("costs")
    app.secret_key = "k" * 32  # so that Flask looks for its session's cookie
    m9m = M9M(app, settings=settings_of(url, **server))
    m9m.password_verifier(lambda name, password: False)
    methods = ["GET", "POST"]
    app.add_url_rule("/open", "open", lambda: "open", methods=methods)
    app.add_url_rule("/closed", "closed", require_auth(lambda: "closed"), methods=methods)
    app.add_url_rule("/folder/", "folder", lambda: "folder", methods=methods)
    app.add_url_rule("/signed", "signed", require_signed_url()(lambda: "signed"))
    return app


def middleware_of(url: str) -> Any:
    def inner(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"inner"]

    policies = [{"prefix": "/closed", "access": "authenticated"}]
    return M9MMiddleware(inner, settings=settings_of(url), policies=policies)


class Target:
    """A kind of request, and what a plain one costs."""

    def __init__(self, app: Any, **environ: str) -> None:
        self.app = app
        self.environ = environ
        for _ in range(5):
            self.ask({})
        self.plain = min(self.ask({})[0] for _ in range(100))

    def ask(self, fields: dict[str, str]) -> tuple[float, str]:
        """Send a request; return the CPU time that it took, in seconds, and its status."""
        environ = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": "/open",
            "QUERY_STRING": "",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "HTTP_HOST": "localhost",
            "HTTP_X_FORWARDED_FOR": f"198.51.100.{secrets.randbelow(256)}",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            **self.environ,
            **fields,
        }
        statuses: list[str] = []
        started = time.thread_time()
        body = self.app(environ, lambda status, headers, exc=None: statuses.append(status))
        b"".join(body)
        getattr(body, "close", lambda: None)()
        return time.thread_time() - started, statuses[0]

    def excess(self, fields: dict[str, str] | Callable[[], dict[str, str]]) -> str | None:
        """Describe how much a request costs if it is too dear, or fails."""
        least, plain = float("inf"), self.plain
        for run in range(RUNS):
            took, status = self.ask(fields() if callable(fields) else fields)
            if status.startswith("5"):
                return status
            least = min(least, took)
            if least <= MOST * plain:
                return None
            # Other work on the machine slows both: compare with plain requests of this moment.
            again = self.ask({})[0]
            plain = again if run == 0 else min(plain, again)
        return f"{least / plain:.1f} plain requests, {status}"


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Target]]:
    """The kinds of requests; their logs go nowhere."""
    url = f"sqlite:///{tmp_path_factory.mktemp('costs')}/m9m.db"
    logging.disable(logging.CRITICAL)
    app, forwarded = app_of(url), app_of(url, proxy_headers="forwarded")
    refusing = app_of(url, allowed_networks=["203.0.113.0/24"])
    redirecting, middleware = app_of(url, https="redirect"), middleware_of(url)
    yield {
        "open": Target(app),
        "protected": Target(app, PATH_INFO="/closed"),
        "unsafe": Target(app, PATH_INFO="/closed", REQUEST_METHOD="POST"),
        "unknown": Target(app, PATH_INFO="/nowhere"),
        "refused folder": Target(refusing, PATH_INFO="/folder"),
        "signed": Target(app, PATH_INFO="/signed", QUERY_STRING=f"signature=1.{'A' * 43}"),
        "login": Target(
            app,
            PATH_INFO="/api/v1/auth/login",
            REQUEST_METHOD="POST",
            CONTENT_TYPE="application/json",
        ),
        "forwarded": Target(forwarded, HTTP_FORWARDED="for=198.51.100.7"),
        "refused network": Target(refusing),
        "redirected to HTTPS": Target(redirecting),
        "preflight": Target(app, PATH_INFO="/closed", **PREFLIGHT),
        # Refused: what is admitted is so cheap there that any refusal is several times as dear.
        "middleware": Target(middleware, PATH_INFO="/closed"),
    }
    logging.disable(logging.NOTSET)
    settle()


def fill(unit: str, start: str) -> str:
    """Repeat a unit after a start, up to 16 KiB."""
    return start + (unit * SIZE)[: SIZE - len(start)]


@pytest.mark.parametrize("field", FIELDS)
def test_16_kib_of_anything_cost_at_most_five_plain_requests(
    targets: dict[str, Target], field: str
) -> None:
    """CVE-2023-24580 and CVE-2024-56374 of Django, CVE-2022-29361 and CVE-2024-24762: parsers of
    header fields that took quadratic time."""
    dear = []
    for start in FIELDS[field]:
        for name, unit in UNITS.items():
            fields = {field: fill(unit, start)}
            for target, requests in targets.items():
                # A path of its own is no route: its plain request is one to no route.
                if field == "PATH_INFO" and target not in _FOR_PATHS:
                    continue
                # Servers take no such method.
                if field == "REQUEST_METHOD" and target == "middleware":
                    continue
                excess = requests.excess(fields)
                if excess is not None:
                    dear.append(f"{target}, {start[:20]!a} and {name}: {excess}")
    assert not dear, field + "\n".join(dear)


_FOR_PATHS = ("unknown", "refused network", "redirected to HTTPS", "preflight", "middleware")


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()[:6_000]).decode()


def named(password: str) -> str:
    """Make a credential with a new name, which is not locked out."""
    return basic(f"{secrets.token_hex(4)}:{password}")


def part(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def token(header: str) -> str:
    return f"Bearer {part(header.encode()[:6_000])}.e30.AAAA"


def member() -> str:
    """Make the beginning of an object that was not sent before."""
    return f'{{"{secrets.token_hex(4)}":'


SIGNED = part(b'{"alg":"HS256","typ":"at+jwt"}')
CREDENTIALS: dict[str, Callable[[], str]] = {
    "combining characters, a long name": lambda: basic("\u0315" * 1_400 + "\u05b0" * 1_400),
    "combining characters, a name": lambda: basic("\u0315\u05b0" * 120 + ":x"),
    "combining characters, a password": lambda: named("\u0315" * 1_400 + "\u05b0" * 1_400),
    "syllables": lambda: named("\u1100\u1161\u11a8" * 600),
    "ligatures, a name": lambda: basic("\ufdfa" * 200 + ":x"),
    "letters, a long name": lambda: basic("a" * 5_000 + ":x"),
    "letters, a password": lambda: named("a" * 5_000),
    "a control character": lambda: named("a" * 5_000 + "\x00"),
    "no base64": lambda: "Basic " + "=" * 8_000,
    "a nested array": lambda: token(member() + "[" * 6_000),
    "a nested object": lambda: token(member() * 400),
    "a long number": lambda: token(member() + "1" * 4_200 + "}"),
    "a longer number": lambda: token(member() + "1" * 5_900 + "}"),
    "numbers": lambda: token(member() + "[" + "1," * 2_900 + "1]}"),
    "fractions": lambda: token(member() + "[" + "1e1," * 1_400 + "1]}"),
    "members": lambda: token("{" + ",".join(f'"{n}":1' for n in range(600)) + "}"),
    "escapes": lambda: token(member() + '"' + "\\n" * 2_900 + '"}'),
    "surrogates": lambda: token(member() + '"' + "\\ud800" * 900 + '"}'),
    "a long payload": lambda: f"Bearer {SIGNED}.{part(secrets.token_bytes(5_900))}.AAAA",
    "a long signature": lambda: f"Bearer {SIGNED}.e30.{part(secrets.token_bytes(5_900))}",
    "parts": lambda: "Bearer " + "a." * 4_000,
    "a long key": lambda: "Api-Key m9m_sk_" + "a" * 16_000,
}


@pytest.mark.parametrize("target", ["protected", "unsafe"])
@pytest.mark.parametrize("kind", CREDENTIALS)
def test_a_credential_that_nobody_has_costs_at_most_five_plain_requests(
    targets: dict[str, Target], target: str, kind: str
) -> None:
    make = CREDENTIALS[kind]
    assert targets[target].excess(lambda: {"HTTP_AUTHORIZATION": make()}) is None
