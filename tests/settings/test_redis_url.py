from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_m9m.ratelimit.redis_servers import open_servers
from flask_m9m.settings.redis_url import check_url, read_url


@pytest.mark.parametrize(
    ("url", "kind", "tls", "addresses", "db"),
    [
        ("redis://h", "", False, [("h", 6379)], 0),
        ("redis://h:1/2", "", False, [("h", 1)], 2),
        ("redis://h?db=3", "", False, [("h", 6379)], 3),
        ("REDISS://h", "", True, [("h", 6379)], 0),
        ("valkey://h/1", "", False, [("h", 6379)], 1),
        ("valkeys://[::1]:7", "", True, [("::1", 7)], 0),
        ("redis+sentinel://a,b:2/s", "sentinel", False, [("a", 26379), ("b", 2)], 0),
        ("rediss+sentinel://a/s/4", "sentinel", True, [("a", 26379)], 4),
        (
            "redis+cluster://a,[::1],c:3",
            "cluster",
            False,
            [("a", 6379), ("::1", 6379), ("c", 3)],
            0,
        ),
        ("valkeys+cluster://a", "cluster", True, [("a", 6379)], 0),
    ],
)
def test_each_form_says_where_the_servers_are(
    url: str, kind: str, tls: bool, addresses: list[tuple[str, int]], db: int
) -> None:
    where = read_url(url)
    assert (where.kind, where.tls, list(where.addresses), where.db) == (kind, tls, addresses, db)


def test_a_socket_file_is_a_path() -> None:
    where = read_url("unix://user:secret@/run/red%20is.sock?db=2")
    assert (where.path, where.db, where.addresses) == ("/run/red is.sock", 2, ())
    assert where.login == {"username": "user", "password": "secret"}


def test_log_ins_are_decoded_and_shown_to_nobody() -> None:
    where = read_url("redis+sentinel://u%40:p%2F%3a@a/s?sentinel_username=w&sentinel_password=q%26")
    assert where.login == {"username": "u@", "password": "p/:"}
    assert where.sentinel_login == {"username": "w", "password": "q&"}
    assert where.service == "s"
    assert "p/:" not in repr(where)
    assert "q&" not in repr(where)
    assert read_url("redis://:p@h").login == {"password": "p"}


def test_certificates_are_verified_unless_that_is_switched_off() -> None:
    verified = {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
    assert read_url("rediss://h").options == verified
    assert read_url("rediss://h?ssl_ca_certs=/c").options == verified | {"ssl_ca_certs": "/c"}
    assert read_url("rediss://h?ssl_cert_reqs=none").options == {
        "ssl_cert_reqs": "none",
        "ssl_check_hostname": False,
    }
    assert read_url("rediss://h?ssl_check_hostname=false").options["ssl_check_hostname"] is False
    assert read_url("rediss://h?ssl_min_version=TLSv1.3").options["ssl_min_version"] == 772
    assert read_url("redis://h").options == {}


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("", "must begin with"),
        ("redis", "must begin with"),
        ("http://h", "must begin with"),
        ("unix+cluster:///p", "must begin with"),
        ("redis://", "host:port"),
        ("redis://h:", "host:port"),
        ("redis://h:0", "host:port"),
        ("redis://h:65536", "host:port"),
        ("redis://h:٣", "host:port"),
        ("redis://a,b", "several hosts"),
        ("redis+cluster://a,,b", "host:port"),
        ("redis+cluster://a/1", "one database"),
        ("redis+sentinel://a", "service"),
        ("redis+sentinel://a/s/x", "digits"),
        ("redis://h/x", "digits"),
        ("redis://h/-1", "digits"),
        ("redis://h?db=x", "digits"),
        ("redis://h#x", "percent-encode"),
        ("redis://h\n", "percent-encode"),
        ("unix://run/x", "unix:///"),
        ("unix://", "unix:///"),
        ("redis://h?socket_timeout=5", "parameters"),
        ("redis://h?db", "parameters"),
        ("redis://h?ssl_cert_reqs=none", "rediss://"),
        ("redis+cluster://h?sentinel_password=x", "redis\\+sentinel://"),
        ("rediss://h?ssl_cert_reqs=maybe", "ssl_cert_reqs"),
        ("rediss://h?ssl_check_hostname=maybe", "ssl_check_hostname"),
        ("rediss://h?ssl_min_version=TLSv1", "ssl_min_version"),
    ],
)
def test_other_urls_are_refused_with_what_is_accepted(url: str, remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        check_url(url)


@given(
    st.sampled_from(["redis", "rediss+cluster", "redis+sentinel", "unix", "http", "x"]),
    st.text(alphabet="/?#@:,&=%[]1 ", max_size=6),
    st.text(alphabet="/?#@:,&=%[]1 ", max_size=6),
    st.text(max_size=5),
)
def test_no_refusal_says_any_of_the_url(scheme: str, before: str, after: str, rest: str) -> None:
    refusal = ""
    try:
        check_url(f"{scheme}://user:{before}Geheim{after}@host{rest}")
    except ValueError as error:
        refusal = f"{error} {error.__cause__} {error.__context__}"
    assert "Geheim" not in refusal


def test_a_url_is_checked_without_redis_py() -> None:
    program = (
        "import sys; from flask_m9m.settings.redis_url import check_url\n"
        "import flask_m9m.ratelimit.redis_store\n"
        "check_url('rediss+sentinel://a/s'); assert 'redis' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_where_redis_py_is_missing_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'flask-m9m\[redis\]'"):
        open_servers("redis://h")
