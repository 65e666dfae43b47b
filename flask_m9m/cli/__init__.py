"""`flask m9m …`: one module per group of commands."""

from __future__ import annotations

import click

from .config import config
from .cors import cors
from .init import init, secret
from .routes import routes
from .serve import serve
from .token import token


@click.group()
def m9m() -> None:
    """Secure an HTTP API, and see that it is secured."""


for command in (init, secret, config, token, cors, routes, serve):
    m9m.add_command(command)
