"""A small workflow API in the manner of m9m, secured by flask-m9m.

Run it with a secret of its own:

    export M9M_JWT_SECRET=$(flask m9m secret) M9M_ENCRYPTION_KEY=$(flask m9m secret)
    flask --app examples/workflows_api/app.py m9m user create ann --scope workflow:read
    flask --app examples/workflows_api/app.py run

It serves the REST API under `/api/v1` (login, API keys, credentials) and `/health` as well.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

from flask import Flask, abort, request

from flask_m9m import M9M, current_identity, rate_limit, require_auth
from flask_m9m.credentials import Credential

app = Flask(__name__)
m9m = M9M(app, settings=Path(__file__).with_name("config.yaml"))

workflows: dict[int, dict[str, Any]] = {1: {"id": 1, "name": "Nightly report", "owner": "ann"}}
ids = count(2)


@m9m.credential_checker("slackApi")
def is_a_bots_token(credential: Credential) -> bool:
    """Tell whether it looks like one; an app with a network would ask Slack."""
    return str(credential.data["accessToken"]).startswith("xoxb-")


@app.get("/workflows")
@require_auth(scopes="workflow:read")
def list_workflows() -> dict[str, Any]:
    return {"data": list(workflows.values()), "total": len(workflows)}


@app.post("/workflows")
@require_auth(scopes="workflow:write")
def create_workflow() -> tuple[dict[str, Any], int]:
    body = request.get_json()
    if not isinstance(body, dict) or not isinstance(body.get("name"), str):
        abort(400, "a workflow has a name")
    workflow = {"id": next(ids), "name": body["name"], "owner": current_identity.subject}
    workflows[workflow["id"]] = workflow
    return workflow, 201


@app.post("/workflows/<int:workflow_id>/run")
@require_auth(scopes="workflow:run")
@rate_limit("6/minute", burst=3, key="identity")
def run_workflow(workflow_id: int) -> tuple[dict[str, Any], int]:
    if workflow_id not in workflows:
        abort(404)
    return {"workflow": workflow_id, "status": "started", "by": current_identity.subject}, 202


@app.delete("/workflows/<int:workflow_id>")
@require_auth(roles="admin")
def delete_workflow(workflow_id: int) -> tuple[str, int]:
    if workflows.pop(workflow_id, None) is None:
        abort(404)
    return "", 204
