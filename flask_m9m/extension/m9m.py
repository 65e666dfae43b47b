"""M9M: the Flask extension object, which secures an app by `M9M(app)` or `init_app`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from flask import Blueprint, Flask, Response

from ..auth.identity import Identity
from ..auth.sessions import TokenPair
from ..auth.signed_links import MaxAge
from ..errors import SettingsError
from ..guard.marks import Mark
from ..settings.arguments import check_callable, check_method, check_text, check_type
from ..settings.checks import check_secret_key
from ..settings.models import Settings
from ..settings.sources import SettingsSource, load
from ..wsgi.assembly import Assembly
from ..wsgi.facade import Facade, check_engine
from ..wsgi.guarded_app import GuardedApp
from .app_state import EXTENSION, AppState, current_state
from .body_limits import limit_sizes
from .context import csp_nonce
from .decorators import ViewDecorator, require_auth, require_signed_url
from .described_routes import fragment_of
from .hooks import Hooks
from .log_request_ids import add_request_ids
from .protections import Protections

if TYPE_CHECKING:
    from sqlalchemy import Engine, MetaData

    from ..credentials.credentials import Credentials

Loader = TypeVar("Loader", bound=Callable[[Identity], Any])
Authenticate = TypeVar("Authenticate", bound=Callable[[], Identity | None])

command_line: ContextVar[Mapping[str, object]] = ContextVar(
    "m9m_command_line", default=MappingProxyType({})
)
"""Settings from the flags of the running command, by path; they override every other source."""


add_request_ids()


class M9M(Facade):
    """Secures Flask apps; one `M9M` can secure several apps, each with its own settings.

    Example:
        `m9m = M9M(app)`, or `m9m = M9M()` and `m9m.init_app(app)` in an app factory.

    Args:
        app: the app to secure; leave it out and call `init_app` in an app factory.
        settings: a configuration file's path, a mapping of settings, or a complete `Settings`
            object. Without it, `config.yaml`, `.env`, the environment and `app.config` are read.
        clock: returns the seconds since the epoch; tests replace it.
        engine: the app's own SQLAlchemy engine, or a function that returns it. flask-m9m then
            keeps its tables in the app's database, and not in the one of the settings.

    Raises:
        RuntimeError: the app has an `M9M` already.
        SettingsError: the settings cannot be used; the message lists every problem.
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
        if clock is not None:
            check_callable(clock=clock)
        self._settings = settings
        self._clock = clock
        check_engine(engine)
        self._engine = engine
        self._protections = Protections()
        self._column_databases: list[tuple[Engine | Callable[[], Engine], MetaData]] = []
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
            app: the app; its views can be registered before or after this call.
            settings, engine: as in the constructor, for this app only.

        Raises:
            RuntimeError: the app has an `M9M` already.
            SettingsError: the settings cannot be used; the message lists every problem.
        """
        check_type(Flask, app=app)
        check_engine(engine)
        if EXTENSION in app.extensions:
            raise RuntimeError(
                f"the app {app.name!r} already has an M9M: call M9M(app) or init_app(app) once"
            )
        loaded = load(
            self._settings if settings is None else settings,
            app_config=app.config,
            flags=command_line.get(),
            folders=_folders_of(app),
        )
        if problems := [*check_secret_key(loaded.settings, app.secret_key), *loaded.idle]:
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
            column_databases=self._column_databases,
        )
        app.extensions[EXTENSION] = state
        self._protections.apps.add(app)
        _secure(app, state)

    def protect(self, target: Blueprint | str, *marks: ViewDecorator | Callable[..., Any]) -> None:
        """Apply decorators to routes whose views you cannot decorate, such as another package's.

        What closes adds up: each requirement between the view and the pattern applies, up to the
        first `public`, `optional=True` or `instead=True`. CORS and headers are decided by the
        decorator nearest to the view. The order, nearest first, is: view, class, inner blueprint,
        outer blueprint, pattern. Rate limits add up. The decorators apply in every app of this
        `M9M`; a blueprint or pattern that none of them has stops the start.

        Example:
            `m9m.protect("api-docs.*", public, security_headers(preset="web"))`

        Args:
            target: a blueprint, registered or not yet, or a pattern of endpoint names in the
                syntax of `fnmatch` (`"api-docs.*"`).
            marks: flask-m9m's decorators: `require_auth(…)`, `require_signed_url(…)`, `public`,
                `rate_limit(…)`, `unlimited`, `cors(…)`, `security_headers(…)`, `cacheable`.

        Raises:
            TypeError: the target or a decorator is of another type.
            ValueError: there is no decorator.
        """
        if not isinstance(target, str | Blueprint):
            raise TypeError(
                "target must be a blueprint or a pattern of endpoint names, "
                f"found {type(target).__name__}"
            )
        if not marks:
            raise ValueError("marks must have at least one decorator: without any, nothing changes")
        self._protections.protect(target, tuple(map(_mark_of, marks)))

    def user_loader(self, load: Loader) -> Loader:
        """Register the function that loads the app's own user object for `current_user`.

        Args:
            load: takes the request's `Identity` and returns the app's object for it; a function or
                a coroutine function.
        """
        check_callable(load=load)
        self._callbacks.user_loader = load
        return load

    def authenticator(
        self, scheme: str, *, ambient: bool = False
    ) -> Callable[[Authenticate], Authenticate]:
        """Register a function that authenticates requests by a scheme of the app's own.

        The function takes no arguments and reads `flask.request`. It returns an `Identity`, or
        `None` if the request has no credential of this scheme. It raises
        `flask_m9m.errors.InvalidCredentials` if the credential is wrong. Register it before the
        first request.

        Args:
            scheme: the scheme's name, as in `@require_auth(schemes=…)`.
            ambient: whether browsers send the credential automatically, as they do cookies.
                Cross-site requests that change something are then refused.

        Raises:
            ValueError: a scheme with this name exists.
            RuntimeError: an app of this `M9M` is in use already.
        """

        def declare(authenticate: Authenticate) -> Authenticate:
            self._callbacks.add_authenticator(scheme, lambda _: authenticate(), ambient=ambient)
            return authenticate

        return declare

    def _assembly(self, asking: str = "") -> Assembly:
        return current_state(asking).assembly

    @property
    def settings(self) -> Settings:
        """The settings of the current app."""
        return current_state("m9m.settings").loaded.settings

    @property
    def credentials(self) -> Credentials:
        """Create, read, change and rotate stored credentials."""
        return current_state("m9m.credentials").credentials

    def encrypted_columns(self, engine: Engine | Callable[[], Engine], metadata: MetaData) -> None:
        """Name the database of encrypted columns, so that commands check and rotate their keys.

        The columns of Flask-SQLAlchemy's models are known without it.

        Args:
            engine: the database's engine, or a function that returns it, which is called in the
                app's context.
            metadata: the models' metadata, such as `Base.metadata`.

        Raises:
            TypeError: an argument is of another type.
        """
        from sqlalchemy import Engine, MetaData

        if not callable(engine):
            check_type(Engine, engine=engine)
        check_type(MetaData, metadata=metadata)
        self._column_databases.append((engine, metadata))

    def openapi(self, schemes: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Any]:
        """Describe the security of the current app's routes, for an OpenAPI 3 document.

        Args:
            schemes: Security Scheme Objects by the scheme's name. The app's own schemes need
                them, since flask-m9m cannot know where those expect the credential.

        Returns:
            A part of a document: the security schemes, and for each route its `security` and its
            possible responses 401, 403 and 429. `flask_m9m.openapi.merge` adds it to a document.

        Raises:
            ValueError: a scheme in `schemes` is not switched on.
            SettingsError: the app's marks contradict each other or the settings.
        """
        check_type(Mapping | None, schemes=schemes)
        return fragment_of(current_state("m9m.openapi"), schemes)

    def set_cookies(self, response: Response, pair: TokenPair) -> None:
        """Send a session's tokens to a browser, in cookies that scripts cannot read.

        Every later request that changes something must send the value of the cookie
        `__Host-m9m-csrf` in the header `X-CSRF-Token`.

        Args:
            response: the view's response; the cookies are added to it.
            pair: the tokens that `m9m.tokens.issue_pair` or `m9m.tokens.refresh` returned.

        Raises:
            SettingsError: `security.jwt.cookie` is switched off.
            ValueError: a token is too long for a cookie.
        """
        check_type(Response, response=response)
        for field in current_state("m9m.set_cookies").identities.cookies.fields(pair):
            response.headers.add(*field)

    def clear_cookies(self, response: Response) -> None:
        """Delete the session's cookies in the browser; its tokens stay valid.

        Args:
            response: the view's response.

        Raises:
            SettingsError: `security.jwt.cookie` is switched off.
        """
        check_type(Response, response=response)
        for field in current_state("m9m.clear_cookies").identities.cookies.clearing_fields():
            response.headers.add(*field)

    def sign(self, payload: Any, max_age: MaxAge, purpose: str = "") -> str:
        """Sign a value with the current app's secret; `unsign` verifies it and returns the value.

        The result can be used in a URL as it is. It is signed and not encrypted: anybody can read
        the payload. See `flask_m9m.auth.signed_links` for its format, and `Links.sign` there for
        the arguments and errors.
        """
        return current_state("m9m.sign").guard.links.sign(payload, max_age, purpose)

    def unsign(self, text: str | None, purpose: str = "") -> Any:
        """Verify a text that `sign` made, for the same purpose, and return the signed value.

        Raises:
            InvalidSignature: the text is not valid, or has expired; the response is a 403.
            SettingsError: JWT is switched off.
        """
        return current_state("m9m.unsign").guard.links.unsign(text, purpose)

    def sign_url(self, url: str, max_age: MaxAge, method: str = "GET", purpose: str = "") -> str:
        """Add a signature to the URL of a view that has `@require_signed_url`.

        Args:
            url: a path from the root or an absolute URL, as `url_for` returns it; the host is
                signed where the route's rule has a variable in its host or subdomain.
            max_age: how long the URL is valid: in seconds, as `"15m"` or as a `timedelta`; longer
                than zero, at most a century.
            method: the request's method; a URL for `GET` is valid for `HEAD` too.
            purpose: the `purpose` of the view's decorator.

        Raises:
            ValueError: `url` is of another form, too long or signed already, or without a host
                outside a request though a rule's host is variable; the method is `HEAD`; or
                `max_age` is out of range.
            SettingsError: JWT is switched off.
        """
        check_text(url=url)
        check_method("method", method)
        state = current_state("m9m.sign_url")
        host = state.routes.host_to_sign(url, method)
        return state.guard.links.sign_url(url, max_age, method, purpose, host)


def _secure(app: Flask, state: AppState) -> None:
    """Add our routes, limits and hooks to an app, and put the guard around it."""
    _register_routes(app, state.loaded.settings)
    limit_sizes(app, state.loaded.settings.server.limits)
    app.context_processor(lambda: {"csp_nonce": csp_nonce})
    hooks = Hooks(app, state)
    app.wsgi_app = GuardedApp(  # type: ignore[method-assign]
        app.wsgi_app, hooks.prepare, hooks.log_exception, hooks.admit
    )


def _folders_of(app: Flask) -> list[Path]:
    """List the folders in which an app's settings may be, wherever it is started."""
    root, instance = Path(app.root_path), Path(app.instance_path)
    folders = [instance, root]
    if instance == root.parent / "instance":
        folders.append(root.parent)  # the project's, where the app is a package
    return folders


def _register_routes(app: Flask, settings: Settings) -> None:
    """Add the routes of the REST API and of the metrics, if they are switched on."""
    if not (settings.api.enabled or settings.metrics.enabled):
        return
    from .api.hosts import on_every_host

    with on_every_host(app):
        if settings.api.enabled:
            from .api import register

            register(app, settings.api.prefix)
        if settings.metrics.enabled:
            from .api.metrics import register_metrics

            register_metrics(app, settings.metrics)


def _mark_of(decorator: object) -> Mark:
    """Get the mark that a decorator puts on views."""
    if decorator is require_auth:
        decorator = require_auth()
    elif decorator is require_signed_url:
        decorator = require_signed_url()
    if isinstance(decorator, ViewDecorator):
        return decorator.mark
    raise TypeError(f"marks must be decorators of flask-m9m, found {type(decorator).__name__}")
