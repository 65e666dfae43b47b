"""Checks of serving: TLS and HTTPS, the certificate, debug and development mode, open metrics."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

from flask.helpers import get_debug_flag

from ...wsgi.server.bind_address import is_loopback
from ...wsgi.server.tls import Certificate
from .findings import Finding, Kind, Severity
from .subject import Subject, finds

TLS_OFF = Kind(
    "tls-off",
    Severity.HIGH,
    "the app listens on a public address without TLS",
    "the app listens on a public address without TLS: anyone on the network path can read tokens, "
    "keys and passwords (ASVS 12.2.1; RFC 6750 §5.3)",
    "server: {tls: {enabled: true, cert_file: /etc/ssl/app.crt, key_file: "
    "/etc/ssl/private/app.key}}; behind a proxy that terminates TLS, with the proxy's address: "
    'server: {trusted_proxies: ["10.0.0.7"], https: refuse}',
)
HTTPS_OFF = Kind(
    "https-optional",
    Severity.LOW,
    "requests that reached the proxy over plain HTTP are answered",
    "requests over plain HTTP are answered: a client with an http:// URL sends its credentials "
    "unencrypted, and does not notice (ASVS 4.1.2, 12.2.1)",
    "server: {https: refuse}; for pages in browsers: server: {https: redirect}",
)
BASIC_PLAIN = Kind(
    "basic-plain",
    Severity.HIGH,
    "HTTP Basic is accepted over plain HTTP",
    "HTTP Basic is accepted over plain HTTP: every request carries the password, and anyone on the "
    "network path can read it (RFC 7617 §4; ASVS 12.2.1)",
    "server: {https: refuse}, with TLS in the app (server.tls) or in a trusted proxy",
)
UNREACHABLE = Kind(
    "https-unreachable",
    Severity.HIGH,
    "HTTPS is required, but no request can arrive over HTTPS",
    "HTTPS is required, but there is neither TLS nor a trusted proxy: every request is refused, or "
    "redirected without end",
    "server: {tls: {enabled: true, cert_file: /etc/ssl/app.crt, key_file: "
    "/etc/ssl/private/app.key}}; behind a proxy that terminates TLS, with the proxy's address: "
    'server: {trusted_proxies: ["10.0.0.7"]}',
)
EXPIRING = Kind(
    "certificate-expiring",
    Severity.MEDIUM,
    "the certificate expires within 14 days",
    "the certificate expires on <date>: from then on clients refuse to connect (ASVS 12.2.2)",
    'renew <file>, then let gunicorn read it: kill -HUP "$(pgrep -of gunicorn)", or with the '
    "process id of its master",
)
DEBUG = Kind(
    "debug-on",
    Severity.HIGH,
    "debug mode is on",
    "debug mode is on: error pages show source code and values, and the debugger runs code that it "
    "is sent (ASVS 13.4.2)",
    "remove the line or option that sets it: app.debug = True, DEBUG in app.config, --debug or "
    "FLASK_DEBUG=1",
)
TESTING = Kind(
    "testing-on",
    Severity.HIGH,
    "testing mode is on",
    "testing mode is on: exceptions leave the app instead of becoming error responses, and each "
    "worker counts rate limits on its own (ASVS 13.4.2, 15.2.3)",
    'remove TESTING from app.config, or: app.config["TESTING"] = False',
)
DEVELOPMENT = Kind(
    "development-on",
    Severity.LOW,
    "development mode is on, on a loopback address",
    "development mode is on: it allows any origin and makes its own secret, and is not for "
    "production (ASVS 15.2.3)",
    "development: {enabled: false}, and unset M9M_DEV_MODE",
)
EXPOSED = Kind(
    "development-exposed",
    Severity.CRITICAL,
    "development mode is on, on an address that other machines can reach",
    "development mode is on, on an address that other machines can reach: pages of any origin may "
    "use the API, and flask m9m serve refuses to start (ASVS 3.4.2, 15.2.3)",
    "development: {enabled: false}, or server: {host: 127.0.0.1}",
)
METRICS = Kind(
    "metrics-open",
    Severity.LOW,
    "anyone may read the metrics",
    "anyone may read the metrics: they name routes, and show how the app is used and attacked "
    "(ASVS 13.4.5)",
    'list only your networks instead of <network>: metrics: {allowed_networks: ["10.0.0.0/8"]}',
)

_SOON = timedelta(days=14)


@finds(TLS_OFF, HTTPS_OFF, BASIC_PLAIN, UNREACHABLE)
def plain_http(subject: Subject) -> Iterator[Finding]:
    """Find HTTP without TLS, and an HTTPS setting that no request can meet."""
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
    """Find a certificate that expires soon; any other error in it stops the app from starting."""
    tls = subject.settings.server.tls
    if not tls.enabled:
        return
    until = Certificate(tls, clock=lambda: subject.now).not_after
    if until - datetime.fromtimestamp(subject.now, UTC) < _SOON:
        where = f"{subject.at('server.tls.cert_file')}: {tls.cert_file}"
        yield EXPIRING.at(where, date=f"{until:%Y-%m-%d}", file=tls.cert_file)


@finds(DEBUG, TESTING, DEVELOPMENT, EXPOSED)
def modes(subject: Subject) -> Iterator[Finding]:
    """Find debug, testing and development mode."""
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
    """Find metrics that any address may read without a credential."""
    metrics = subject.settings.metrics
    if metrics.enabled:
        for network in metrics.allowed_networks:
            if ip_network(network).prefixlen == 0:
                where = f"{subject.at('metrics.allowed_networks')}: {network}"
                yield METRICS.at(where, network=network)


CHECKS = (plain_http, certificate, modes, open_metrics)
