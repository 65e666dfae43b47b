"""A child process of an app: nothing that another thread held in the parent is held for ever."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from flask_m9m.processes import forking
from flask_m9m.testing import client_as
from tests.secured import Secured

from ..auth.test_basic import credential

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="there is no fork"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),  # the child does nothing else
]


def in_child(check: Callable[[], bool]) -> bool:
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        try:
            os._exit(0 if check() else 1)
        except BaseException:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_child_serves_although_every_lock_was_held(secured: Secured) -> None:
    app, m9m = secured(basic_auth={"enabled": True})
    with app.app_context():
        m9m.users.create("ann", "correct horse")
        _, key = m9m.api_keys.create("ci", "bob")
    client = client_as(app, "ann")

    def served() -> bool:
        basic = [{"Authorization": credential("ann", one)} for one in ("correct horse", "wrong")]
        answers = [client.get("/x")]
        answers += [
            app.test_client().get("/x", headers=one) for one in ({"X-API-Key": key}, *basic)
        ]
        return [answer.status_code for answer in answers] == [200, 200, 200, 401]

    assert served()
    held, release = threading.Event(), threading.Event()

    def hold_everything() -> None:
        with ExitStack() as stack:
            for lock in list(forking._locks):
                if lock.acquire(blocking=False):
                    stack.callback(lock.release)
            held.set()
            release.wait(30)

    holder = threading.Thread(target=hold_everything)
    holder.start()
    held.wait(10)
    try:
        assert in_child(served)
    finally:
        release.set()
        holder.join()
    assert served()


def test_a_child_remembers_no_key(secured: Secured) -> None:
    app, m9m = secured()
    with app.app_context():
        _, key = m9m.api_keys.create("ci", "bob")
    assert app.test_client().get("/x", headers={"X-API-Key": key}).status_code == 200
    (known,) = (
        one._known  # type: ignore[attr-defined]
        for one in app.extensions["m9m"].identities.authenticators
        if one.scheme == "api_key"
    )

    assert known._known
    assert in_child(lambda: not known._known and not known._touched_by)
