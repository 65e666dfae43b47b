"""Peers: whose bodies are received."""

from __future__ import annotations

import pytest

from flask_m9m.testing import make_settings
from flask_m9m.wsgi.server.peers import Peers


@pytest.mark.parametrize(
    ("forwarded", "admitted"),
    [
        (["192.0.2.7"], True),
        (["198.51.100.7"], False),
        (["unknown"], False),
        (["192.0.2.7", "unknown"], False),
        ([], True),
    ],
)
def test_an_unreadable_client_is_not_admitted_as_its_proxy(
    forwarded: list[str], admitted: bool
) -> None:
    networks = ["10.0.0.0/8", "192.0.2.0/24"]
    server = {"trusted_proxies": ["10.0.0.1"], "allowed_networks": networks}
    peers = Peers(make_settings({"server": server}).server)
    fields = [("X-FORWARDED-FOR", value) for value in forwarded]
    assert peers.admits(("10.0.0.1", 4711), fields) is admitted
