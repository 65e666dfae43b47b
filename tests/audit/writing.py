"""An app that a process of its own serves, or that writes events from many threads.

Run as a program with a number of threads and of rounds: each round of a thread is an event of the
app's own and a request that is refused.
"""

from __future__ import annotations

import os
import sys
import threading

from flask import Flask

from flask_m9m import M9M, require_auth

app = Flask(__name__)
m9m = M9M(app)


@app.get("/x")
@require_auth
def view() -> str:
    return "x"


@app.get("/count")
def count() -> str:
    m9m.audit.record("counted")
    return str(os.getpid())


def write(rounds: int, begin: threading.Barrier) -> None:
    client = app.test_client()
    begin.wait()
    with app.app_context():
        for number in range(rounds):
            m9m.audit.record("counted", subject=threading.current_thread().name, number=number)
            client.get("/x")


def main() -> None:
    threads, rounds = (int(one) for one in sys.argv[1:])
    begin = threading.Barrier(threads)
    writers = [threading.Thread(target=write, args=(rounds, begin)) for _ in range(threads)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()


if __name__ == "__main__":
    main()
