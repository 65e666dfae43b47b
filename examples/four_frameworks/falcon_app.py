"""The API in Falcon: gunicorn falcon_app:application."""

from __future__ import annotations

from pathlib import Path

import falcon
from policies import POLICIES

from flask_m9m import M9MMiddleware


class Public:
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.media = {"open": True}

    on_head = on_get


class Me:
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.media = {"subject": req.env["m9m.identity"].subject}


class Admin:
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.media = {"admin": req.env["m9m.identity"].subject}


class Items:
    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.status = falcon.HTTP_201
        resp.media = {"item": req.get_media(), "owner": req.env["m9m.identity"].subject}


class Stream:
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.content_type = falcon.MEDIA_TEXT
        resp.stream = (b"%d\n" % number for number in range(3))


class Fail:
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        raise RuntimeError("a defect")


app = falcon.App()
app.add_route("/public", Public())
app.add_route("/me", Me())
app.add_route("/admin", Admin())
app.add_route("/items", Items())
app.add_route("/stream", Stream())
app.add_route("/fail", Fail())

application = M9MMiddleware(
    app, settings=Path(__file__).with_name("config.yaml"), policies=POLICIES, name="falcon"
)
