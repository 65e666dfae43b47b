"""The settings' models (pydantic): the names, types, defaults and descriptions of every key."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import (
    Field,
    ValidationInfo,
    field_validator,
)

from ..errors import ErrorFormat
from .database import DatabaseSettings
from .presets import FROM_PRESET, HEADER_FIELDS, PRESETS
from .section import Section
from .server import ServerSettings
from .types import (
    AuditEvent,
    Boolean,
    Count,
    Duration,
    EnvironmentName,
    HeaderName,
    HeaderValue,
    KeyHeader,
    KeyPrefix,
    MaxAge,
    Method,
    Network,
    Origin,
    Period,
    PrefixLength,
    Realm,
    Secret,
    SecretUrl,
    Text,
    UrlPrefix,
    Username,
)
from .users import UsersSettings


class Algorithm(StrEnum):
    """JWT signature algorithms (RFC 7518 §3.2); the secret is at least as long as the hash."""

    HS256 = "HS256"
    HS384 = "HS384"
    HS512 = "HS512"

    @property
    def secret_bytes(self) -> int:
        """The minimum length of the secret, in bytes."""
        return int(self.value[2:]) // 8


class CookieSettings(Section):
    """`security.jwt.cookie`: session tokens in cookies."""

    enabled: Boolean = Field(default=False, description="Accept a session's tokens from cookies.")
    same_site: Literal["Lax", "Strict"] = Field(
        default="Lax",
        description="Strict: browsers send no cookies when a user comes from another site.",
    )


class JWTSettings(Section):
    """`security.jwt`: access and refresh tokens (JWT)."""

    enabled: Boolean | None = Field(
        default=None, description="Accept tokens; null: if a secret is set."
    )
    secret: Secret | None = Field(
        default=None, description="The secret that signs tokens; at least 32 bytes."
    )
    previous_secrets: tuple[Secret, ...] = Field(
        default=(), description="Older secrets, which only verify tokens."
    )
    algorithm: Algorithm = Field(
        default=Algorithm.HS256, description="The algorithm that signs tokens."
    )
    expiration: Period = Field(default=86_400.0, description="The lifetime of an access token.")
    refresh_expiration: Period = Field(
        default=604_800.0, description="The lifetime of a refresh token."
    )
    refresh_max_age: Period = Field(
        default=2_592_000.0,
        description="The lifetime of a session with all its refresh tokens.",
    )
    accept_untyped: Boolean = Field(
        default=True,
        description="Accept tokens whose typ is JWT or missing; false: only at+jwt.",
    )
    issuer: Text | None = Field(default=None, description="The iss claim to issue and require.")
    audience: Text | None = Field(default=None, description="The aud claim to issue and require.")
    leeway: Duration = Field(default=0.0, description="The allowed clock skew, at most 60s.")
    cookie: CookieSettings = CookieSettings()

    @field_validator("leeway")
    @classmethod
    def _check_leeway(cls, leeway: float) -> float:
        if leeway <= 60:
            return leeway
        raise ValueError('must be a duration of at most "60s" (RFC 7519 §4.1.4: a small leeway)')


class APIKeySettings(Section):
    """`security.api_keys`: API keys in a request header."""

    enabled: Boolean = Field(default=True, description="Accept API keys.")
    header: KeyHeader = Field(default="X-API-Key", description="The header that contains the key.")
    prefix: KeyPrefix = Field(default="m9m_sk_", description="How every key begins.")
    max_per_owner: int = Field(
        default=100, ge=1, description="How many valid keys an owner may have over REST."
    )


class BasicAuthSettings(Section):
    """`security.basic_auth`: HTTP Basic authentication."""

    enabled: Boolean = Field(default=False, description="Accept HTTP Basic (RFC 7617).")
    username: Username | None = Field(default=None, description="The name of the one user.")
    password: Secret | None = Field(default=None, description="The user's password.")
    password_hash: Secret | None = Field(
        default=None, description="The hash of the password, to use instead."
    )
    realm: Realm = Field(default="m9m", description="The realm in challenges.")


class LockoutSettings(Section):
    """`security.lockout`: throttling of failed log-ins."""

    enabled: Boolean = Field(default=True, description="Throttle failed attempts.")
    attempts: Count = Field(default=10, description="Allowed failures per address and per account.")
    per: Period = Field(default=60.0, description="The period in which failures are counted.")


class CORSSettings(Section):
    """`security.cors`: cross-origin requests from browsers (CORS, Fetch standard)."""

    enabled: Boolean = Field(default=True, description="Apply CORS to cross-origin requests.")
    allowed_origins: tuple[Origin, ...] = Field(
        default=(),
        description='"https://app.example.com", "https://*.example.com", or ["*"].',
    )
    allowed_methods: tuple[Method, ...] = Field(
        default=("GET", "POST", "PUT", "DELETE", "PATCH"), description="Methods of other origins."
    )
    allowed_headers: tuple[HeaderName, ...] = Field(
        default=("Content-Type", "Authorization", "X-API-Key"),
        description="Request headers that scripts of other origins may send.",
    )
    expose_headers: tuple[HeaderName, ...] = Field(
        default=("RateLimit", "RateLimit-Policy", "Retry-After", "WWW-Authenticate"),
        description="Response headers that scripts of other origins may read.",
    )
    allow_credentials: Boolean = Field(
        default=False, description="Allow browsers to send credentials."
    )
    max_age: MaxAge = Field(
        default=86_400, description="How long browsers may cache a preflight, in seconds."
    )

    @field_validator("allow_credentials")
    @classmethod
    def _check_allow_credentials(cls, allowed: bool, info: ValidationInfo) -> bool:
        if allowed and "*" in info.data.get("allowed_origins", ()):
            raise ValueError(
                'must be false if security.cors.allowed_origins is ["*"]: list each origin that '
                "may send credentials"
            )
        return allowed


def _header(value: str, field: str) -> Any:
    return Field(default=value, description=f"The header {field}; null leaves it out.")


class HeadersSettings(Section):
    """`security.headers`: security response headers; null switches one off."""

    enabled: Boolean = Field(default=True, description="Send security headers with responses.")
    preset: Literal["api", "web"] = Field(
        default="api", description="Values for JSON (api) or for HTML pages (web)."
    )
    x_content_type_options: HeaderValue = _header("nosniff", "X-Content-Type-Options")
    x_frame_options: HeaderValue = _header("DENY", "X-Frame-Options")
    x_xss_protection: HeaderValue = _header("1; mode=block", "X-XSS-Protection")
    content_security_policy: HeaderValue = _header(FROM_PRESET, "Content-Security-Policy")
    strict_transport_security: HeaderValue = _header(FROM_PRESET, "Strict-Transport-Security")
    referrer_policy: HeaderValue = _header("no-referrer", "Referrer-Policy")
    permissions_policy: HeaderValue = _header(FROM_PRESET, "Permissions-Policy")
    cross_origin_opener_policy: HeaderValue = _header("same-origin", "Cross-Origin-Opener-Policy")
    cross_origin_resource_policy: HeaderValue = _header(
        "same-origin", "Cross-Origin-Resource-Policy"
    )

    def effective(self) -> dict[str, str]:
        """Return the value of every enabled header field, with values from the preset filled in."""
        values = ((field, self.value(name)) for name, field in HEADER_FIELDS.items())
        return {field: value for field, value in values if value is not None}

    def value(self, name: str) -> str | None:
        """Return the value of one header, from the preset if not set; `None` means switched off.

        Args:
            name: the setting's name, such as `x_frame_options`.
        """
        value: str | None = getattr(self, name)
        return PRESETS[self.preset].get(name) if value == FROM_PRESET else value


class RevocationSettings(Section):
    """`security.revocation`: how fast revocations take effect."""

    propagation: Duration = Field(
        default=1.0,
        description="The longest time until all processes apply a revocation.",
    )
    max_staleness: Duration = Field(
        default=30.0,
        description="How long cached identities are used without the database.",
    )


class ErrorSettings(Section):
    """`security.errors`: the format of error responses, and which errors have it."""

    format: ErrorFormat = Field(
        default=ErrorFormat.M9M, description="The body of error responses; problem: RFC 9457."
    )
    all: Boolean = Field(default=False, description="Give every HTTP error of the app that body.")


class SecuritySettings(Section):
    """`security`: authentication, authorisation, CORS and response headers."""

    default_access: Literal["public", "authenticated"] = Field(
        default="public",
        description="authenticated: routes without a decorator need credentials.",
    )
    jwt: JWTSettings = JWTSettings()
    api_keys: APIKeySettings = APIKeySettings()
    basic_auth: BasicAuthSettings = BasicAuthSettings()
    lockout: LockoutSettings = LockoutSettings()
    cors: CORSSettings = CORSSettings()
    headers: HeadersSettings = HeadersSettings()
    revocation: RevocationSettings = RevocationSettings()
    errors: ErrorSettings = ErrorSettings()
    users: UsersSettings = UsersSettings()


class CredentialSettings(Section):
    """`credentials`: stored, encrypted credentials for other services."""

    encryption_key: Secret | None = Field(
        default=None,
        description="base64 of 32 bytes, 64 hex digits, or at least 32 characters.",
    )
    previous_keys: tuple[Secret, ...] = Field(
        default=(), description="Older keys, which only decrypt records."
    )
    cipher: Literal["aes-256-gcm", "fernet"] = Field(
        default="aes-256-gcm",
        description="The cipher of new records; both can be read.",
    )
    environment: tuple[EnvironmentName, ...] = Field(
        default=(),
        description="Variables that records made with resolve=True may read.",
    )
    storage: Literal["database", "memory"] = Field(
        default="database", description="Where credentials are stored."
    )
    max_per_owner: int = Field(
        default=1_000, ge=1, description="How many credentials an owner may have over REST."
    )


class RateLimitSettings(Section):
    """`performance.rate_limit`: the rate limit of every client, and the store for its counts."""

    enabled: Boolean = Field(default=False, description="Limit the requests of every client.")
    requests_per_minute: Count = Field(default=60, description="The sustained rate of requests.")
    burst: Count = Field(default=10, description="How many requests may come at once.")
    key: Literal["address", "identity"] = Field(
        default="address", description="What identifies a client."
    )
    ipv6_prefix: PrefixLength = Field(
        default=64,
        description="IPv6 addresses that share this many leading bits are one client.",
    )
    storage: Literal["memory", "shared", "redis"] = Field(
        default="shared",
        description="The counts' scope: process (memory), machine (shared), all machines (redis).",
    )
    path: Text | None = Field(default=None, description="The directory of the shared store.")
    machines: Count = Field(
        default=1,
        description="How many machines share the limit without Redis.",
    )
    redis_url: SecretUrl | None = Field(default=None, description="The URL of Redis or Valkey.")
    secret: Secret | None = Field(
        default=None,
        description="Hashes clients' names in Redis, at least 32 bytes, the same on all machines; "
        "by default the JWT secret does, or the encryption key.",
    )
    lease: Count = Field(
        default=1, description="Tokens that a worker takes per round trip to Redis."
    )
    on_storage_failure: Literal["local", "closed", "open"] = Field(
        default="local",
        description="local: limit on each machine; closed: answer 503; open: do not limit.",
    )
    legacy_headers: Boolean = Field(default=True, description="Also send X-RateLimit-* headers.")
    shadow: Boolean = Field(default=False, description="Count and report, but refuse no requests.")


class PerformanceSettings(Section):
    """`performance`: rate limits."""

    rate_limit: RateLimitSettings = RateLimitSettings()


class AuditSettings(Section):
    """`audit`: the audit trail."""

    enabled: Boolean = Field(default=True, description="Record an audit trail.")
    sinks: tuple[Literal["log", "database"], ...] = Field(
        default=("log",),
        description="Where events are recorded; database: the tamper-evident trail.",
    )
    retention: Period = Field(default=7_776_000.0, description="How long the database keeps rows.")
    omit: tuple[AuditEvent, ...] = Field(
        default=(), description='Events that are not recorded, such as "authenticated".'
    )


class APISettings(Section):
    """`api`: the REST API for keys, sessions and credentials."""

    enabled: Boolean = Field(default=False, description="Serve the REST API.")
    prefix: UrlPrefix = Field(default="/api/v1", description="The path prefix of the REST API.")


class MetricsSettings(Section):
    """`metrics`: metrics for Prometheus."""

    enabled: Boolean = Field(default=False, description="Serve metrics for Prometheus.")
    path: UrlPrefix = Field(default="/metrics", description="The path of the metrics endpoint.")
    allowed_networks: tuple[Network, ...] = Field(
        default=(), description="Networks that may read metrics without the scope m9m:metrics."
    )


class DevelopmentSettings(Section):
    """`development`: development mode, not for production."""

    enabled: Boolean = Field(
        default=False, description="Make a JWT secret, and allow any origin (without credentials)."
    )


class Settings(Section):
    """All settings; if `M9M` is given this object, it reads no other source."""

    server: ServerSettings = ServerSettings()
    security: SecuritySettings = SecuritySettings()
    credentials: CredentialSettings = CredentialSettings()
    database: DatabaseSettings = DatabaseSettings()
    performance: PerformanceSettings = PerformanceSettings()
    audit: AuditSettings = AuditSettings()
    api: APISettings = APISettings()
    metrics: MetricsSettings = MetricsSettings()
    development: DevelopmentSettings = DevelopmentSettings()
