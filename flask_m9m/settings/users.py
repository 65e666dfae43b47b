"""Settings of the users of `m9m.users`: which passwords they may choose."""

from __future__ import annotations

from pydantic import Field

from .section import Section
from .types import Boolean


class UsersSettings(Section):
    """`security.users`: the passwords that users may choose (NIST SP 800-63B-4 §3.1.1.2)."""

    min_password_length: int = Field(
        default=8, ge=8, le=256, description="The fewest characters of a new password."
    )
    refuse_common: Boolean = Field(
        default=True, description="Refuse the 10,000 commonest passwords."
    )
