"""The `flask m9m` command line: one module for each group of commands."""

from __future__ import annotations

import platform

import click

from .. import __version__
from .apikey import apikey
from .audit import audit
from .columns import columns
from .config import config
from .cors import cors
from .credential import credential
from .db import db
from .doctor.command import doctor
from .examples import add_examples, keep_whole
from .init import init, secret
from .limits import limits
from .routes import routes
from .serve import serve
from .token import token
from .user import user


@click.group()
@click.version_option(
    __version__,
    prog_name="flask-m9m",
    message=f"%(prog)s %(version)s (Python {platform.python_version()})",
)
def m9m() -> None:
    """Set up, check and run the security of this app."""


for command in (
    init,
    secret,
    config,
    doctor,
    token,
    user,
    apikey,
    credential,
    columns,
    audit,
    db,
    cors,
    routes,
    limits,
    serve,
):
    m9m.add_command(command)
add_examples(m9m)
keep_whole(m9m)
