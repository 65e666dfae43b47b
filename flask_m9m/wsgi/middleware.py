"""M9MMiddleware: WSGI middleware that puts the guard in front of any WSGI app."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, TypeVar

from ..auth.identity import Identity
from ..errors import Answered, InvalidRequest, M9MError, Problem, SettingsError
from ..guard.exchange import CLIENT_ADDRESS, EXCHANGE, IDENTITY, Exchange
from ..guard.marks import CORSMark, HeadersMark, Opening
from ..guard.pipeline import Guard
from ..guard.policy import Access, Level, RoutePolicy
from ..guard.policy_compiler import PolicyCompiler
from ..processes.forking import fork_safe_lock
from ..settings.arguments import check_callable, check_type
from ..settings.development_secret import with_secret
from ..settings.loaded import Loaded
from ..settings.models import Settings
from ..settings.sources import SettingsSource, load
from .assembly import Assembly
from .facade import Facade, check_engine
from .guarded_app import GuardedApp, start_body
from .prefix_parsing import read_policies
from .prefix_policies import Prefixes, PrefixRules, path_of, prefix_problem

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from sqlalchemy import Engine

    from ..credentials.caller import Caller
    from ..credentials.credentials import Credentials

    Authenticate = TypeVar("Authenticate", bound=Callable[[WSGIEnvironment], Identity | None])

logger = logging.getLogger("flask_m9m")


class M9MMiddleware(Facade):
    """Secures a WSGI app of any framework; it is a WSGI app itself.

    The app finds the caller in `environ["m9m.identity"]`, an `Identity` or `None`, and the
    client's address in `environ["m9m.client_address"]`.

    Args:
        app: the WSGI app.
        settings: a configuration file's path, a mapping of settings, or a complete `Settings`;
            by default the settings come from `config.yaml`, `.env` and the environment.
        policies: mappings, each with a `prefix`; the other keys are optional. `methods` limits a
            policy to these methods. `access` is `public`, `authenticated` or `optional`. `scopes`,
            `any_scope`, `roles`, `schemes` and `fresh` are as in `@require_auth`; `rate_limit`,
            `burst`, `key`, `cost` and `name` as in `@rate_limit`. `cors` and `headers` override
            settings of `security.cors` and `security.headers`.
        instance_path: the folder for the app's files, like Flask's instance folder; by default
            `instance` beside the configuration file that `settings` names, else in the working
            directory. Apps with the same instance path and name share their rate limits.
        name: the app's name; see `instance_path`.
        mounted_at: the only `SCRIPT_NAME` under which the app is served, such as `/app`; requests
            under another are refused. By default, requests with a header field `SCRIPT_NAME` are
            refused, because some servers take the value from there.
        clock: seconds since the epoch, for tests.
        engine: the app's own SQLAlchemy engine, or a function that returns it; by default the
            settings' `database`.

    Raises:
        SettingsError: the settings or the policies are invalid; it lists every problem.
        TypeError: the app is not callable.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        settings: SettingsSource | None = None,
        policies: Sequence[Mapping[str, Any]] = (),
        instance_path: str | PathLike[str] | None = None,
        name: str = "wsgi",
        mounted_at: str | None = None,
        clock: Callable[[], float] | None = None,
        engine: Engine | Callable[[], Engine] | None = None,
    ) -> None:
        super().__init__()
        if not callable(app):
            raise TypeError(f"app must be a WSGI app, found {type(app).__name__}")
        check_type(str, name=name)
        check_type(str | PathLike | None, instance_path=instance_path)
        check_type(str | None, mounted_at=mounted_at)
        if clock is not None:
            check_callable(clock=clock)
        check_engine(engine)
        self._app = app
        self._loaded, self._rules = _read(settings, policies, mounted_at)
        self._mounted_at = None if mounted_at is None else mounted_at.encode().decode("latin-1")
        self._loaded.log()
        if self._loaded.settings.api.enabled:
            logger.warning(
                "api.enabled has no effect: only M9M serves the REST API, not M9MMiddleware"
            )
        self._identity = (name, _instance_path(instance_path, settings))
        self._clock = clock
        self._engine = engine
        self._lock = fork_safe_lock()
        self._cached_assembly: Assembly | None = None
        self._prefixes: Prefixes
        self._unrouted: RoutePolicy
        self._guarded = GuardedApp(self._admit, self._prepare, _log_exception)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self._guarded(environ, start_response)

    def _assembly(self, asking: str = "") -> Assembly:
        """Return the app's assembly; the first call makes it."""
        return self._cached_assembly or self._assemble()

    def _assemble(self) -> Assembly:
        with self._lock:
            if self._cached_assembly is None:
                settings = with_secret(self._loaded.settings, self._identity[1])
                assembly = Assembly(
                    settings,
                    self._callbacks,
                    self._identity,
                    clock=self._clock,
                    engine=self._engine,
                    sender=self,
                )
                policies = assembly.guard.policies
                self._unrouted = policies.unrouted()
                self._prefixes = Prefixes(self._rules, policies)
                self._cached_assembly = assembly
            return self._cached_assembly

    def _prepare(self) -> Guard:
        guard = self._assembly().guard
        guard.prepare()
        return guard

    def _admit(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Run the guard's steps 1 to 7, then call the app (step 8) if they admit the request."""
        exchange: Exchange = environ.pop(EXCHANGE)  # inner apps must not use it
        environ[CLIENT_ADDRESS] = exchange.client.address
        environ[IDENTITY] = None
        guard = self._assembly().guard
        try:
            self._enforce(guard, exchange, environ)
        except M9MError as error:
            error.__traceback__ = None  # its frames refer to the exchange, which refers to it
            known = isinstance(error, Answered) or exchange.refusal is error
            answer = exchange.answer if known else None
            if answer is None:
                answer = guard.render(exchange, error)
            return answer(environ, start_response)
        body = self._app(environ, start_response)
        if isinstance(body, list | tuple) or _is_file(environ, body):
            return body
        return start_body(body)  # an exception before the first part still gets a response

    def _enforce(self, guard: Guard, exchange: Exchange, environ: WSGIEnvironment) -> None:
        """Check a request against the policy for its path and method.

        Raises:
            M9MError: the guard refuses or answers the request.
        """
        path = path_of(environ, self._mounted_at)

        def find(method: str) -> RoutePolicy:
            return self._unrouted if path is None else self._prefixes.find(path, method)

        policy = find(environ["REQUEST_METHOD"])
        started = perf_counter_ns() if guard.timed else 0
        try:
            guard.receive(exchange, environ, policy, lambda method: (find(method), None))
            if path is None:
                guard.refuse(exchange, InvalidRequest("The path is ambiguous"))
            guard.authorize(exchange, environ, policy)
        finally:
            if started:
                exchange.guard_nanoseconds += perf_counter_ns() - started

    # The interface for the app

    def authenticator(
        self, scheme: str, *, ambient: bool = False
    ) -> Callable[[Authenticate], Authenticate]:
        """Register a function that implements an authentication scheme of the app.

        The function gets the environ and returns an `Identity`. It returns `None` if the request
        has no credential of the scheme, and raises `flask_m9m.errors.InvalidCredentials` if the
        credential is invalid. Register it before the first request.

        Args:
            scheme: the scheme's name in the policies' `schemes`.
            ambient: whether browsers send the credential automatically, like a cookie; then
                unsafe requests from other sites are refused.

        Raises:
            ValueError: the name is taken.
            RuntimeError: the app is in use already.
        """

        def declare(authenticate: Authenticate) -> Authenticate:
            self._callbacks.add_authenticator(scheme, authenticate, ambient=ambient)
            return authenticate

        return declare

    @property
    def settings(self) -> Settings:
        """The app's settings."""
        return self._loaded.settings

    @property
    def credentials(self) -> Credentials:
        """Create, read, change and rotate stored credentials; every call needs a `caller`."""
        return self._assembly().credentials(_require_caller, self._credential_types)


def _read(
    settings: SettingsSource | None,
    policies: Sequence[Mapping[str, Any]],
    mounted_at: str | None,
) -> tuple[Loaded, PrefixRules]:
    """Load the settings and parse the policies; raise one error with the problems of both."""
    loaded, problems, default = None, list[Problem](), None
    try:
        loaded = load(settings)
        problems += loaded.idle
        default = Access(loaded.settings.security.default_access)
    except SettingsError as error:
        problems += error.problems
    if mounted_at and (mounted_at == "/" or prefix_problem(mounted_at)):
        accepted = prefix_problem(mounted_at) or "must be empty if the app is at the root"
        problems.append(Problem("mounted_at", ascii(mounted_at), accepted))
    rules, found = read_policies(policies, default=default)
    problems += found
    if loaded is not None:
        problems += _find_contradictions(loaded.settings, rules)
    if loaded is None or problems:
        raise SettingsError(problems)
    return loaded, rules


def _find_contradictions(settings: Settings, rules: PrefixRules) -> list[Problem]:
    """Find the CORS and header overrides that contradict the settings."""
    compiler, problems = PolicyCompiler(settings, ()), list[Problem]()
    for rule in rules.rules:
        marks = [mark for mark in rule.marks if isinstance(mark, CORSMark | HeadersMark)]
        try:
            compiler.compile(rule.where, [Level(rule.where, [Opening(), *marks])], "GET")
        except SettingsError as error:
            problems += error.problems
    return problems


def _instance_path(given: str | PathLike[str] | None, settings: SettingsSource | None) -> str:
    if given is None:
        named = isinstance(settings, str | PathLike)
        given = (Path(settings).parent if named else Path()) / "instance"  # type: ignore[arg-type]
    return str(Path(given).absolute())


def _is_file(environ: WSGIEnvironment, body: object) -> bool:
    """Tell whether a body is a file, which the server may send in a faster way (PEP 3333)."""
    wrapper = environ.get("wsgi.file_wrapper")
    return hasattr(body, "read") or (isinstance(wrapper, type) and isinstance(body, wrapper))


def _require_caller() -> Caller:
    raise RuntimeError(
        'caller is missing: pass caller=environ["m9m.identity"] in a request, or '
        "caller=flask_m9m.credentials.SYSTEM for the app itself"
    )


def _log_exception() -> None:
    logger.exception("An exception left the app")
