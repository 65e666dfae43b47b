"""Harnesses of request fields that are no credentials: `Accept`, forwarding fields, CORS."""

from __future__ import annotations

import json
import re
from ipaddress import ip_address, ip_network
from pathlib import Path
from random import Random
from typing import Any

from flask import request

from flask_m9m import get_client_address, require_auth

from .harness import LONGEST, Wrong
from .mutation import Mutator
from .requests import Answer, RequestHarness, Sent

METHODS = ["GET", "PUT", "OPTIONS"]


class Accept(RequestHarness):
    """`Accept` of refused requests, which chooses the format of the error."""

    name = "accept"
    outcomes = ("application/json", "application/problem+json")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.app, _ = self.secure(self.settings())
        self.app.add_url_rule("/x", "x", require_auth(lambda: ""))
        problem = "application/problem+json"
        corpus = [
            "*/*",
            problem,
            f"text/html, {problem};q=0.9, */*;q=0.1",
            f'{problem}; charset="utf-8"; q=1.000',
            f"application/json;q=0, {problem};v=1;q=0.5",
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8",
        ]
        words = (problem, "problem+json", "application/*", ";q=", "q=0", "q=1", '"\\"', " ", "\\")
        self._accept = Mutator([*corpus, problem], words, long=0.1)

    def make(self, random: Random) -> Sent:
        text = self._accept.text(random)
        if "problem+json" not in text and random.random() < 0.7:
            text = f"application/problem+json{text}"[:LONGEST]
        return Sent({"HTTP_ACCEPT": text}, random.choice(("/x", "/x", "/none")))

    def run(self, case: Sent) -> Answer:
        return self.send(self.app, case)

    def check(self, case: Sent, answer: Answer) -> str:
        self.expect(answer, 401, 404)
        kind = answer.one("content-type") or ""
        if answer.status == 401:
            code = json.loads(answer.body)["code"]
            if code != "AUTH_REQUIRED" or not answer.all("www-authenticate"):
                raise Wrong(f"a 401 with the code {code}")
        if "problem" in kind and "problem+json" not in case.fields["HTTP_ACCEPT"].lower():
            raise Wrong("problem details, which nobody asked for")
        return kind


REAL = "203.0.113.7"
PROXIES = "10.0.0.0/8"
_HOST = re.compile(r"[A-Za-z0-9_.-]+(:[0-9]{1,5})?|\[[0-9a-fA-F:.]+\](:[0-9]{1,5})?")


class Forwarded(RequestHarness):
    """`Forwarded` and `X-Forwarded-*` behind a trusted proxy, which appends the real client.

    Whatever a client sends, it is not taken for another.
    """

    name = "forwarded"
    outcomes = ("the real client", "redirect")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._apps = {header: self._make(header) for header in ("x-forwarded", "forwarded")}
        nodes = ["192.0.2.9", "[2001:db8::9]:47011", "unknown", "_hidden", "10.1.1.1", "::1"]
        words = (
            "for=",
            "proto=https",
            "by=",
            "host=",
            '"',
            "\\",
            ",",
            ";",
            "[",
            "]",
            "%eth0",
            "10.",
        )
        chain = ["192.0.2.9, 10.0.0.2", 'for=192.0.2.9;proto=https, for="[2001:db8::9]"']
        self._chain = Mutator([*nodes, *chain, 'for="10.0.0.2'], (*words, *nodes))
        names = ["example.com", "example.com:8443", "[::1]:80", "a.b.c", "http", "https", "on"]
        self._name = Mutator(names, ("@", "/", "\\", "..", ":", "[", "]", ",", "%0d%0a", "#", "?"))

    def _make(self, header: str) -> Any:
        settings = self.settings()
        settings["server"] = {
            "trusted_proxies": [PROXIES, "unix"],
            "proxy_headers": header,
            "trust_forwarded_host": True,
            "https": "redirect",
        }
        settings["performance"] = {"rate_limit": {"enabled": True, "storage": "memory"}}
        settings["performance"]["rate_limit"] |= {"requests_per_minute": 10**6, "burst": 10**6}
        app, _ = self.secure(settings)
        app.add_url_rule("/x", "x", lambda: {"client": get_client_address()})
        return app

    def make(self, random: Random) -> Sent:
        """Make what a client sends, to which a proxy adds the real client, in most cases."""
        kind = random.random()
        chain, name = self._chain.text(random), self._name.text(random)
        fields = {"REMOTE_ADDR": random.choice(("10.0.0.1", "10.0.0.1", REAL, "", "<local>"))}
        appended = "HTTP_X_FORWARDED_FOR", REAL
        if random.random() < 0.5:
            appended = "HTTP_FORWARDED", f"for={REAL};proto={random.choice(('http', 'https'))}"
        if kind < 0.6:
            fields[appended[0]] = f"{chain}, {appended[1]}"
        else:
            fields[appended[0]] = chain
        if appended[0] == "HTTP_X_FORWARDED_FOR" or random.random() < 0.2:
            proto = random.choice(("http", "https", "https"))
            fields["HTTP_X_FORWARDED_PROTO"] = name if random.random() < 0.2 else proto
        if random.random() < 0.3:
            fields[random.choice(("HTTP_X_FORWARDED_HOST", "HTTP_HOST"))] = name
        return Sent(fields, "/x")

    def run(self, case: Sent) -> Answer:
        header = "forwarded" if "HTTP_FORWARDED" in case.fields else "x-forwarded"
        return self.send(self._apps[header], case)

    def check(self, case: Sent, answer: Answer) -> str:
        self.expect(answer, 200, 301, 308, 400, 403)
        if answer.status in (301, 308):
            return self._check_redirect(answer)
        if answer.status != 200:
            return f"refused {answer.status}"
        client, fields = json.loads(answer.body)["client"], case.fields
        sent = fields.get("HTTP_FORWARDED", fields.get("HTTP_X_FORWARDED_FOR", ""))
        if fields["REMOTE_ADDR"] == REAL or re.search(rf", (for=)?{REAL}(;|$)", sent):
            if client != REAL:
                raise Wrong(f"taken for {client}")
            return "the real client"
        if client is not None and ip_address(client) not in ip_network(PROXIES):
            self._check_named(client, sent)
        return "another client"

    def _check_redirect(self, answer: Answer) -> str:
        location = answer.one("location") or ""
        host, slash, path = location.removeprefix("https://").partition("/")
        if not location.startswith("https://") or not _HOST.fullmatch(host) or slash + path != "/x":
            raise Wrong(f"redirects to {location!r}")
        return "redirect"

    def _check_named(self, client: str, sent: str) -> None:
        found = re.findall(r"[0-9A-Fa-f:.]+", sent.replace("\\", ""))
        for text in found:
            for node in (text, text.rpartition(":")[0]):
                try:
                    address = ip_address(node)
                except ValueError:
                    continue
                if client in (str(address), str(getattr(address, "ipv4_mapped", None))):
                    return
        raise Wrong(f"taken for {client}, which nothing names")


