"""The settings, section by section, as frozen pydantic models: names, types and defaults."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import (
    Field,
    ValidationInfo,
    field_validator,
)

from ..errors import ErrorFormat
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


class Algorithm(StrEnum):
    """How tokens are signed (RFC 7518 §3.2); the secret is at least as long as the hash."""

    HS256 = "HS256"
    HS384 = "HS384"
    HS512 = "HS512"

    @property
    def secret_bytes(self) -> int:
        """The fewest bytes that a secret may have."""
        return int(self.value[2:]) // 8


class CookieSettings(Section):
    """`security.jwt.cookie`."""

    enabled: Boolean = Field(default=False, description="Accept a session's tokens in cookies.")
    same_site: Literal["Lax", "Strict"] = Field(
        default="Lax", description="Strict: not even a link from another site brings them."
    )


class JWTSettings(Section):
    """`security.jwt`."""

    enabled: Boolean | None = Field(default=None, description="null: on when there is a secret.")
    secret: Secret | None = Field(default=None, description="Signs tokens; at least 32 bytes.")
    previous_secrets: tuple[Secret, ...] = Field(
        default=(), description="Verify only, for rotation."
    )
    algorithm: Algorithm = Field(default=Algorithm.HS256, description="How tokens are signed.")
    expiration: Period = Field(default=86_400.0, description="The life of an access token.")
    refresh_expiration: Period = Field(
        default=604_800.0, description="The life of a refresh token."
    )
    refresh_max_age: Period = Field(
        default=2_592_000.0, description="The life of a refresh family."
    )
    accept_untyped: Boolean = Field(
        default=True, description="Accept tokens whose typ is JWT or missing; false: only at+jwt."
    )
    issuer: Text | None = Field(default=None, description="Set: issued and required.")
    audience: Text | None = Field(default=None, description="Set: issued and required.")
    leeway: Duration = Field(default=0.0, description="Allowed clock skew, at most 60s.")
    cookie: CookieSettings = CookieSettings()

    @field_validator("leeway")
    @classmethod
    def _short(cls, leeway: float) -> float:
        if leeway <= 60:
            return leeway
        raise ValueError('a duration of at most "60s" (RFC 7519 §4.1.4: a small leeway)')


class APIKeySettings(Section):
    """`security.api_keys`."""

    enabled: Boolean = Field(default=True, description="Accept API keys.")
    header: KeyHeader = Field(default="X-API-Key", description="The header that carries a key.")
    prefix: KeyPrefix = Field(default="m9m_sk_", description="How every key begins.")


class BasicAuthSettings(Section):
    """`security.basic_auth`."""

    enabled: Boolean = Field(default=False, description="Accept HTTP Basic (RFC 7617).")
    username: Username | None = Field(default=None, description="The configured user's name.")
    password: Secret | None = Field(default=None, description="Its password.")
    password_hash: Secret | None = Field(default=None, description="Or the hash of it.")
    realm: Realm = Field(default="m9m", description="The realm that challenges name.")


class LockoutSettings(Section):
    """`security.lockout`."""

    enabled: Boolean = Field(default=True, description="Throttle failed attempts.")
    attempts: Count = Field(default=10, description="Failed attempts per address and per account.")
    per: Period = Field(default=60.0, description="The time in which they are counted.")


class CORSSettings(Section):
    """`security.cors`."""

    enabled: Boolean = Field(
        default=True, description="Answer cross-origin requests by these rules."
    )
    allowed_origins: tuple[Origin, ...] = Field(
        default=(), description='"https://app.example.com", "https://*.example.com", or ["*"].'
    )
    allowed_methods: tuple[Method, ...] = ("GET", "POST", "PUT", "DELETE", "PATCH")
    allowed_headers: tuple[HeaderName, ...] = ("Content-Type", "Authorization", "X-API-Key")
    expose_headers: tuple[HeaderName, ...] = (
        "RateLimit",
        "RateLimit-Policy",
        "Retry-After",
        "WWW-Authenticate",
    )
    allow_credentials: Boolean = Field(default=False, description="Let browsers send credentials.")
    max_age: MaxAge = Field(
        default=86_400, description="How long a preflight may be kept, in seconds."
    )

    @field_validator("allow_credentials")
    @classmethod
    def _listed_origins(cls, allowed: bool, info: ValidationInfo) -> bool:
        if allowed and "*" in info.data.get("allowed_origins", ()):
            raise ValueError(
                'false, while security.cors.allowed_origins is ["*"]: credentials need their '
                "origins listed"
            )
        return allowed


class HeadersSettings(Section):
    """`security.headers`: a value, null to switch a header off, or what the preset says."""

    enabled: Boolean = Field(default=True, description="Send security headers.")
    preset: Literal["api", "web"] = Field(
        default="api", description="Values for JSON or for pages."
    )
    x_content_type_options: HeaderValue = "nosniff"
    x_frame_options: HeaderValue = "DENY"
    x_xss_protection: HeaderValue = "1; mode=block"
    content_security_policy: HeaderValue = FROM_PRESET
    strict_transport_security: HeaderValue = FROM_PRESET
    referrer_policy: HeaderValue = "no-referrer"
    permissions_policy: HeaderValue = FROM_PRESET
    cross_origin_opener_policy: HeaderValue = "same-origin"
    cross_origin_resource_policy: HeaderValue = "same-origin"

    def effective(self) -> dict[str, str]:
        """Return the value of every header field that is on, as the preset fills them."""
        values = ((field, self.value(name)) for name, field in HEADER_FIELDS.items())
        return {field: value for field, value in values if value is not None}

    def value(self, name: str) -> str | None:
        """Return one header's value, the preset's where none was given; `None` is off."""
        value: str | None = getattr(self, name)
        return PRESETS[self.preset].get(name) if value == FROM_PRESET else value


class RevocationSettings(Section):
    """`security.revocation`."""

    propagation: Duration = Field(default=1.0, description="When a revocation holds everywhere.")
    max_staleness: Duration = Field(
        default=30.0, description="How long cached identities work without the database."
    )


class ErrorSettings(Section):
    """`security.errors`."""

    format: ErrorFormat = Field(default=ErrorFormat.M9M, description="problem: RFC 9457.")


class SecuritySettings(Section):
    """`security`."""

    default_access: Literal["public", "authenticated"] = Field(
        default="public", description="authenticated: every route needs require_auth or @public."
    )
    jwt: JWTSettings = JWTSettings()
    api_keys: APIKeySettings = APIKeySettings()
    basic_auth: BasicAuthSettings = BasicAuthSettings()
    lockout: LockoutSettings = LockoutSettings()
    cors: CORSSettings = CORSSettings()
    headers: HeadersSettings = HeadersSettings()
    revocation: RevocationSettings = RevocationSettings()
    errors: ErrorSettings = ErrorSettings()


class CredentialSettings(Section):
    """`credentials`."""

    encryption_key: Secret | None = Field(
        default=None, description="base64 of 32 bytes, 64 hex digits, or at least 32 characters."
    )
    previous_keys: tuple[Secret, ...] = Field(default=(), description="Read only, for rotation.")
    cipher: Literal["aes-256-gcm", "fernet"] = Field(
        default="aes-256-gcm", description="How records are written; both are read."
    )
    environment: tuple[EnvironmentName, ...] = Field(
        default=(), description="Variables that records made with resolve=True may read."
    )
    storage: Literal["database", "memory"] = Field(
        default="database", description="Where credentials are kept."
    )


class SQLiteSettings(Section):
    """`database.sqlite`."""

    path: Text | None = Field(default=None, description="The database file.")


class PostgresSettings(Section):
    """`database.postgres`."""

    url: SecretUrl | None = Field(default=None, description="The database's URL.")


class DatabaseSettings(Section):
    """`database`."""

    url: SecretUrl | None = Field(
        default=None, description="Any SQLAlchemy URL; overrides the rest."
    )
    type: Literal["sqlite", "postgres"] = Field(default="sqlite", description="Used without a URL.")
    sqlite: SQLiteSettings = SQLiteSettings()
    postgres: PostgresSettings = PostgresSettings()


class RateLimitSettings(Section):
    """`performance.rate_limit`."""

    enabled: Boolean = Field(default=False, description="Limit every client's requests.")
    requests_per_minute: Count = Field(default=60, description="The sustained rate.")
    burst: Count = Field(default=10, description="Requests that may come at once.")
    key: Literal["address", "identity"] = Field(default="address", description="Who is one client.")
    ipv6_prefix: PrefixLength = Field(
        default=64, description="Addresses that share so many bits are one client."
    )
    storage: Literal["memory", "shared", "redis"] = Field(
        default="shared", description="Who shares the count: a process, a machine, a fleet."
    )
    path: Text | None = Field(default=None, description="The directory of the shared store.")
    machines: Count = Field(default=1, description="How many share the limit when Redis is gone.")
    redis_url: SecretUrl | None = Field(default=None, description="Where Redis or Valkey is.")
    lease: Count = Field(default=1, description="Tokens a worker takes per round trip to Redis.")
    on_storage_failure: Literal["local", "closed", "open"] = Field(
        default="local", description="local: the machine limits alone; closed: 503; open: no limit."
    )
    legacy_headers: Boolean = Field(default=True, description="Send X-RateLimit-* as well.")
    shadow: Boolean = Field(default=False, description="Count and report, and refuse nobody.")


class PerformanceSettings(Section):
    """`performance`."""

    rate_limit: RateLimitSettings = RateLimitSettings()


class AuditSettings(Section):
    """`audit`."""

    enabled: Boolean = Field(default=True, description="Keep an audit trail.")
    sinks: tuple[Literal["log", "database"], ...] = Field(
        default=("log",), description="database: the tamper-evident trail."
    )
    retention: Period = Field(default=7_776_000.0, description="How long rows are kept.")
    omit: tuple[AuditEvent, ...] = Field(
        default=(), description='Events that are not written down, such as "authenticated".'
    )


class APISettings(Section):
    """`api`."""

    enabled: Boolean = Field(default=False, description="Serve the REST API.")
    prefix: UrlPrefix = Field(default="/api/v1", description="Where it is mounted.")


class MetricsSettings(Section):
    """`metrics`."""

    enabled: Boolean = Field(default=False, description="Serve counts for Prometheus.")
    path: UrlPrefix = Field(default="/metrics", description="Where they are served.")
    allowed_networks: tuple[Network, ...] = Field(
        default=(), description="Networks that read them without the scope m9m:metrics."
    )


class DevelopmentSettings(Section):
    """`development`."""

    enabled: Boolean = Field(
        default=False, description="Make a secret, allow any origin without credentials."
    )


class Settings(Section):
    """Everything that can be set; complete when given to `M9M`: no other source is read then."""

    server: ServerSettings = ServerSettings()
    security: SecuritySettings = SecuritySettings()
    credentials: CredentialSettings = CredentialSettings()
    database: DatabaseSettings = DatabaseSettings()
    performance: PerformanceSettings = PerformanceSettings()
    audit: AuditSettings = AuditSettings()
    api: APISettings = APISettings()
    metrics: MetricsSettings = MetricsSettings()
    development: DevelopmentSettings = DevelopmentSettings()
