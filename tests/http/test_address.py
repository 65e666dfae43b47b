"""The client's address through trusted proxies (RFC 7239, X-Forwarded-*)."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_m9m.http.address import (
    AddressResolver,
    Client,
    Networks,
    ProxyHeader,
    _unescaped,
)

PROXY, CLIENT = "10.0.0.1", "203.0.113.7"


def resolve(environ: dict[str, str], *trusted: str, **options: Any) -> Client:
    resolver = AddressResolver(trusted or ["10.0.0.0/8"], **options)
    return resolver.resolve({"REMOTE_ADDR": PROXY, "wsgi.url_scheme": "http", **environ})


def x_forwarded(value: str, **more: str) -> Client:
    return resolve({"HTTP_X_FORWARDED_FOR": value, **more})


def forwarded(value: str, **options: Any) -> Client:
    return resolve({"HTTP_FORWARDED": value}, header=ProxyHeader.FORWARDED, **options)


def test_without_trusted_proxies_nothing_forwarded_counts() -> None:
    client = AddressResolver().resolve(
        {
            "REMOTE_ADDR": PROXY,
            "wsgi.url_scheme": "http",
            "HTTP_X_FORWARDED_FOR": CLIENT,
            "HTTP_X_FORWARDED_PROTO": "https",
            "HTTP_FORWARDED": f"for={CLIENT};proto=https",
        }
    )
    assert client == Client(PROXY, PROXY, False)


def test_a_peer_that_is_not_trusted_invents_in_vain() -> None:
    client = resolve({"REMOTE_ADDR": "192.0.2.1", "HTTP_X_FORWARDED_FOR": CLIENT})
    assert client.address == "192.0.2.1"


@pytest.mark.parametrize(
    ("value", "address"),
    [
        (CLIENT, CLIENT),
        (f"6.6.6.6, {CLIENT}", CLIENT),
        (f"6.6.6.6,{CLIENT},10.0.0.9 , 10.0.0.8", CLIENT),
        (f"{CLIENT}:4711", CLIENT),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        (f"::ffff:{CLIENT}", CLIENT),
        ("10.0.0.9, 10.0.0.8", "10.0.0.9"),  # every hop is trusted: the first one
        ("", PROXY),
        (",", PROXY),
        ("unknown", PROXY),
        (f"{CLIENT}, unknown", PROXY),
        (f"{CLIENT}, garbage, 10.0.0.9", "10.0.0.9"),  # at garbage the last good one
        (f"{CLIENT}, 10.0.0.9,", PROXY),
        ("fe80::1%eth0", PROXY),
        ("0x7f.1", PROXY),
        ("010.0.0.1", PROXY),
        ("1.2.3.4.5", PROXY),
        ('"1.2.3.4"', PROXY),
        (f"{CLIENT}\x00", PROXY),
        ("1.2.3.4:99999999999999999999999999999999" * 9, PROXY),
    ],
)
def test_x_forwarded_for_is_read_from_the_right_as_far_as_hops_are_trusted(
    value: str, address: str
) -> None:
    assert x_forwarded(value).address == address


@pytest.mark.parametrize(
    ("value", "secure"),
    [
        ("https", True),
        ("HTTPS", True),
        ("http", False),
        ("https, http", False),
        ("http, https", True),
        ("https,", False),
        ("wss", True),  # some proxies say so of a WebSocket handshake
        ("ws", False),
        ("WSS", True),
        ("", False),
    ],
)
def test_the_scheme_is_what_the_nearest_trusted_hop_says(value: str, secure: bool) -> None:
    client = x_forwarded(f"6.6.6.6, {CLIENT}", HTTP_X_FORWARDED_PROTO=value)
    assert client == Client(CLIENT, CLIENT, secure)
    assert resolve({"HTTP_X_FORWARDED_PROTO": value}).secure is secure


def test_a_proxy_that_says_http_of_a_tls_connection_is_believed() -> None:
    assert not resolve({"wsgi.url_scheme": "https", "HTTP_X_FORWARDED_PROTO": "http"}).secure
    assert resolve({"wsgi.url_scheme": "https"}).secure


@pytest.mark.parametrize(
    ("value", "host"),
    [
        ("api.example.com", "api.example.com"),
        ("api.example.com:8443", "api.example.com:8443"),
        ("[2001:db8::1]:8443", "[2001:db8::1]:8443"),
        ("evil.net, api.example.com", "api.example.com"),
        ("api.example.com/path", None),
        ("user@api.example.com", None),
        ("api.example.com\r\nX: y", None),
        ("a" * 300, None),
        ("[::1:]", None),
        ("[192.0.2.1]", None),
        ("", None),
    ],
)
def test_a_host_is_believed_only_where_the_settings_say_so(value: str, host: str | None) -> None:
    environ = {"HTTP_X_FORWARDED_HOST": value}
    assert resolve(environ).host is None
    assert resolve(environ, trust_forwarded_host=True).host == host


@pytest.mark.parametrize(
    ("value", "address"),
    [
        (f"for={CLIENT}", CLIENT),
        (f"For={CLIENT};Proto=https;By=10.0.0.1", CLIENT),
        (f"for=6.6.6.6, for={CLIENT}", CLIENT),
        (f'for="{CLIENT}:4711"', CLIENT),
        ('for="[2001:db8::1]:99"', "2001:db8::1"),
        ('for="[2001:db8::1]:_port"', "2001:db8::1"),
        (f"for={CLIENT}, for=10.0.0.9;proto=http", CLIENT),
        (f"proto=https;for={CLIENT};", CLIENT),
        (f'for="{CLIENT[:-1]}\\{CLIENT[-1]}"', CLIENT),
        ("for=[2001:db8::1]", PROXY),  # has to be quoted
        ("for=unknown", PROXY),
        ("for=_hidden", PROXY),
        ("proto=https", PROXY),
        (f"for={CLIENT};for=6.6.6.6", PROXY),
        (f"for={CLIENT} for=6.6.6.6", PROXY),
        (f'for="{CLIENT}', PROXY),
        (f'for={CLIENT};x="a,b"', PROXY),
        (f'for="6.6.6.6, for={CLIENT}', CLIENT),  # an open quote before it hides nothing
        (f'for=6.6.6.6;x=", for="{CLIENT}"', CLIENT),
        (f'for=6.6.6.6;x="\\, for="{CLIENT}"', CLIENT),
        ("", PROXY),
        ("for", PROXY),
        ("=", PROXY),
        ("for=", PROXY),
    ],
)
def test_forwarded_is_read_from_the_right_as_far_as_hops_are_trusted(
    value: str, address: str
) -> None:
    assert forwarded(value).address == address


@given(st.text(alphabet='a\\\\"é', max_size=20))
def test_quoted_pairs_are_read_from_the_left(text: str) -> None:
    quoted = "".join(f"\\{char}" if char in '\\"' else char for char in text)
    assert _unescaped(quoted) == text
    assert _unescaped("".join(f"\\{char}" for char in text)) == text


def test_forwarded_gives_scheme_and_host_of_the_nearest_hop() -> None:
    client = forwarded(
        f'for=6.6.6.6;proto=http;host=evil.net, for={CLIENT};proto=https;host="api.example.com:1"',
        trust_forwarded_host=True,
    )
    assert client == Client(CLIENT, CLIENT, True, "api.example.com:1")


def test_only_the_chosen_fields_are_read() -> None:
    both = {"HTTP_X_FORWARDED_FOR": "6.6.6.6", "HTTP_FORWARDED": "for=7.7.7.7"}
    assert resolve(both).address == "6.6.6.6"
    assert resolve(both, header=ProxyHeader.FORWARDED).address == "7.7.7.7"


@pytest.mark.parametrize("peer", ["", "unix:", "unix:/run/proxy.sock"])
def test_a_unix_socket_is_trusted_where_it_is_listed(peer: str) -> None:
    environ = {"REMOTE_ADDR": peer, "HTTP_X_FORWARDED_FOR": CLIENT}
    assert resolve(environ, "unix").address == CLIENT
    assert resolve(environ, "10.0.0.0/8") == Client(None, "unix", False)


@pytest.mark.parametrize("peer", ["garbage", "localhost", "1.2.3", "\x00"])
def test_a_peer_that_is_no_address_is_nobody_and_trusted_by_nothing(peer: str) -> None:
    environ = {"REMOTE_ADDR": peer, "HTTP_X_FORWARDED_FOR": CLIENT}
    assert resolve(environ, "unix", "0.0.0.0/0") == Client(None, "unix", False)


def test_ipv6_clients_are_counted_by_network_and_mapped_ones_as_ipv4() -> None:
    resolver = AddressResolver(ipv6_prefix=56)

    def key(peer: str) -> str:
        return resolver.resolve({"REMOTE_ADDR": peer, "wsgi.url_scheme": "http"}).key

    assert key("2001:db8:0:1200::1") == key("2001:db8:0:12ff:ffff::") == "2001:db8:0:1200::/56"
    assert key("2001:db8:0:1300::1") != key("2001:db8:0:1200::1")
    assert key("::ffff:1.2.3.4") == key("1.2.3.4") == "1.2.3.4"
    assert key("::ffff:5.6.7.8") == "5.6.7.8"
    assert key("fe80::1%eth0") == key("fe80::1%eth1") == "fe80::/56"


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("10.1.2.3", True),
        ("11.0.0.1", False),
        ("2001:db8::9", True),
        ("2001:db9::9", False),
        ("garbage", False),
        ("", False),
        (None, False),
    ],
)
def test_networks_hold_what_they_name_and_nobody_without_an_address(
    address: str | None, inside: bool
) -> None:
    assert Networks(["10.0.0.0/8", "2001:db8::/32"]).contains(address) is inside


@pytest.mark.parametrize(
    ("field", "value", "unreadable"),
    [
        ("X_FORWARDED_FOR", CLIENT, False),
        ("X_FORWARDED_FOR", "10.0.0.9, 10.0.0.8", False),  # a trusted proxy asks
        ("X_FORWARDED_FOR", f"garbage, {CLIENT}, 10.0.0.8", False),
        ("X_FORWARDED_FOR", "garbage", True),
        ("X_FORWARDED_FOR", f"{CLIENT}, unknown, 10.0.0.9", True),
        ("X_FORWARDED_FOR", "", True),
        ("X_FORWARDED_FOR", ",", True),
        ("X_FORWARDED_FOR", ", ".join(["10.0.0.9"] * 34), True),
        ("X_FORWARDED_PROTO", "https", False),  # the proxy itself asks, for example for its health
        ("FORWARDED", f"for={CLIENT}", False),
        ("FORWARDED", "for=_hidden", True),
        ("FORWARDED", "proto=https", True),
        ("FORWARDED", f"for={CLIENT};for=6.6.6.6", True),
        ("FORWARDED", "", True),
        ("FORWARDED", f"for=10.0.0.9;by={'a' * 5_000}", True),
        ("FORWARDED", f"{'a=b;' * 20}for={CLIENT}", True),
        ("FORWARDED", f"{'a' * 5_000}, for={CLIENT}", False),
    ],
)
def test_an_unreadable_hop_is_not_taken_for_its_proxy(
    field: str, value: str, unreadable: bool
) -> None:
    header = ProxyHeader.FORWARDED if field == "FORWARDED" else ProxyHeader.X_FORWARDED
    client = resolve({f"HTTP_{field}": value}, header=header)
    assert client.unreadable is unreadable
    inside = client.address is not None and client.address.startswith("10.")
    assert Networks(["10.0.0.0/8"]).admit(client) is (inside and not unreadable)


@given(st.text(max_size=200), st.text(max_size=40), st.sampled_from(list(ProxyHeader)))
def test_whatever_is_forwarded_there_is_a_client_and_no_error(
    value: str, peer: str, header: ProxyHeader
) -> None:
    environ = {
        "REMOTE_ADDR": peer,
        "wsgi.url_scheme": "http",
        "HTTP_X_FORWARDED_FOR": value,
        "HTTP_X_FORWARDED_PROTO": value,
        "HTTP_X_FORWARDED_HOST": value,
        "HTTP_FORWARDED": value,
    }
    resolver = AddressResolver(["0.0.0.0/0", "unix"], header=header, trust_forwarded_host=True)
    client = resolver.resolve(environ)
    assert client.key
    assert client.host is None or not set(client.host) & set("\r\n/@ ")


@pytest.mark.parametrize("header", list(ProxyHeader))
@pytest.mark.parametrize(
    "value",
    [
        ", ".join(["10.0.0.9"] * 20_000),
        "for=10.0.0.9, " * 20_000,
        "for=1;" * 50_000,
        'for="' + "\\a" * 100_000,
        "a" * 500_000,
        "[" * 200_000,
        "1." * 200_000,
    ],
)
def test_long_fields_cost_no_more_than_reading_them(header: ProxyHeader, value: str) -> None:
    started = time.process_time()
    client = resolve({"HTTP_X_FORWARDED_FOR": value, "HTTP_FORWARDED": value}, header=header)
    assert client.address in (PROXY, "10.0.0.9")
    assert time.process_time() - started < 2  # quadratic work would take minutes
