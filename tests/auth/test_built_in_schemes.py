from __future__ import annotations

from flask_m9m.auth import BUILT_IN, Authenticator


def test_the_built_in_schemes_are_those_of_the_authenticators_of_the_package() -> None:
    named = {
        authenticator.scheme
        for authenticator in Authenticator.__subclasses__()
        if authenticator.__module__.startswith("flask_m9m.") and hasattr(authenticator, "scheme")
    }
    assert named == BUILT_IN == {"bearer", "api_key", "basic", "cookie"}
