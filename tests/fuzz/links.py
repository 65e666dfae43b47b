"""Harness of signed URLs and signed values: damaged ones, and other ones with their signature."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from flask import request

from flask_m9m import require_signed_url
from flask_m9m.errors import InvalidSignature

from .harness import Wrong
from .mutation import Mutator
from .requests import Answer, RequestHarness, Sent

LIFE = 3_600
LONGEST_LINE = 8_190
"""The longest request line that gunicorn reads."""


class Value(NamedTuple):
    """A text that is said to be a signed value."""

    text: str


class SignedLinks(RequestHarness):
    """Signed URLs as requests, and signed values."""

    name = "signed-urls"
    outcomes = ("admitted", "refused 403", "value", "no value")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.app, self._m9m = self.secure(self.settings())

        def view(**_: str) -> Any:
            return {"path": request.path, "args": list(request.args.items(multi=True))}

        for rule in ("/files/<path:name>", "/<int:number>", "/a b/ü"):
            marked = require_signed_url(lambda **_: view())
            self.app.add_url_rule(rule, rule, marked, methods=["GET", "POST"])
        urls = [
            ("/files/a.txt", "GET"),
            ("/files/a/b%20c?b=2&a=1&b=1&empty=", "GET"),
            ("/files/%C3%BC?x=%C3%BC+y&z=%26", "POST"),
            ("/7?user=ann&admin=0", "GET"),
            ("/a%20b/%C3%BC", "GET"),
        ]
        with self.app.app_context():
            signed = [(self._m9m.sign_url(url, LIFE, method), method) for url, method in urls]
            late = self._m9m.sign_url("/files/late", 1)
            self.clock.advance(2)
            payloads: list[Any] = [{"a": [1, None, "ü"]}, "text", 0]
            self._values = {self._m9m.sign(one, LIFE): one for one in payloads}
        self._admitted = {(method, *read(url)) for url, method in signed}
        words = (
            "signature=",
            "&",
            "?",
            "%26",
            "%2F",
            "%2f",
            "..",
            "./",
            "//",
            ";",
            "+",
            "%20",
            "admin=1",
        )
        signatures = tuple(url.partition("signature=")[2] for url, _ in signed)
        self._url = Mutator([url for url, _ in signed] + [late], (*words, *signatures), long=0.05)
        self._value = Mutator(list(self._values), (".", "=", *self._values))

    def make(self, random: Random) -> Sent | Value:
        if random.random() < 0.2:
            return Value(self._value.text(random))
        path, _, query = self._url.text(random)[:LONGEST_LINE].partition("?")
        decoded = unquote_to_bytes(path.encode("latin-1")).decode("latin-1")
        if not decoded.startswith("/"):
            decoded = "/" + decoded
        method = random.choice(("GET", "GET", "GET", "HEAD", "POST", "PUT"))
        fields = {"QUERY_STRING": query, "REQUEST_METHOD": method}
        return Sent(fields, decoded)

    def run(self, case: Sent | Value) -> Any:
        if isinstance(case, Sent):
            return self.send(self.app, case)
        with self.app.app_context():
            try:
                return self._m9m.unsign(case.text)
            except InvalidSignature:
                return None

    def group(self, case: Sent | Value, result: Any) -> str:
        return "requests" if isinstance(case, Sent) else f"values {len(case.text).bit_length()}"

    def check(self, case: Sent | Value, result: Any) -> str:
        if isinstance(case, Value):
            if result is None and self._values.get(case.text) is None:
                return "no value"
            if case.text not in self._values or self._values[case.text] != result:
                raise Wrong(f"FORGERY: a value is {result!r}")
            return "value"
        return self._check_answer(case, result)

    def _check_answer(self, case: Sent, answer: Answer) -> str:
        self.expect(answer, 200, 308, 400, 403, 404, 405)
        if answer.status != 200:
            return f"refused {answer.status}"
        method = case.fields["REQUEST_METHOD"].replace("HEAD", "GET")
        asked = (method, case.path, parameters(case.fields["QUERY_STRING"]))
        if asked not in self._admitted:
            raise Wrong(f"FORGERY: admitted {asked}")
        if answer.body and json.loads(answer.body)["path"].encode() != case.path.encode("latin-1"):
            raise Wrong("the view saw another path")
        return "admitted"


def read(url: str) -> tuple[str, tuple[tuple[bytes, bytes], ...]]:
    """Return the path and the parameters of a URL."""
    path, _, query = url.partition("?")
    return unquote_to_bytes(path).decode("latin-1"), parameters(query)


def parameters(query: str) -> tuple[tuple[bytes, bytes], ...]:
    """Read a query as forms are read, but for the signature, in the order of names."""
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    found = [(_decoded(name), _decoded(value)) for name, _, value in pairs]
    return tuple(sorted((one for one in found if one[0] != b"signature"), key=lambda one: one[0]))


def _decoded(text: str) -> bytes:
    return unquote_to_bytes(text.replace("+", " ").encode("latin-1"))


HARNESSES = (SignedLinks,)
