"""A process of its own that uses a shared store: `python -m tests.ratelimit.actor WHAT …`."""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path

from flask_m9m.processes.shared_directory import SharedDirectory
from flask_m9m.ratelimit import RateLimit, StoreFailure
from flask_m9m.ratelimit.limit_files import LimitFiles
from flask_m9m.ratelimit.shared import SharedStore
from flask_m9m.ratelimit.shared_file import open_file

APP = ("app", "/instance")
HOURLY = RateLimit(100, 3_600, 100, "hourly")


def files_in(path: str | Path) -> LimitFiles:
    return LimitFiles(SharedDirectory(str(path), APP))


def store_in(path: str | Path) -> SharedStore:
    return SharedStore(SharedDirectory(str(path), APP))


def count(path: str, threads: str, hits: str) -> None:
    """Print how many hits of several threads on one client were admitted."""
    store, admitted = store_in(path), []

    def run() -> None:
        for _ in range(int(hits)):
            if store.hit(HOURLY, "client").admitted:
                admitted.append(1)

    running = [threading.Thread(target=run) for _ in range(int(threads))]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    print(len(admitted))


def hold(path: str, stop: str) -> None:
    """Hold the lock on a client's bucket, until the input ends or, stopped, for ever."""
    file = open_file(files_in(path), HOURLY)
    file.lock(file.place("client"))
    print("held", flush=True)
    if stop == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    sys.stdin.read()


def work(path: str, seconds: str) -> None:
    """Use a processor for so long with a client's bucket locked, and release it."""
    file = open_file(files_in(path), HOURLY)
    place = file.place("client")
    file.lock(place)
    print("held", flush=True)
    until = time.monotonic() + float(seconds)
    while time.monotonic() < until:
        pass
    file.unlock(place)
    sys.stdin.read()


def cut(path: str) -> None:
    """Cut the file short while it is in use, and print what hits come to."""
    store = store_in(path)
    store.hit(HOURLY, "client")
    os.truncate(files_in(path).path_of(HOURLY), 100)
    for _ in range(2):
        try:
            print(store.hit(HOURLY, "client").remaining)
        except StoreFailure:
            print("failed")


def full(path: str) -> None:
    """Print what a hit comes to where a file cannot be as long as it has to be."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        print(store_in(path).hit(HOURLY, "client").remaining)
    except StoreFailure as failure:
        print(failure)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
