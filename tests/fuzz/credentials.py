"""Harnesses of credentials: `Authorization` of any scheme, tokens, API keys.

Each starts from credentials that hold. What is admitted must contain one of them, whole.
"""

from __future__ import annotations

import json
import unicodedata
from base64 import b64decode, b64encode, urlsafe_b64encode
from hashlib import sha256, sha384, sha512
from hmac import digest
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from zlib import crc32

from flask_m9m import Identity, current_identity, require_auth
from flask_m9m.auth.jwt import jws

from .harness import LONGEST, Wrong
from .mutation import Mutator
from .requests import BEGIN, SECRET, Answer, RequestHarness, Sent, no_chance

REFUSALS = (400, 401, 403, 429)
PREFIX = "m9m_sk_"
PASSWORDS = {"ann": "correct horse", "zoë": "pässwörd:ñ"}  # by name, both in NFC
BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def view() -> Any:
    return {"subject": current_identity.subject, "scheme": current_identity.scheme}


class CredentialHarness(RequestHarness):
    """A harness with an app that has tokens, API keys and users."""

    outcomes = ("admitted", "refused 401")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        with no_chance():
            self.app, m9m = self.secure(
                self.settings(
                    basic_auth={"enabled": True},
                    jwt={"previous_secrets": [SECRET[::-1]], "cookie": {"enabled": True}},
                )
            )

            @m9m.password_verifier
            def verify(name: str, password: str) -> Identity | None:
                return Identity(name, "basic") if PASSWORDS.get(name) == password else None

            for path, schemes in (("/x", None), ("/bearer", ["bearer"]), ("/key", ["api_key"])):
                marked = require_auth(schemes=schemes)(lambda: view())
                self.app.add_url_rule(path, path, marked, methods=["GET", "POST"])
            self.app.extensions["m9m"].database.upgrade()
            with self.app.app_context():
                self.tokens = self._tokens(m9m)
                self.keys = {
                    m9m.api_keys.create(f"key {number}", f"owner{number}", ["a"])[
                        1
                    ]: f"owner{number}"
                    for number in range(3)
                }

    def _tokens(self, m9m: Any) -> dict[str, str]:
        """Return access tokens by their text, with their subjects."""
        tokens = m9m.tokens
        issued = {
            tokens.issue("ann", ["a", "b"], ["admin"]): "ann",
            tokens.issue(
                "zoë", claims={"deep": [[{"x": [1, 2.5, None]}]]}, expires_in=10**8
            ): "zoë",
            tokens.issue("bob", fresh=True): "bob",
        }
        self.refresh_token = tokens.issue_pair("ann").refresh_token
        self.expired = signed({"sub": "ann", "exp": BEGIN - 1})
        return issued

    def run(self, case: Sent) -> Answer:
        return self.send(self.app, case)

    def check(self, case: Sent, answer: Answer) -> str:
        self.expect(answer, 200, *REFUSALS)
        if answer.status != 200:
            if answer.status == 401 and not answer.all("www-authenticate"):
                raise Wrong("a 401 without a challenge")
            return f"refused {answer.status}"
        subject = json.loads(answer.body)["subject"]
        if subject not in self.holders(case):
            raise Wrong(f"FORGERY: admitted as {subject!r}")
        return "admitted"

    def holders(self, case: Sent) -> set[str]:
        """Return the subjects whose credential the request has."""
        fields = [value for name, value in case.fields.items() if name.startswith("HTTP_")]
        held = {**self.tokens, **self.keys}
        found = {held[text] for text in held for value in fields if text in value}
        return found | {name for value in fields for name in basic_names(value)}

    def forget(self) -> None:
        jws._header.cache_clear()

    def close(self) -> None:
        self.app.extensions["m9m"].database.close()


