"""What is looked at before a certificate is served."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from flask_m9m.errors import SettingsError
from flask_m9m.settings import TLSSettings
from flask_m9m.wsgi.server.tls import Certificate

from .certificates import DAY, Pair, make_certificate, make_key


def certificate(pair: Pair, version: str = "1.2") -> Certificate:
    return Certificate(
        TLSSettings.model_validate(
            {
                "enabled": True,
                "cert_file": str(pair.certificate),
                "key_file": str(pair.key),
                "min_version": version,
            }
        )
    )


def without_certificate(directory: Path) -> Pair:
    pair = make_certificate(directory)
    pair.certificate.unlink()
    return pair


def without_key(directory: Path) -> Pair:
    pair = make_certificate(directory)
    pair.key.unlink()
    return pair


def with_noise_as_certificate(directory: Path) -> Pair:
    pair = make_certificate(directory)
    pair.certificate.write_bytes(os.urandom(500))
    return pair


def with_key_as_certificate(directory: Path) -> Pair:
    pair = make_certificate(directory)
    return Pair(pair.key, pair.key)


def with_noise_as_key(directory: Path) -> Pair:
    pair = make_certificate(directory)
    pair.key.write_text("-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n")
    return pair


def with_another_key(directory: Path) -> Pair:
    pair = make_certificate(directory)
    make_key(pair.key)
    return pair


def with_encrypted_key(directory: Path) -> Pair:
    pair = make_certificate(directory)
    make_key(pair.key, b"a passphrase")
    return pair


def expired(directory: Path) -> Pair:
    return make_certificate(directory, first=-9 * DAY, last=-timedelta(minutes=1))


def not_yet_valid(directory: Path) -> Pair:
    return make_certificate(directory, first=timedelta(hours=1))


def with_key_for_all(directory: Path) -> Pair:
    pair = make_certificate(directory)
    pair.key.chmod(0o644)
    return pair


def with_key_that_the_group_writes(directory: Path) -> Pair:
    pair = make_certificate(directory)
    pair.key.chmod(0o660)
    return pair


def with_directory_as_key(directory: Path) -> Pair:
    return Pair(make_certificate(directory).certificate, directory)


def with_pipe_as_certificate(directory: Path) -> Pair:
    os.mkfifo(directory / "pipe")
    return Pair(directory / "pipe", make_certificate(directory).key)


@pytest.mark.parametrize(
    ("make", "path", "found"),
    [
        (without_certificate, "server.tls.cert_file", "No such file"),
        (without_key, "server.tls.key_file", "No such file"),
        (with_noise_as_certificate, "server.tls.cert_file", "no certificate in PEM form"),
        (with_key_as_certificate, "server.tls.cert_file", "no certificate in PEM form"),
        (with_noise_as_key, "server.tls.key_file", "no private key in PEM form"),
        (with_another_key, "server.tls.key_file", "not the key of the certificate"),
        (with_encrypted_key, "server.tls.key_file", "encrypted"),
        (expired, "server.tls.cert_file", "expired at"),
        (not_yet_valid, "server.tls.cert_file", "not valid before"),
        (with_key_for_all, "server.tls.key_file", "by others (mode 0644)"),
        (with_key_that_the_group_writes, "server.tls.key_file", "by others (mode 0660)"),
        (with_directory_as_key, "server.tls.key_file", "not a regular file"),
        (with_pipe_as_certificate, "server.tls.cert_file", "not a regular file"),
    ],
)
def test_what_cannot_be_served_is_named_and_no_key_is_shown(
    tmp_path: Path, make: Callable[[Path], Pair], path: str, found: str
) -> None:
    pair = make(tmp_path)
    with pytest.raises(SettingsError) as raised:
        certificate(pair)
    (problem,) = [one for one in raised.value.problems if found in one.found]
    assert problem.path == path
    assert (pair.certificate if path.endswith("cert_file") else pair.key).name in problem.found
    if pair.key.is_file():
        secret = pair.key.read_text(errors="replace").splitlines()[1:2]
        assert not any(line in str(raised.value) for line in secret)


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    pair = expired(tmp_path)
    make_key(pair.key)
    pair.key.chmod(0o644)
    with pytest.raises(SettingsError) as raised:
        certificate(pair)
    assert len(raised.value.problems) == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, whose key it is")
@pytest.mark.parametrize(("mode", "served"), [(0o640, True), (0o644, False), (0o660, False)])
def test_the_group_may_read_a_key_that_root_owns(tmp_path: Path, mode: int, served: bool) -> None:
    pair = make_certificate(tmp_path)
    pair.key.chmod(mode)
    if served:
        certificate(pair)
    else:
        with pytest.raises(SettingsError):
            certificate(pair)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_group_may_not_read_a_key_that_another_owns(tmp_path: Path) -> None:
    pair = make_certificate(tmp_path)
    os.chown(pair.key, 65_534, 65_534)
    pair.key.chmod(0o640)
    with pytest.raises(SettingsError):
        certificate(pair)


def test_the_oldest_version_is_that_of_the_settings(tmp_path: Path) -> None:
    pair = make_certificate(tmp_path)
    assert certificate(pair).context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert certificate(pair, "1.3").context.minimum_version is ssl.TLSVersion.TLSv1_3


def test_every_cipher_keeps_past_traffic_secret_and_is_authenticated(tmp_path: Path) -> None:
    offered = certificate(make_certificate(tmp_path)).context.get_ciphers()
    assert all(cipher["aead"] for cipher in offered)
    assert all(cipher["kea"] in ("kx-any", "kx-ecdhe") for cipher in offered)


def test_a_certificate_is_renewed_and_a_broken_one_leaves_the_old(tmp_path: Path) -> None:
    pair = make_certificate(tmp_path)
    served = certificate(pair)
    old, expires = served.context, served.not_after
    pair.certificate.write_text("half a certifi")
    with pytest.raises(SettingsError):
        served.renew()
    assert (served.context, served.not_after) == (old, expires)
    make_certificate(tmp_path, last=300 * DAY)
    served.renew()
    assert served.context is not old
    assert served.not_after > expires
