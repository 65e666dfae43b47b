"""The API in Django: gunicorn django_app:application."""

from __future__ import annotations

import json
from pathlib import Path

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.http import require_POST, require_safe
from policies import POLICIES

from flask_m9m import M9MMiddleware

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["localhost", "127.0.0.1"])


@require_safe
def public(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"open": True})


@require_safe
def me(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"subject": request.META["m9m.identity"].subject})


@require_safe
def admin(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"admin": request.META["m9m.identity"].subject})


@require_POST
def create_item(request: HttpRequest) -> HttpResponse:
    owner = request.META["m9m.identity"].subject
    return JsonResponse({"item": json.loads(request.body), "owner": owner}, status=201)


@require_safe
def stream(request: HttpRequest) -> StreamingHttpResponse:
    lines = (f"{number}\n" for number in range(3))
    return StreamingHttpResponse(lines, content_type="text/plain")


@require_safe
def fail(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("a defect")


urlpatterns = [
    path("public", public),
    path("me", me),
    path("admin", admin),
    path("items", create_item),
    path("stream", stream),
    path("fail", fail),
]

application = M9MMiddleware(
    get_wsgi_application(),
    settings=Path(__file__).with_name("config.yaml"),
    policies=POLICIES,
    name="django",
)