def basic_names(value: str) -> set[str]:
    """Return the name whose password a field has, as Basic has it."""
    scheme, _, credential = value.partition(" ")
    try:
        text = b64decode(credential.lstrip(" ").encode("ascii"), validate=True).decode()
    except ValueError:
        return set()
    name, _, password = unicodedata.normalize("NFC", text[:2_000]).partition(":")
    right = scheme.lower() == "basic" and PASSWORDS.get(name) == password
    return {name} if right else set()


def basic(name: str, password: str) -> str:
    return "Basic " + b64encode(f"{name}:{password}".encode()).decode()


def address(random: Random) -> str:
    """Choose one of 65,536 addresses, so that not all are soon locked out."""
    return f"198.51.{random.randrange(256)}.{random.randrange(256)}"


class Authorization(CredentialHarness):
    """`Authorization` of any scheme, the key's header and cookies, alone and together."""

    name = "authorization"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        token, key = next(iter(self.tokens)), next(iter(self.keys))
        valid = [f"Bearer {token}", f"Api-Key {key}", *(basic(*one) for one in PASSWORDS.items())]
        odd = ['Digest username="ann", realm="m9m"', "Negotiate YII=", "Basic Og==", "Bearer"]
        words = ("Bearer ", "bEaReR  ", "Basic ", "Api-Key ", token, key, PREFIX, "realm=", "Y Q==")
        self._field = Mutator([*valid, *valid, *odd], words)
        self._password = Mutator(
            ["correct horse", "ann", "é" * 8, "é", "ﬁ", "\ud7a3", "à̖́"], ("é", "̖", "́", ":", "가")
        )
        cookie = f"__Host-m9m-access={token}"
        self._cookie = Mutator([cookie, f"a=b; {cookie}"], ("__Host-m9m-access=", "; ", token, '"'))
        self._key = Mutator([key], (PREFIX, key))

    def make(self, random: Random) -> Sent:
        fields = {"REMOTE_ADDR": address(random), "REQUEST_METHOD": random.choice(("GET", "POST"))}
        kind = random.random()
        if kind < 0.2:
            name, password = random.choice(list(PASSWORDS.items()))
            if random.random() < 0.5:
                name = self._password.text(random)
            password = self._password.text(random)
            fields["HTTP_AUTHORIZATION"] = basic(name, password)[:LONGEST]
        elif kind < 0.95:
            fields["HTTP_AUTHORIZATION"] = self._field.text(random)
        if random.random() < 0.1:
            fields["HTTP_X_API_KEY"] = self._key.text(random)
        if random.random() < 0.1:
            fields["HTTP_COOKIE"] = self._cookie.text(random)
        return Sent(fields, random.choice(("/x", "/x", "/x", "/bearer", "/key")))


class Keys(CredentialHarness):
    """API keys in both places: damaged, made up, with right checksums and wrong ones."""

    name = "api-keys"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._key = Mutator(list(self.keys), (PREFIX, *self.keys, "m9m_", "sk_"))
        self._places = (("HTTP_X_API_KEY", ""), ("HTTP_AUTHORIZATION", "Api-Key "))

    def make(self, random: Random) -> Sent:
        key = self._key.text(random)
        if random.random() < 0.3:
            key = f"{PREFIX}{''.join(random.choices(BASE62, k=32))}"
            key += checksum(key.removeprefix(PREFIX))
        fields = {"REMOTE_ADDR": address(random)}
        for name, before in random.sample(self._places, 1 + (random.random() < 0.1)):
            fields[name] = before + key
        return Sent(fields, random.choice(("/x", "/key")))


def checksum(text: str) -> str:
    """Return an API key's checksum, as its documentation tells it."""
    number, digits = crc32(text.encode()), ""
    for _ in range(6):
        digits, number = BASE62[number % 62] + digits, number // 62
    return digits


