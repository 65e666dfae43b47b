"""TLS: the certificate and its key, checked before the server listens and renewed on reload."""

from __future__ import annotations

import os
import re
import ssl
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from ...errors import Problem, SettingsError
from ...settings.server import TLSSettings

CIPHERS = ":".join(
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
    )
)
"""The TLS 1.2 ciphers of Mozilla's intermediate configuration; TLS 1.3 has its own ciphers."""

_CERTIFICATE, _KEY = "server.tls.cert_file", "server.tls.key_file"
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_MAX_SIZE = 1_048_576  # octets of a PEM file
_ONE_LINE = re.compile(rb"-----BEGIN [A-Z ]{1,40}-----(?![ \t]*\r?\n)")


class Certificate:
    """A certificate chain and its private key, loaded into a TLS context.

    All connections share one context. To make it costs far more than to use it; forked workers
    inherit it; and a file that breaks later does not affect clients.

    Args:
        settings: the files' paths, and the TLS version.
        clock: seconds since the epoch.

    Attributes:
        context: the TLS context of all connections.
        not_after: when the certificate expires.

    Raises:
        SettingsError: the files cannot be used. It lists every problem, and never quotes a key.
    """

    context: ssl.SSLContext
    not_after: datetime

    def __init__(self, settings: TLSSettings, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock = clock
        self.renew()

    def renew(self) -> None:
        """Read both files again; on an error the previous certificate stays in use.

        Raises:
            SettingsError: the files cannot be used.
        """
        problems: list[Problem] = []
        certificate = _certificate(self._settings.cert_file, problems)
        public_key = _public_key(self._settings.key_file, problems)
        if certificate is not None:
            problems += _validity(self._settings.cert_file, certificate, self._clock())
            if public_key is not None and _spki(certificate.public_key()) != _spki(public_key):
                problems.append(
                    Problem(
                        _KEY,
                        f"{self._settings.key_file!a} is not the key of the certificate in "
                        f"{self._settings.cert_file!a}",
                        "must be the key of the first certificate in server.tls.cert_file",
                    )
                )
        if problems:
            raise SettingsError(problems)
        self.context = _context(self._settings)
        self.not_after = cast(x509.Certificate, certificate).not_valid_after_utc


def _read(path: str, file: str | None, problems: list[Problem], *, private: bool) -> bytes | None:
    what = "a private key" if private else "a certificate chain"
    if file is None:
        problems.append(Problem(path, "not set, but server.tls.enabled is true", "name a PEM file"))
        return None
    try:
        # Without O_NONBLOCK, opening a named pipe would block.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        found = f"{file!a} cannot be read: {error.strerror}"
        problems.append(Problem(path, found, f"must be a PEM file with {what}"))
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            problems.append(
                Problem(path, f"{file!a} is not a regular file", f"must be a PEM file with {what}")
            )
            return None
        if private and not _is_private(status):
            found = f"{file!a} can be read or written by others (mode {status.st_mode & 0o777:04o})"
            problems.append(Problem(path, found, f"run: chmod 600 {file}"))
        return os.read(descriptor, _MAX_SIZE)
    finally:
        os.close(descriptor)


def _is_private(status: os.stat_result) -> bool:
    """Tell whether no other user can access a key's file.

    The group may read a key that root owns, as with PostgreSQL and Debian's `ssl-cert`: the server
    then runs as a user that can read the key but not replace it.
    """
    others = 0o037 if status.st_uid == 0 else 0o077
    return not status.st_mode & others


def _certificate(file: str | None, problems: list[Problem]) -> x509.Certificate | None:
    data = _read(_CERTIFICATE, file, problems, private=False)
    if data is None:
        return None
    if _lacks_line_breaks(_CERTIFICATE, file, data, problems):
        return None
    with suppress(ValueError, UnsupportedAlgorithm):
        return x509.load_pem_x509_certificates(data)[0]
    accepted = "must be a PEM file: first the server's certificate, then the chain to its root"
    problems.append(Problem(_CERTIFICATE, f"{file!a} has no certificate in PEM form", accepted))
    return None


def _public_key(file: str | None, problems: list[Problem]) -> object | None:
    """Return the public half of the private key in a file."""
    data = _read(_KEY, file, problems, private=True)
    if data is None or _lacks_line_breaks(_KEY, file, data, problems):
        return None
    try:
        return load_pem_private_key(data, None).public_key()
    except TypeError:
        accepted = "must be a key without a passphrase, in a file that only its owner can read"
        problems.append(Problem(_KEY, f"{file!a} is encrypted", accepted))
    except (ValueError, UnsupportedAlgorithm):
        accepted = "must be a PEM file with the certificate's private key"
        problems.append(Problem(_KEY, f"{file!a} has no private key in PEM form", accepted))
    return None


def _lacks_line_breaks(path: str, file: str | None, data: bytes, problems: list[Problem]) -> bool:
    """Tell whether a PEM text is on one line, as copied through an environment variable."""
    if not _ONE_LINE.search(data):
        return False
    found = f"{file!a} has no line break after its first line"
    accepted = 'must be a PEM file with its lines (to write one from NAME: printf "%b" "$NAME")'
    problems.append(Problem(path, found, accepted))
    return True


def _validity(file: str | None, certificate: x509.Certificate, now: float) -> list[Problem]:
    today = datetime.fromtimestamp(now, UTC)
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if today > last:
        found = f"{file!a} expired at {last:%Y-%m-%d %H:%M} UTC"
    elif today < first:
        found = f"{file!a} is not valid before {first:%Y-%m-%d %H:%M} UTC"
    else:
        return []
    return [Problem(_CERTIFICATE, found, "renew it, or correct this machine's clock")]


def _spki(key: object) -> bytes:
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return encoded


def _context(settings: TLSSettings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[settings.min_version]
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        # An empty password: OpenSSL never prompts for one. Encrypted keys were refused before.
        context.load_cert_chain(str(settings.cert_file), settings.key_file, password="")
    except (ssl.SSLError, OSError) as error:
        reason = getattr(error, "reason", None) or error.strerror
        found = f"{settings.cert_file!a} cannot be used: {reason}"
        accepted = "must be a certificate and a key that OpenSSL accepts"
        raise SettingsError([Problem(_CERTIFICATE, found, accepted)]) from None
    return context
