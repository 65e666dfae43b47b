"""The demo's chapter on rate limits that several processes share."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from demo_client import Demo
from demo_server import EXAMPLE, serving

from flask_m9m.auth.jwt.issuer import Issuer
from flask_m9m.auth.jwt.signing_keys import SigningKey, SigningKeyRing

RUN = "/workflows/1/run"


def share_limits(demo: Demo, secret: str, environment: Mapping[str, str], folder: Path) -> None:
    """Two processes count as one, outlive each other, and can be looked into."""
    demo.chapter("One budget in all processes of a machine")
    carol = Issuer(SigningKeyRing([SigningKey(secret.encode())]), expiration=3600).issue(
        "carol", scopes=("workflow:run",)
    )
    log = folder / "log"
    with serving(environment, log) as second:
        with serving(environment, log) as demo.port:
            demo.step("A run in one process", "POST", RUN, token=carol, expect=202)
            demo.step("… and another", "POST", RUN, token=carol, expect=202)
        demo.port = second
        demo.step("It has ended; the third, in the other", "POST", RUN, token=carol, expect=202)
        demo.step("One too many", "POST", RUN, token=carol, expect=429, code="RATE_LIMITED")
        said = limits(environment, "show", "identity:carol")
        line = next((one for one in said.splitlines() if one.startswith("run_workflow")), said)
        demo.fact("flask m9m limits show identity:carol", line, right=" 0 " in line)
        limits(environment, "reset", "identity:carol")
        demo.step("After flask m9m limits reset", "POST", RUN, token=carol, expect=202)


def limits(environment: Mapping[str, str], *arguments: str) -> str:
    """Return what `flask m9m limits` prints."""
    command = [sys.executable, "-m", "flask", "--app", str(EXAMPLE), "m9m", "limits", *arguments]
    return subprocess.run(
        command, env=dict(environment), stdout=subprocess.PIPE, text=True, check=True
    ).stdout