class Forged(NamedTuple):
    """A token made from parts, and whether under a secret that counts."""

    header: str
    claims: str
    secret: str
    algorithm: str

    def __str__(self) -> str:
        head = f"{encoded(self.header)}.{encoded(self.claims)}"
        if self.algorithm == "none":
            return f"{head}."
        hashes = {"HS256": sha256, "HS384": sha384, "HS512": sha512}
        made = digest(self.secret.encode(), head.encode(), hashes[self.algorithm])
        return f"{head}.{encoded(made)}"


def encoded(part: str | bytes) -> str:
    octets = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
    return urlsafe_b64encode(octets).rstrip(b"=").decode()


def signed(claims: dict[str, Any]) -> str:
    return str(Forged('{"alg":"HS256"}', json.dumps(claims), SECRET, "HS256"))


class Tokens(CredentialHarness):
    """Tokens: damaged ones, made ones under wrong secrets, and odd claims under the right one."""

    name = "jwt"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        words = ("eyJhbGciOiJub25lIn0", "..", "==", "eyJ", *self.tokens)
        self._token = Mutator([*self.tokens, self.refresh_token, self.expired], words)
        headers = ['{"alg":"HS256","typ":"at+jwt"}', '{"alg":"HS256","kid":"1","typ":"JWT"}']
        names = ('"alg"', '"none"', '"HS384"', '"kid":', '"crit":["exp"]', '"b64":false', '"typ":')
        self._header = Mutator(headers, (*names, "{", "}", "[", "]", "null", "\\u0061", "\\ud800"))
        claims = {"sub": "ann", "exp": BEGIN + 100, "iat": BEGIN, "nbf": BEGIN, "jti": "x"}
        more = {**claims, "scope": "a b", "roles": ["admin"], "role": "x", "userId": "1", "ver": 0}
        names = ('"sub":', '"exp":', '"aud":', '"iss":', '"scope":', '"roles":', '"sid":"s"')
        words = ("{", "}", "[", "]", "null", "true", "1e400", "NaN", "\\ud800", '"', "[[[[[[")
        self._claims = Mutator([json.dumps(claims), json.dumps(more)], (*names, *words))
        self._made: dict[str, Forged] = {}

    def make(self, random: Random) -> Sent:
        if random.random() < 0.5:
            token = self._token.text(random)
        else:
            header = self._header.text(random) if random.random() < 0.5 else '{"alg":"HS256"}'
            secret = random.choice((SECRET, SECRET, SECRET[::-1], "", "x", SECRET[:-1], SECRET * 2))
            algorithm = random.choice(("HS256", "HS256", "HS256", "HS384", "HS512", "none"))
            token = str(Forged(header, self._claims.text(random)[:6_000], secret, algorithm))
        name, before = "HTTP_AUTHORIZATION", "Bearer "
        if random.random() < 0.1:
            name, before = "HTTP_COOKIE", "__Host-m9m-access="
        return Sent({"REMOTE_ADDR": address(random), name: before + token}, "/x")

    def holders(self, case: Sent) -> set[str]:
        return super().holders(case) or self._signed_for(next(reversed(case.fields.values())))

    def _signed_for(self, value: str) -> set[str]:
        """Return whom a token of the right secret is for, if it may be admitted at all."""
        token = value.split(" ")[-1].removeprefix("__Host-m9m-access=")
        head, _, signature = token.rpartition(".")
        secrets = (SECRET, SECRET[::-1])
        right = [encoded(digest(one.encode(), head.encode("latin-1"), sha256)) for one in secrets]
        if signature not in right:
            return set()
        header, claims = (json.loads(b64decode(part + "==", "-_")) for part in head.split("."))
        holds = (
            header["alg"] == "HS256"
            and "crit" not in header
            and BEGIN < claims["exp"] < 10**12
            and max(claims.get("nbf", 0), claims.get("iat", 0)) <= BEGIN + 5
            and "aud" not in claims
        )
        return {claims.get("sub") or claims.get("userId")} if holds else set()


HARNESSES = (Authorization, Tokens, Keys)
