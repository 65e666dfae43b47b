"""The demo's chapter on stored credentials: listed, rotated, swapped, and never told."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from demo_client import Answer, Demo
from demo_server import run_python, serving

from flask_m9m.auth.jwt.issuer import Issuer
from flask_m9m.auth.jwt.signing_keys import SigningKey, SigningKeyRing

URL = "/api/v1/credentials"
SECRET = f"xoxb-{secrets.token_hex(12)}"

ROTATE = """
import json
from app import app, m9m
with app.app_context():
    result = m9m.credentials.rotate()
print(json.dumps({"resealed": result.resealed, "keys in use": dict(result.keys_in_use)}))
"""
READ = """
import sys
from app import app, m9m
with app.app_context():
    try:
        print(m9m.credentials.get(sys.argv[1]).data["accessToken"])
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
"""


def keep_secrets(demo: Demo, secret: str, environment: Mapping[str, str], folder: Path) -> None:
    """A secret goes in, is used, gets another key, is tampered with, and never comes out."""
    demo.chapter("Secrets that stay secret")
    issuer = Issuer(SigningKeyRing([SigningKey(secret.encode())]), expiration=3600)
    ann, bob = issuer.issue("ann"), issuer.issue("bob")
    log = folder / "log"
    old, new = secrets.token_hex(32), secrets.token_hex(32)

    with serving(under(environment, old), log) as demo.port:
        ids = create(demo, ann)
        use(demo, ids[0], ann, bob)
    changing = under(environment, new, previous=old)
    with serving(changing, log) as demo.port:
        rotate(demo, changing, ids[0], ann)
    with serving(under(environment, new), log) as demo.port:
        check(demo, "The new key alone opens it", ids[0], ann)
        swap(demo, under(environment, new), folder, ids, ann)
    with serving(under(environment, old), log) as demo.port:
        demo.step(
            "The old key alone: nothing is touched",
            "POST",
            f"{URL}/{ids[0]}/test",
            token=ann,
            expect=503,
            code="SERVICE_UNAVAILABLE",
        )
        said = last_line(log, "credentials.encryption_key")
        demo.fact("… and the log says which key is needed", said, right="2 credentials" in said)
    in_log = SECRET in log.read_text()
    found = "the secret is in it" if in_log else "not a trace of the secret"
    demo.fact("All that the log says", found, right=not in_log)


def under(environment: Mapping[str, str], key: str, previous: str = "") -> dict[str, str]:
    """Return the environment with encryption keys."""
    keys = {"M9M_ENCRYPTION_KEY": key}
    if previous:
        keys["M9M_CREDENTIALS_PREVIOUS_KEYS"] = previous
    return {**environment, **keys}


def untold(answer: Answer) -> bool:
    return SECRET not in answer.body + str(answer.headers)


def create(demo: Demo, ann: str) -> list[str]:
    """Keep two credentials, and return their ids."""
    ids = []
    for name in ("Slack of the team", "Slack of the others"):
        answer = demo.step(
            f"Ann keeps a token: {name}",
            "POST",
            URL,
            token=ann,
            body={"name": name, "type": "slackApi", "data": {"accessToken": SECRET}},
            expect=201,
            also=untold,
        )
        ids.append(json.loads(answer.body)["id"])
    return ids


def use(demo: Demo, credential_id: str, ann: str, bob: str) -> None:
    demo.step("The list has no secrets", "GET", URL, token=ann, expect=200, also=untold)
    demo.step(
        "For Bob it does not exist",
        "GET",
        f"{URL}/{credential_id}",
        token=bob,
        expect=404,
        code="NOT_FOUND",
    )
    demo.step(
        "Nobody says whose it is",
        "POST",
        URL,
        token=bob,
        body={"name": "x", "type": "slackApi", "data": {"accessToken": SECRET}, "owner": "ann"},
        expect=400,
        code="VALIDATION_ERROR",
        also=untold,
    )
    check(demo, "The app itself uses it", credential_id, ann)


def check(demo: Demo, why: str, credential_id: str, ann: str) -> None:
    """Have the app's checker try a credential that is good."""
    demo.step(
        why,
        "POST",
        f"{URL}/{credential_id}/test",
        token=ann,
        expect=200,
        also=lambda answer: json.loads(answer.body) == {"success": True},
    )


def rotate(demo: Demo, environment: Mapping[str, str], credential_id: str, ann: str) -> None:
    check(demo, "Under a new key, with the old one listed, it opens", credential_id, ann)
    result = run_python(ROTATE, environment)
    demo.fact(
        "Rotation seals both anew, while the app serves",
        result,
        right=json.loads(result)["resealed"] == 2,
    )


def swap(
    demo: Demo, environment: Mapping[str, str], folder: Path, ids: list[str], ann: str
) -> None:
    """Swap what two rows hold, see it refused, and swap it back."""
    path = folder / "m9m.db"
    exchange_envelopes(path, ids)
    demo.step(
        "Somebody swapped two rows in the database: neither opens",
        "POST",
        f"{URL}/{ids[0]}/test",
        token=ann,
        expect=500,
        code="INTERNAL_ERROR",
        also=untold,
    )
    said = run_python(READ, environment, ids[1])
    expected = "DecryptionFailed: cipher: message authentication failed"
    demo.fact("The app itself gets the one error", said, right=said == expected)
    exchange_envelopes(path, ids)
    check(demo, "Swapped back", ids[0], ann)
    octets = b"".join(one.read_bytes() for one in folder.glob("m9m.db*"))
    found = f"{len(octets)} bytes, " + ("with" if SECRET.encode() in octets else "without")
    demo.fact(
        "The files of the database", f"{found} the secret", right=SECRET.encode() not in octets
    )


def exchange_envelopes(path: Path, ids: list[str]) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        read = "SELECT envelope FROM m9m_credentials WHERE id = ?"
        envelopes = [database.execute(read, (one,)).fetchone()[0] for one in ids]
        for one, envelope in zip(ids, reversed(envelopes), strict=True):
            write = "UPDATE m9m_credentials SET envelope = ? WHERE id = ?"
            database.execute(write, (envelope, one))


def last_line(log: Path, word: str) -> str:
    lines = [line for line in log.read_text().splitlines() if word in line]
    return lines[-1] if lines else "nothing"
