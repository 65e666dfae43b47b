"""Commands on a terminal of a given width."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

from .conftest import Folder

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def on_terminal(folder: Folder, width: int, *arguments: str, **environ: str) -> str:
    """Run `flask m9m …` on a terminal, and return what is seen, with its colours."""
    ours, its = pty.openpty()
    try:
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        process = subprocess.Popen(
            [sys.executable, "-m", "flask", "m9m", *arguments],
            cwd=folder.path,
            env=folder.environ(**{"TERM": "xterm-256color", **environ}),
            stdin=subprocess.DEVNULL,
            stdout=its,
            stderr=subprocess.DEVNULL,
        )
        os.close(its)
        seen = b""
        try:
            while part := os.read(ours, 65_536):
                seen += part
        except OSError:  # the command has ended
            pass
        process.wait(60)
        return seen.decode().replace("\r\n", "\n")
    finally:
        os.close(ours)


def without_colours(seen: str) -> str:
    return _COLOUR.sub("", seen)
