"""The section `server`: where and how the app is served, and what its clients may do."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from .section import Section
from .types import Boolean, Count, Host, Network, Period, Port, Proxy, Text


def _https_word(value: object) -> object:
    return "off" if value is False else value  # YAML reads a bare off as false


def _version_word(value: object) -> object:
    return str(value) if isinstance(value, float) else value  # and a bare 1.2 as a number


class TLSSettings(Section):
    """`server.tls`."""

    enabled: Boolean = Field(default=False, description="Serve TLS.")
    cert_file: Text | None = Field(default=None, description="The certificate chain, PEM.")
    key_file: Text | None = Field(default=None, description="The certificate's private key, PEM.")
    min_version: Annotated[
        Literal["1.2", "1.3"],
        BeforeValidator(_version_word),
        WithJsonSchema({"enum": ["1.2", "1.3", 1.2, 1.3]}),
    ] = Field(default="1.2", description="The oldest version of TLS that is spoken.")


class ServerLimits(Section):
    """`server.limits`: how many clients there may be, and what a request may bring."""

    max_connections: Count = Field(
        default=1_000, description="Clients of each worker; fewer where it may open fewer files."
    )
    max_header_size: Count = Field(default=16_384, description="Octets of a request's head.")
    max_headers: Count = Field(default=100, description="Header fields of a request.")
    max_body_size: Count = Field(
        default=16_777_216, description="Octets of a body, where the app set no MAX_CONTENT_LENGTH."
    )
    max_form_memory_size: Count = Field(
        default=500_000, description="Octets of a form's field that is no file."
    )
    max_form_parts: Count = Field(default=1_000, description="Parts of a multipart form.")


class ServerTimeouts(Section):
    """`server.timeouts`: how long a client may take."""

    header: Period = Field(default=10.0, description="Until the head of a request is complete.")
    request: Period = Field(default=60.0, description="Until the whole request is.")
    write: Period = Field(default=30.0, description="Until it has taken a piece of the answer.")
    keep_alive: Period = Field(default=5.0, description="Until its next request begins.")
    graceful: Period = Field(default=30.0, description="For what is under way when a worker stops.")


class ServerSettings(Section):
    """`server`."""

    host: Host = Field(default="127.0.0.1", description="The address to listen on.")
    port: Port = Field(default=8080, description="The port to listen on.")
    workers: Count = Field(default=2, description="Worker processes.")
    threads: Count = Field(default=4, description="Threads of each worker.")
    https: Annotated[
        Literal["off", "redirect", "refuse"],
        BeforeValidator(_https_word),
        WithJsonSchema({"enum": ["off", "redirect", "refuse", False]}),
    ] = Field(default="off", description="What happens to plain HTTP; redirect: GET and HEAD only.")
    trusted_proxies: tuple[Proxy, ...] = Field(
        default=(), description='Addresses, networks or "unix" whose forwarding headers count.'
    )
    proxy_headers: Literal["x-forwarded", "forwarded"] = Field(
        default="x-forwarded",
        description="Which forwarding headers are read; the others are ignored.",
    )
    trust_forwarded_host: Boolean = Field(
        default=False, description="Believe a proxy about the host."
    )
    allowed_networks: tuple[Network, ...] = Field(
        default=(), description="Networks that may send requests; empty: everyone."
    )
    tls: TLSSettings = TLSSettings()
    limits: ServerLimits = ServerLimits()
    timeouts: ServerTimeouts = ServerTimeouts()
