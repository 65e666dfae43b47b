"""Drive examples/workflows_api over HTTP and show each request and what came back."""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from pathlib import Path

from demo_audit import keep_watch
from demo_chapters import log_in, tell
from demo_client import Demo, paint
from demo_credentials import keep_secrets
from demo_limits import share_limits
from demo_server import make_user, serving


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        return show(Path(folder))


def show(folder: Path) -> int:
    demo = Demo()
    secret, password = secrets.token_urlsafe(48), secrets.token_urlsafe(12)
    environment = {
        **os.environ,
        "M9M_JWT_SECRET": secret,
        "M9M_DATABASE_URL": f"sqlite:///{folder / 'm9m.db'}",
        "M9M_PERFORMANCE_RATE_LIMIT_PATH": str(folder / "limits"),
    }
    make_user(environment, password)
    with serving(environment, folder / "log") as demo.port:
        tell(demo, secret)
        log_in(demo, password)
    share_limits(demo, secret, environment, folder)
    keep_secrets(demo, secret, environment, folder)
    keep_watch(demo, environment, folder)
    if demo.wrong:
        print(paint(f"\n{demo.wrong} of {demo.steps} steps were wrong", "1;31"))
        return 1
    print(paint(f"\nAll {demo.steps} answers are what they should be", "1;32"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
