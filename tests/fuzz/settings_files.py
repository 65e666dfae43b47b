"""Harness of settings: a YAML file, `.env` and the environment, each of them damaged.

Cases are grouped by the length of what is read and by the numbers of problems, unknown variables,
for which the nearest names are looked for, lines of `.env` and commas. An app starts once, and
takes hundreds of milliseconds for it: five of them are not dear.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import yaml

from flask_m9m.errors import SettingsError
from flask_m9m.settings import Settings, load
from flask_m9m.settings.paths import LEAVES

from .harness import Harness, Wrong
from .mutation import Mutator

SECRET = "Canary0Canary1Canary2Canary3Canary4Canary5"
SHOWN = "Canary"

CORPUS = [
    f"security: {{jwt: {{secret: {SECRET}, expiration: 1h30m}}}}\n",
    f"security:\n  jwt:\n    secret: {SECRET}\n    previous_secrets: [{SECRET}x]\n    leeway: 5\n",
    "security:\n  cors:\n    allowed_origins: [https://app.example.com]\n    max_age: 600\n",
    "performance: {rate_limit: {enabled: true, requests_per_minute: 60, burst: 10}}\n",
    "server: {trusted_proxies: [10.0.0.0/8, unix], allowed_networks: ['::1/128'], port: 8080}\n",
    f"credentials: {{encryption_key: '{'00' * 32}', environment: [HOME], cipher: fernet}}\n",
    "database: {url: 'postgresql+psycopg://u:Canary0Canary1@db/x'}\naudit: {retention: 90d}\n",
    "security: &a {lockout: {attempts: 3}}\nperformance: {}\napi: {enabled: true, prefix: /v1}\n",
    f"security: {{jwt: {{secret: '${{M9M_FUZZ:-{SECRET}}}'}}}}\n",
    "security: {headers: {preset: web, x_frame_options: null}, errors: {format: problem}}\n",
]
WORDS = (
    *("security:", "jwt:", "secret:", "null", "true", "no", "[", "]", "{", "}", ": ", "\n", "  "),
    *("- ", "*a", "&a ", "<<: ", "!!python/name:os", "!!binary ", "|\n", "${HOME}", "${file:/x}"),
    *("${M9M_JWT_SECRET}", "$${", "0o17", "1e3", ".inf", "2030-01-01", "'", '"', "#", "1_000", "٣"),
    *("allow_credentials: true", "'*'", "allowed_origins: ['*']", "\t", "\ufeff", "\0", "? ", "%"),
)
SECRETS = {leaf.variable for leaf in LEAVES.values() if leaf.is_secret} | {
    *("M9M_JWT_SECRET", "M9M_ENCRYPTION_KEY", "M9M_POSTGRES_URL", "N8N_ENCRYPTION_KEY")
}
NAMES = (
    *("M9M_JWT_SECRET", "N8N_ENCRYPTION_KEY", "M9M_DATABASE_URL", "M9M_SECURITY_JWT_LEEWAY"),
    *("M9M_SECURITY_CORS_ALLOWED_ORIGINS", "M9M_SECURITY_CORS_ALLOW_CREDENTIALS", "M9M_PORT"),
    *("M9M_DEV_MODE", "M9M_SERVER_TLS_ENABLED", "M9M_JWT_SECRT", "M9M_JWT_SECRET_FILE"),
)
KNOWN = {leaf.variable for leaf in LEAVES.values()}.union(NAMES) - {"M9M_JWT_SECRT"}
VALUES = ["https://app.example.com", "8080", "true", "1h", "[a, b]", "tcp://1.2.3.4:80", "*", "/x"]


class Given(NamedTuple):
    """The sources of settings."""

    file: bytes
    dotenv: bytes | None
    environ: dict[str, str]


class SettingsFiles(Harness):
    """Settings: they hold, or all problems are listed without a secret."""

    name = "settings"
    outcomes = ("settings", "problems")
    cheap = 5_000_000

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        alphabet = "".join(map(chr, range(32, 127))) + "\n\t\0é\u2028\ufeff"
        self._file = Mutator(CORPUS, WORDS, alphabet=alphabet, long=0.005)
        lines = [f"{name}={value}\n" for name in NAMES[3:] for value in VALUES[:4]]
        lines += [f"{name}={SECRET}\n" for name in NAMES[:3]]
        self._dotenv = Mutator(lines, ("export ", "=", "'", '"', "${M9M_PORT}", "#", "\n", "\\"))
        self._value = Mutator(VALUES, ("${HOME}", ",", "[", "]", '"', "${", "}", "*"))
        self._secret = Mutator([SECRET], ("${HOME}", ",", "${", "}", SECRET))
        self._path = folder / "config.yaml"
        self._folder = folder

    def make(self, random: Random) -> Given:
        file = self._file.text(random).encode("utf-8", "surrogatepass")
        if random.random() < 0.02:
            file = random.choice((b"\xff", b"\x00", "é".encode("utf-16"))) + file
        dotenv = None
        if random.random() < 0.1:
            dotenv = self._dotenv.text(random).encode()
        names = random.sample(NAMES, random.choice((0, 0, 0, 1, 2)))
        environ = {
            name: (self._secret if name in SECRETS else self._value).text(random) for name in names
        }
        return Given(file, dotenv, environ)

    def run(self, case: Given) -> Any:
        self._path.write_bytes(case.file)
        if case.dotenv is not None:
            (self._folder / ".env").write_bytes(case.dotenv)
        try:
            return load(
                str(self._path), environ=case.environ, cwd=self._folder, home=self._folder / "home"
            )
        except SettingsError as error:
            return error
        finally:
            if case.dotenv is not None:
                (self._folder / ".env").unlink()

    def group(self, case: Given, result: Any) -> Hashable:
        read = len(case.file) + len(case.dotenv or b"") + sum(map(len, case.environ.values()))
        problems = result.problems if isinstance(result, SettingsError) else ()
        searches = sum(problem.found == "not a setting" for problem in problems)
        names = re.findall("M9M_[^=]*", (case.dotenv or b"").decode()) + list(case.environ)
        unknown = len([name for name in names if name not in KNOWN])
        lines = (case.dotenv or b"").count(b"\n")
        nodes = case.file.count(b",")  # of YAML
        counts = (read // 512, len(problems), searches, unknown, lines, nodes)
        return tuple(count.bit_length() for count in counts)

    def check(self, case: Given, result: Any) -> str:
        if isinstance(result, SettingsError):
            self._check_message(str(result), case)
            return "problems"
        for warning in result.warnings:
            self._check_message(warning, case)
        self._check_settings(result.settings)
        return "settings"

    def _check_message(self, message: str, case: Given) -> None:
        if SHOWN in message and not shown(case):
            raise Wrong(f"a message has a secret in it: {message}")
        if re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", message):
            raise Wrong(f"a message has control characters in it: {message!r}")

    def _check_settings(self, settings: Settings) -> None:
        jwt, cors = settings.security.jwt, settings.security.cors
        if jwt.secret is not None and len(jwt.secret.get_secret_value().encode()) < 32:
            raise Wrong("a short secret is accepted")
        if "*" in cors.allowed_origins and cors.allow_credentials:
            raise Wrong("any origin is allowed with credentials")


def shown(case: Given) -> bool:
    """Tell whether damage has put the secret where no secret belongs, so that it may be shown."""
    names = re.findall(r"(?:^|\n)\s*(?:export\s+)?([^\n=]*)", (case.dotenv or b"").decode())
    if case.dotenv and not SECRETS.issuperset(name.strip() for name in names if name):
        return True
    for text in (case.file.decode("utf-8", "replace"), *case.environ.values()):
        if any(SHOWN in name for name in re.findall(r"\$\{(file:[^}]*|[^}:]*)", text)):
            return True  # a reference, whose name is shown
    try:
        tree = yaml.load(case.file, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, ValueError, RecursionError):
        return False
    return any(SHOWN in f"{text}" for text in not_secret(tree, ""))


def not_secret(tree: Any, path: str) -> Iterator[object]:
    """Yield the keys of a tree, and the values of settings that are not secret."""
    if path in LEAVES and LEAVES[path].is_secret:
        return
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield key
            yield from not_secret(value, f"{path}.{key}".lstrip("."))
    elif isinstance(tree, list):
        for item in tree:
            yield from not_secret(item, path)
    else:
        yield tree


HARNESSES = (SettingsFiles,)
