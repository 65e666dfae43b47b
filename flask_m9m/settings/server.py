"""The settings of `server`: address, workers, proxies, TLS, request limits and timeouts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from .section import Section
from .types import Boolean, Count, Host, Network, Period, Port, Proxy, Text


def _read_https(value: object) -> object:
    return "off" if value is False else value  # YAML parses an unquoted off as false


def _read_version(value: object) -> object:
    return str(value) if isinstance(value, float) else value  # YAML parses 1.2 as a number


class TLSSettings(Section):
    """`server.tls`: the certificate and the TLS version."""

    enabled: Boolean = Field(default=False, description="Serve HTTPS.")
    cert_file: Text | None = Field(
        default=None, description="The PEM file of the certificate chain."
    )
    key_file: Text | None = Field(
        default=None, description="The PEM file of the certificate's private key."
    )
    min_version: Annotated[
        Literal["1.2", "1.3"],
        BeforeValidator(_read_version),
        WithJsonSchema({"enum": ["1.2", "1.3", 1.2, 1.3]}),
    ] = Field(default="1.2", description="The oldest TLS version that is accepted.")


class ServerLimits(Section):
    """`server.limits`: the number of connections, and the size of requests."""

    max_connections: Count = Field(
        default=1_000,
        description="Connections of each worker; fewer if the limit on open files is lower.",
    )
    max_connections_per_address: Count = Field(
        default=256,
        description="Connections of one address to each worker, or of one IPv6 network of 64 "
        "bits; trusted proxies and Unix sockets are exempt.",
    )
    max_header_size: Count = Field(
        default=16_384, description="The size of a request's head, in octets."
    )
    max_headers: Count = Field(default=100, description="The number of header fields in a request.")
    max_body_size: Count = Field(
        default=16_777_216,
        description="The size of a body, in octets; the app's MAX_CONTENT_LENGTH overrides it.",
    )
    max_buffered_size: Count = Field(
        default=268_435_456,
        description="The size of all bodies that a worker holds, in octets; at least one of "
        "max_body_size.",
    )
    min_body_rate: Count = Field(
        default=500,
        description="The rate at which a body must arrive, in octets per second; see "
        "timeouts.body.",
    )
    max_form_memory_size: Count = Field(
        default=500_000, description="The size of a form field that is not a file, in octets."
    )
    max_form_parts: Count = Field(
        default=1_000, description="The number of parts in a multipart form."
    )


class ServerTimeouts(Section):
    """`server.timeouts`: how long the server waits for clients."""

    header: Period = Field(default=10.0, description="For a request's head.")
    body: Period = Field(
        default=20.0,
        description="How far a body may fall behind limits.min_body_rate.",
    )
    request: Period = Field(default=60.0, description="For a whole request, head and body.")
    write: Period = Field(
        default=30.0, description="For a client to receive one piece of a response."
    )
    keep_alive: Period = Field(default=5.0, description="For the next request on a connection.")
    graceful: Period = Field(
        default=30.0, description="For requests in progress when a worker stops."
    )


class ServerSettings(Section):
    """`server`: the built-in server, and the proxies before it."""

    host: Host = Field(default="127.0.0.1", description="The address to listen on.")
    port: Port = Field(default=8080, description="The port to listen on.")
    workers: Count = Field(default=2, description="The number of worker processes.")
    threads: Count = Field(default=4, description="The number of threads in each worker.")
    https: Annotated[
        Literal["off", "redirect", "refuse"],
        BeforeValidator(_read_https),
        WithJsonSchema({"enum": ["off", "redirect", "refuse", False]}),
    ] = Field(default="off", description="How to treat plain HTTP; redirect: GET and HEAD only.")
    trusted_proxies: tuple[Proxy, ...] = Field(
        default=(),
        description='Addresses, networks or "unix" whose forwarding headers are trusted.',
    )
    proxy_headers: Literal["x-forwarded", "forwarded"] = Field(
        default="x-forwarded",
        description="The forwarding headers to read; the others are ignored.",
    )
    trust_forwarded_host: Boolean = Field(
        default=False, description="Trust the host that a proxy forwards."
    )
    allowed_networks: tuple[Network, ...] = Field(
        default=(), description="Networks that may send requests; if empty, all may."
    )
    tls: TLSSettings = TLSSettings()
    limits: ServerLimits = ServerLimits()
    timeouts: ServerTimeouts = ServerTimeouts()
