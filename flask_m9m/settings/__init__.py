"""The settings: models, sources (file, environment, app.config) and validation."""

from __future__ import annotations

from .checks import check, check_secret_key
from .database import DatabaseSettings
from .durations import parse_duration
from .loaded import Loaded
from .models import (
    Algorithm,
    APIKeySettings,
    APISettings,
    AuditSettings,
    BasicAuthSettings,
    CORSSettings,
    CredentialSettings,
    DevelopmentSettings,
    ErrorSettings,
    HeadersSettings,
    JWTSettings,
    LockoutSettings,
    MetricsSettings,
    PerformanceSettings,
    RateLimitSettings,
    RevocationSettings,
    SecuritySettings,
    Settings,
)
from .origins import OriginKind, OriginRule, parse_origin_rule
from .paths import get, nearest_path
from .presets import PRESETS
from .secrets import is_asymmetric_key, is_der
from .server import ServerLimits, ServerSettings, ServerTimeouts, TLSSettings
from .sources import SettingsSource, load, settings_of

__all__ = [
    "PRESETS",
    "APIKeySettings",
    "APISettings",
    "Algorithm",
    "AuditSettings",
    "BasicAuthSettings",
    "CORSSettings",
    "CredentialSettings",
    "DatabaseSettings",
    "DevelopmentSettings",
    "ErrorSettings",
    "HeadersSettings",
    "JWTSettings",
    "Loaded",
    "LockoutSettings",
    "MetricsSettings",
    "OriginKind",
    "OriginRule",
    "PerformanceSettings",
    "RateLimitSettings",
    "RevocationSettings",
    "SecuritySettings",
    "ServerLimits",
    "ServerSettings",
    "ServerTimeouts",
    "Settings",
    "SettingsSource",
    "TLSSettings",
    "check",
    "check_secret_key",
    "get",
    "is_asymmetric_key",
    "is_der",
    "load",
    "nearest_path",
    "parse_duration",
    "parse_origin_rule",
    "settings_of",
]
