"""Checks of serving: TLS, modes that are not for production, and what is exposed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

from flask.helpers import get_debug_flag

from ..server.address import is_loopback
from ..server.tls import Certificate
from .findings import Finding, Kind, Severity
from .subject import Subject, finds

TLS_OFF = Kind(
    "tls-off",
    Severity.HIGH,
    "the app listens on a public address in plain text",
    "tokens, keys and passwords can be read on the way (ASVS 12.2.1; RFC 6750 §5.3)",
    "server: {tls: {enabled: true, cert_file: /etc/ssl/app.crt, key_file: "
    "/etc/ssl/private/app.key}}; behind a proxy that does TLS: server: "
    '{trusted_proxies: ["10.0.0.7"], https: refuse}, with its address',
)
HTTPS_OFF = Kind(
    "https-optional",
    Severity.LOW,
    "requests that reached the proxy over plain HTTP are answered",
    "a client that was given the wrong URL sends its credentials in the open (ASVS 4.1.2, 12.2.1)",
    "server: {https: refuse}, or redirect for pages",
)
BASIC_PLAIN = Kind(
    "basic-plain",
    Severity.HIGH,
    "HTTP Basic is accepted over plain HTTP",
    "every request carries the password, in the open (RFC 7617 §4; ASVS 12.2.1)",
    "server: {https: refuse}, with TLS here or at a trusted proxy",
)
UNREACHABLE = Kind(
    "https-unreachable",
    Severity.HIGH,
    "HTTPS is demanded, and no request can come by it",
    "there is no TLS here and no trusted proxy: every request is refused, or redirected for ever",
    "server: {tls: {enabled: true, cert_file: /etc/ssl/app.crt, key_file: "
    "/etc/ssl/private/app.key}}, or behind a proxy that does TLS: "
    'server: {trusted_proxies: ["10.0.0.7"]}, with its address',
)
EXPIRING = Kind(
    "certificate-expiring",
    Severity.MEDIUM,
    "the certificate expires within 14 days",
    "clients refuse the app from <date> on (ASVS 12.2.2)",
    "renew <file>, then: kill -HUP the master of gunicorn",
)
DEBUG = Kind(
    "debug-on",
    Severity.HIGH,
    "debug mode is on",
    "errors show source code and values, and the debugger runs what it is sent (ASVS 13.4.2)",
    "remove what sets it: app.debug = True, DEBUG in app.config, --debug or FLASK_DEBUG=1",
)
TESTING = Kind(
    "testing-on",
    Severity.HIGH,
    "testing mode is on",
    "exceptions leave the app, and each worker counts rate limits alone (ASVS 13.4.2, 15.2.3)",
    'remove TESTING from app.config (app.config["TESTING"] = False)',
)
DEVELOPMENT = Kind(
    "development-on",
    Severity.LOW,
    "development mode is on, on loopback",
    "it answers any origin and makes its own secret: it is not for production (ASVS 15.2.3)",
    "development: {enabled: false}, and unset M9M_DEV_MODE",
)
EXPOSED = Kind(
    "development-exposed",
    Severity.CRITICAL,
    "development mode is on, on an address that others reach",
    "pages of any origin may use the API there; serve refuses to start (ASVS 3.4.2, 15.2.3)",
    "development: {enabled: false}, or server: {host: 127.0.0.1}",
)
METRICS = Kind(
    "metrics-open",
    Severity.LOW,
    "everybody may read the metrics",
    "they name routes and show how the app is used and attacked (ASVS 13.4.5)",
    'metrics: {allowed_networks: ["10.0.0.0/8"]}, in place of <network>',
)

_SOON = timedelta(days=14)


@finds(TLS_OFF, HTTPS_OFF, BASIC_PLAIN, UNREACHABLE)
def plain_http(subject: Subject) -> Iterator[Finding]:
    """Look what goes over the wire in the open."""
    server = subject.settings.server
    if server.https != "off" and not (server.tls.enabled or server.trusted_proxies):
        yield UNREACHABLE.at(subject.at("server.https"))
    if server.tls.enabled or server.https != "off":
        return
    public = not is_loopback(server.host)
    if server.trusted_proxies:
        yield HTTPS_OFF.at(subject.at("server.https"))
    elif public:
        yield TLS_OFF.at(f"{subject.at('server.host')}: {server.host}")
    if subject.settings.security.basic_auth.enabled and (public or server.trusted_proxies):
        yield BASIC_PLAIN.at(subject.at("security.basic_auth.enabled"))


@finds(EXPIRING)
def certificate(subject: Subject) -> Iterator[Finding]:
    """Look until when the certificate is good; what is wrong with it stops the start."""
    tls = subject.settings.server.tls
    if not tls.enabled:
        return
    until = Certificate(tls, clock=lambda: subject.now).not_after
    if until - datetime.fromtimestamp(subject.now, UTC) < _SOON:
        where = f"{subject.at('server.tls.cert_file')}: {tls.cert_file}"
        yield EXPIRING.at(where, date=f"{until:%Y-%m-%d}", file=tls.cert_file)


@finds(DEBUG, TESTING, DEVELOPMENT, EXPOSED)
def modes(subject: Subject) -> Iterator[Finding]:
    """Look for modes that are not for production."""
    settings, app = subject.settings, subject.app
    if app.debug or get_debug_flag():
        yield DEBUG.at("app.debug")
    if app.testing:
        yield TESTING.at("app.testing")
    if settings.development.enabled:
        kind = DEVELOPMENT if is_loopback(settings.server.host) else EXPOSED
        yield kind.at(subject.at("development.enabled"))


@finds(METRICS)
def open_metrics(subject: Subject) -> Iterator[Finding]:
    """Look who may read the metrics without a scope."""
    metrics = subject.settings.metrics
    if metrics.enabled:
        for network in metrics.allowed_networks:
            if ip_network(network).prefixlen == 0:
                where = f"{subject.at('metrics.allowed_networks')}: {network}"
                yield METRICS.at(where, network=network)


CHECKS = (plain_http, certificate, modes, open_metrics)
