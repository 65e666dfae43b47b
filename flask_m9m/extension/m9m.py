"""M9M: binds a guard to a Flask app."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from flask import Blueprint, Flask, Response
from werkzeug.exceptions import HTTPException, default_exceptions

from ..auth.identity import Identity
from ..auth.sessions import TokenPair
from ..auth.signed_links import MaxAge
from ..errors import SettingsError
from ..guard.marks import Mark
from ..settings.checks import check_secret_key
from ..settings.models import Settings
from ..settings.sources import SettingsSource, load
from ..wsgi.assembly import Assembly
from ..wsgi.facade import Facade
from ..wsgi.guarded_app import GuardedApp
from .app_state import EXTENSION, AppState, current_state
from .body_limits import limit_sizes
from .context import csp_nonce
from .decorators import ViewDecorator, require_auth, require_signed_url
from .hooks import Hooks
from .log_request_ids import mark_lines
from .routes import Protections

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ..credentials.credentials import Credentials

Loader = TypeVar("Loader", bound=Callable[[Identity], Any])
Authenticate = TypeVar("Authenticate", bound=Callable[[], Identity | None])

command_line: ContextVar[Mapping[str, object]] = ContextVar(
    "m9m_command_line", default=MappingProxyType({})
)
"""What the flags of a command that loads an app say, by path; it overrides every other source."""


mark_lines()


class M9M(Facade):
    """Secures Flask apps; one `M9M` can serve several, each under its own settings.

    Args:
        app: the app, or nothing where a factory calls `init_app`.
        settings: a configuration file's path, a mapping of settings, or a complete `Settings`;
            left out, the settings come from `config.yaml`, `.env` and the environment.
        clock: seconds since the epoch, for tests.
        engine: the app's own SQLAlchemy engine, or a function that returns it, where our tables
            share the app's database; left out, the settings' `database`.

    Raises:
        SettingsError: the settings cannot be used; it lists every problem.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        settings: SettingsSource | None = None,
        clock: Callable[[], float] | None = None,
        engine: Engine | Callable[[], Engine] | None = None,
    ) -> None:
        super().__init__()
        self._settings = settings
        self._clock = clock
        self._engine = engine
        self._protections = Protections()
        if app is not None:
            self.init_app(app)

    def init_app(
        self,
        app: Flask,
        *,
        settings: SettingsSource | None = None,
        engine: Engine | Callable[[], Engine] | None = None,
    ) -> None:
        """Secure an app.

        Args:
            app: the app; its views may be registered before or after.
            settings: as in the constructor, for this app alone.
            engine: as in the constructor, for this app alone.

        Raises:
            RuntimeError: the app is secured already.
            SettingsError: the settings cannot be used.
        """
        if EXTENSION in app.extensions:
            raise RuntimeError(
                f"the app {app.name!r} already has an M9M: call M9M(app) or init_app(app) once"
            )
        loaded = load(
            self._settings if settings is None else settings,
            app_config=app.config,
            flags=command_line.get(),
        )
        if problems := check_secret_key(loaded.settings, app.secret_key):
            raise SettingsError(problems)
        loaded.log()
        state = AppState(
            app,
            loaded,
            self._protections,
            self._callbacks,
            lambda: self._credential_types,
            clock=self._clock,
            engine=engine or self._engine,
        )
        app.extensions[EXTENSION] = state
        if loaded.settings.api.enabled:
            from .api import serve

            serve(app, loaded.settings.api.prefix)
        if loaded.settings.metrics.enabled:
            from .api.metrics import serve_metrics

            serve_metrics(app, loaded.settings.metrics)
        limit_sizes(app, loaded.settings.server.limits)
        app.context_processor(lambda: {"csp_nonce": csp_nonce})
        hooks = Hooks(app, state)
        app.wsgi_app = GuardedApp(  # type: ignore[method-assign]
            app.wsgi_app, hooks.prepare, hooks.failed
        )

    def protect(self, target: Blueprint | str, *marks: ViewDecorator | Callable[..., Any]) -> None:
        """Put marks on routes that nobody can decorate.

        The mark nearest to a view decides its access, CORS and headers: its own, its class's,
        the inner blueprint's, the outer one's, a pattern's. Rate limits add up. All of it holds
        for every app of this `M9M`.

        Args:
            target: a blueprint, registered or not yet, or a pattern of endpoint names as
                `fnmatch` reads them (`"api-docs.*"`).
            marks: `require_auth(…)`, `require_signed_url(…)`, `public`, `rate_limit(…)`,
                `cors(…)`, `security_headers(…)`.
        """
        if not isinstance(target, str | Blueprint):
            raise TypeError(f"protect takes a blueprint or an endpoint's name, not {target!r}")
        self._protections.protect(target, tuple(map(_mark_of, marks)))

    def user_loader(self, load: Loader) -> Loader:
        """Take a function that returns the app's own object for an identity, for `current_user`."""
        self._callbacks.user_loader = load
        return load

    def authenticator(
        self, scheme: str, *, ambient: bool = False
    ) -> Callable[[Authenticate], Authenticate]:
        """Take a function that adds a scheme of the app's own.

        It looks at `flask.request` and returns an `Identity`; `None` where the request has no
        credential of the scheme; or raises `flask_m9m.errors.InvalidCredentials`. Declare it
        before the first request.

        Args:
            scheme: its name in `@require_auth(schemes=…)`.
            ambient: whether browsers send the credential by themselves, as they do cookies:
                then requests of other sites that change something are refused.

        Raises:
            ValueError: there is a scheme of that name.
            RuntimeError: an app has begun to work already, without it.
        """

        def declare(authenticate: Authenticate) -> Authenticate:
            self._callbacks.add_authenticator(scheme, lambda _: authenticate(), ambient=ambient)
            return authenticate

        return declare

    def _assembly(self, asking: str = "") -> Assembly:
        return current_state(asking).assembly

    @property
    def settings(self) -> Settings:
        """The current app's settings."""
        return current_state("m9m.settings").loaded.settings

    @property
    def credentials(self) -> Credentials:
        """Create, read, change and rotate stored credentials."""
        return current_state("m9m.credentials").credentials

    def openapi(self, schemes: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Any]:
        """Return what the current app's routes demand, as a part of an OpenAPI 3 document.

        It has the security schemes, and for each route its `security` and the answers 401, 403
        and 429 where they can come. `flask_m9m.openapi.merge` puts it into a document.

        Args:
            schemes: Security Scheme Objects by the scheme's name, for schemes of the app's own,
                of which nothing else says where their credential stands.

        Raises:
            ValueError: one of `schemes` is not switched on.
            SettingsError: the app's marks contradict each other or the settings.
        """
        from ..openapi.components import ANSWERS
        from ..openapi.fragment import describe

        state = current_state("m9m.openapi")
        shown = (
            (rule.rule, method, policy)
            for rule, method, policy in state.routes.all()
            if not (rule.build_only or rule.websocket)
        )
        own = [status for status in ANSWERS if _answers_itself(state.app, int(status))]
        return describe(shown, state.guard, schemes, own=own)

    def set_cookies(self, response: Response, pair: TokenPair) -> None:
        """Give a browser a session's tokens in cookies that scripts cannot read.

        Requests that change something then bring `X-CSRF-Token`, the value of the cookie
        `__Host-m9m-csrf`.

        Args:
            response: what the view returns.
            pair: as `m9m.tokens.issue_pair` or `refresh` returned it.

        Raises:
            SettingsError: `security.jwt.cookie` is switched off.
            ValueError: a token is too long for a cookie.
        """
        for field in current_state("m9m.set_cookies").identities.cookies.fields(pair):
            response.headers.add(*field)

    def clear_cookies(self, response: Response) -> None:
        """Have a browser forget its session's cookies; the session itself goes on.

        Raises:
            SettingsError: `security.jwt.cookie` is switched off.
        """
        for field in current_state("m9m.clear_cookies").identities.cookies.clearing_fields():
            response.headers.add(*field)

    def sign(self, payload: Any, max_age: MaxAge, purpose: str = "") -> str:
        """Write a value down, under the current app's secret, for `unsign` to trust.

        Args:
            payload: JSON data; anybody can read it.
            max_age: how long it is good, in seconds, as `"15m"` or as a `timedelta`; longer than
                zero, at most a century.
            purpose: what it is for; it is good for nothing else.

        Returns:
            Text that can stand in a URL as it is.

        Raises:
            ValueError: the payload is not JSON or too long, or `max_age` is out of range.
            SettingsError: JWT is switched off.
        """
        return current_state("m9m.sign").guard.links.sign(payload, max_age, purpose)

    def unsign(self, text: str | None, purpose: str = "") -> Any:
        """Return the value in a text that `sign` wrote.

        Args:
            text: whatever came.
            purpose: the one for which it has to be signed.

        Raises:
            InvalidSignature: for whatever is wrong with it; the answer is a 403.
            SettingsError: JWT is switched off.
        """
        return current_state("m9m.unsign").guard.links.unsign(text, purpose)

    def sign_url(self, url: str, max_age: MaxAge, method: str = "GET", purpose: str = "") -> str:
        """Return a URL with a signature, for a view that is marked `@require_signed_url`.

        Args:
            url: what `url_for` returns; its host does not count.
            max_age: as for `sign`.
            method: the one method for which it is good, `HEAD` beside `GET`.
            purpose: the view's.

        Raises:
            ValueError: the URL is not such a one, is too long, or is signed already; the method
                is `HEAD`; or `max_age` is out of range.
            SettingsError: JWT is switched off.
        """
        links = current_state("m9m.sign_url").guard.links
        return links.sign_url(url, max_age, method, purpose)


def _answers_itself(app: Flask, status: int) -> bool:
    """Tell whether an error handler of the app writes the errors of a status, as Flask finds it."""
    handlers = app.error_handler_spec.get(None, {})
    handled = {**handlers.get(status, {}), **handlers.get(None, {})}
    return not handled.keys().isdisjoint((HTTPException, default_exceptions[status]))


def _mark_of(decorator: object) -> Mark:
    """Return the mark that one of the decorators puts on views."""
    if decorator is require_auth:
        decorator = require_auth()
    elif decorator is require_signed_url:
        decorator = require_signed_url()
    if isinstance(decorator, ViewDecorator):
        return decorator.mark
    raise TypeError(f"protect takes flask-m9m's decorators, not {decorator!r}")
