"""M9MMiddleware: the same guard in front of any WSGI app."""

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
from ..settings.development_secret import with_secret
from ..settings.models import Settings
from ..settings.sources import Loaded, SettingsSource, load
from .assembly import Assembly
from .facade import Facade
from .guarded_app import GuardedApp, begun
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
    """Secures a WSGI app, whatever it is written in; it is a WSGI app itself.

    The app finds who is calling in `environ["m9m.identity"]`, an `Identity` or `None`, and the
    client's address in `environ["m9m.client_address"]`.

    Args:
        app: the app.
        settings: a configuration file's path, a mapping of settings, or a complete `Settings`;
            left out, the settings come from `config.yaml`, `.env` and the environment.
        policies: what paths demand, each a mapping with a `prefix` and, as in the decorators,
            `access` (`public`, `authenticated`, `optional`), `scopes`, `any_scope`, `roles`,
            `schemes`, `fresh`, `rate_limit`, `burst`, `key`, `cost`, `name`; with `methods` it
            holds for these alone; `cors` and `headers` hold settings that differ there.
        instance_path: the folder of what is kept in files, as Flask's instance folder; left out,
            `instance` beside the configuration file that `settings` names, else in the working
            directory. Apps that have it and the name in common share their rate limits.
        name: what tells its rate limits from those of other apps.
        mounted_at: the one `SCRIPT_NAME` under which the app is served, `/app` say; requests under
            another are refused. Where it is left out, so are requests with a field of that name,
            which some servers take it from.
        clock: seconds since the epoch, for tests.
        engine: the app's own SQLAlchemy engine, or a function that returns it; left out, the
            settings' `database`.

    Raises:
        SettingsError: the settings or the policies cannot be used; it lists every problem.
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
            raise TypeError(f"M9MMiddleware takes a WSGI app, not {type(app).__name__}")
        self._app = app
        self._loaded, self._rules = _read(settings, policies, mounted_at)
        self._mounted_at = None if mounted_at is None else mounted_at.encode().decode("latin-1")
        self._loaded.log()
        if self._loaded.settings.api.enabled:
            logger.warning("api.enabled: M9MMiddleware serves no REST API; a Flask app does")
        self._identity = (name, _instance_path(instance_path, settings))
        self._clock = clock
        self._engine = engine
        self._lock = fork_safe_lock()
        self._made_assembly: Assembly | None = None
        self._prefixes: Prefixes
        self._unrouted: RoutePolicy
        self._guarded = GuardedApp(self._admit, self._prepare, _failed)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self._guarded(environ, start_response)

    def _assembly(self, asking: str = "") -> Assembly:
        """Get the app's assembly, made when it is first needed."""
        return self._made_assembly or self._assemble()

    def _assemble(self) -> Assembly:
        with self._lock:
            if self._made_assembly is None:
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
                self._made_assembly = assembly
            return self._made_assembly

    def _prepare(self) -> Guard:
        guard = self._assembly().guard
        guard.prepare()
        return guard

    def _admit(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Take steps 1 to 7, and step 8 where they let the request through."""
        exchange: Exchange = environ.pop(EXCHANGE)  # no app further in has a part in it
        environ[CLIENT_ADDRESS] = exchange.client.address
        environ[IDENTITY] = None
        guard = self._assembly().guard
        try:
            self._hold(guard, exchange, environ)
        except M9MError as error:
            error.__traceback__ = None  # its frames hold the exchange, which holds it
            known = isinstance(error, Answered) or exchange.refusal is error
            answer = exchange.answer if known else None
            if answer is None:
                answer = guard.render(exchange, error)
            return answer(environ, start_response)
        body = self._app(environ, start_response)
        if isinstance(body, list | tuple) or _is_file(environ, body):
            return body
        return begun(body)  # what fails before its first part can still be answered

    def _hold(self, guard: Guard, exchange: Exchange, environ: WSGIEnvironment) -> None:
        """Hold a request to what its path demands.

        Raises:
            M9MError: it ends here.
        """
        path = path_of(environ, self._mounted_at)

        def find(method: str) -> RoutePolicy:
            return self._unrouted if path is None else self._prefixes.find(path, method)

        policy = find(environ["REQUEST_METHOD"])
        begun = perf_counter_ns() if guard.timed else 0
        try:
            guard.receive(exchange, environ, policy, lambda method: (find(method), None))
            if path is None:
                guard.refuse(exchange, InvalidRequest("The path can be read in several ways"))
            guard.authorize(exchange, environ, policy)
        finally:
            if begun:
                exchange.guard_nanoseconds += perf_counter_ns() - begun

    # What the app asks for

    def authenticator(
        self, scheme: str, *, ambient: bool = False
    ) -> Callable[[Authenticate], Authenticate]:
        """Take a function that adds a scheme of the app's own.

        It gets the environ and returns an `Identity`; `None` where the request has no credential
        of the scheme; or raises `flask_m9m.errors.InvalidCredentials`. Declare it before the
        first request.

        Args:
            scheme: its name in the policies' `schemes`.
            ambient: whether browsers send the credential by themselves, as they do cookies:
                then requests of other sites that change something are refused.

        Raises:
            ValueError: there is a scheme of that name.
            RuntimeError: the app has begun to work already, without it.
        """

        def declare(authenticate: Authenticate) -> Authenticate:
            self._callbacks.add_authenticator(scheme, authenticate, ambient=ambient)
            return authenticate

        return declare

    @property
    def settings(self) -> Settings:
        """The settings."""
        return self._loaded.settings

    @property
    def credentials(self) -> Credentials:
        """Create, read, change and rotate stored credentials; every call names its `caller`."""
        return self._assembly().credentials(_nobody_knows, self._credential_types)


def _read(
    settings: SettingsSource | None,
    policies: Sequence[Mapping[str, Any]],
    mounted_at: str | None,
) -> tuple[Loaded, PrefixRules]:
    """Read the settings and the policies, and name what is wrong with all of it at once."""
    loaded, problems, default = None, list[Problem](), None
    try:
        loaded = load(settings)
        default = Access(loaded.settings.security.default_access)
    except SettingsError as error:
        problems += error.problems
    if mounted_at and (mounted_at == "/" or prefix_problem(mounted_at)):
        accepted = prefix_problem(mounted_at) or "empty where the app is not mounted below"
        problems.append(Problem("mounted_at", ascii(mounted_at), accepted))
    rules, wrong = read_policies(policies, default=default)
    problems += wrong
    if loaded is not None:
        problems += _contradictions(loaded.settings, rules)
    if loaded is None or problems:
        raise SettingsError(problems)
    return loaded, rules


def _contradictions(settings: Settings, rules: PrefixRules) -> list[Problem]:
    """Find what rules say of CORS and headers and the settings do not bear."""
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
    """Tell whether a body is a file, for which the server may have a faster way (PEP 3333)."""
    wrapper = environ.get("wsgi.file_wrapper")
    return hasattr(body, "read") or (isinstance(wrapper, type) and isinstance(body, wrapper))


def _nobody_knows() -> Caller:
    raise RuntimeError(
        'say who asks: caller=environ["m9m.identity"] in a request, or '
        "caller=flask_m9m.credentials.SYSTEM for the app itself"
    )


def _failed() -> None:
    logger.exception("An exception left the app")