_ALLOWED = re.compile(r"https://app\.example\.com|https://([a-z0-9_-]+\.)+example\.org:8443")


class CORS(RequestHarness):
    """`Origin` and the fields of preflights, to a policy that allows credentials."""

    name = "cors"
    outcomes = ("allowed 200", "allowed 204", "closed 200", "closed 403")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        origins = ["https://app.example.com", "https://*.example.org:8443"]
        settings = self.settings(
            cors={
                "allowed_origins": origins,
                "allow_credentials": True,
                "allowed_headers": ["Content-Type", "X-Known", "*"],
                "allowed_methods": ["GET", "PUT"],
            }
        )
        self.app, _ = self.secure(settings)
        self.app.add_url_rule("/x", "x", lambda: request.method, methods=["GET", "PUT"])
        self.app.add_url_rule("/locked", "locked", require_auth(lambda: ""))
        valid = [origins[0], "https://a.example.org:8443", "https://a.b-c.example.org:8443"]
        words = ("https://", "http://", ".example.com", "null", "*", ".", "@", ":", "/", "evil.net")
        self._origin = Mutator([*valid, *valid, "null", "https://example.org:8443"], words)
        self._method = Mutator(["GET", "PUT", "DELETE", "HEAD", "put"], ("GET", ",", "*", "\t"))
        names = ["content-type", "x-known", "authorization", "content-type,x-known", "x-other", "*"]
        self._names = Mutator(names, (",", ", ", "content-type", "authorization", "cookie"))

    def make(self, random: Random) -> Sent:
        fields = {"HTTP_ORIGIN": self._origin.text(random)}
        fields["REQUEST_METHOD"] = random.choice(METHODS)
        if random.random() < 0.5:
            fields["HTTP_ORIGIN"] = random.choice(self._origin.corpus)
        if fields["REQUEST_METHOD"] == "OPTIONS" and random.random() < 0.95:
            method = self._method.text(random) if random.random() < 0.3 else "PUT"
            fields["HTTP_ACCESS_CONTROL_REQUEST_METHOD"] = method
            if random.random() < 0.6:
                fields["HTTP_ACCESS_CONTROL_REQUEST_HEADERS"] = self._names.text(random)
            if random.random() < 0.1:
                fields["HTTP_ACCESS_CONTROL_REQUEST_PRIVATE_NETWORK"] = "true"
        return Sent(fields, random.choice(("/x", "/x", "/x/", "/locked", "/none", "//x", "*")))

    def run(self, case: Sent) -> Answer:
        return self.send(self.app, case)

    def check(self, case: Sent, answer: Answer) -> str:
        self.expect(answer, 200, 204, 308, 400, 401, 403, 404, 405)
        origin, fields = case.fields["HTTP_ORIGIN"], dict(answer.fields)
        allowed = answer.one("access-control-allow-origin")
        vary = ",".join(answer.all("vary")).lower()
        if "origin" not in re.split(r"[ ,]+", vary):
            raise Wrong(f"does not vary on Origin, but on {vary!r}")
        if allowed is None:
            if any(name.startswith("access-control-") for name in fields):
                raise Wrong("fields of CORS without an origin")
            return f"closed {answer.status}"
        if allowed != origin or not _ALLOWED.fullmatch(origin):
            raise Wrong(f"FORGERY: allows {allowed!r} to {origin!r}")
        if "access-control-allow-private-network" in fields:
            raise Wrong("grants access to the private network")
        if answer.status == 204:
            self._check_preflight(case, answer)
        return f"allowed {answer.status}"

    def _check_preflight(self, case: Sent, answer: Answer) -> None:
        method = case.fields.get("HTTP_ACCESS_CONTROL_REQUEST_METHOD")
        methods = (answer.one("access-control-allow-methods") or "").split(", ")
        if method not in methods or not set(methods) <= {"GET", "HEAD", "PUT"}:
            raise Wrong(f"a preflight for {method!r} is answered {methods}")
        wanted = case.fields.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", "").lower().split(",")
        if "authorization" in (name.strip() for name in wanted):
            raise Wrong("Authorization is allowed, which nobody listed")


HARNESSES = (Accept, Forwarded, CORS)
