"""The server: TLS from the settings under gunicorn, and a worker that slow clients cannot block."""

SERVER_SETTINGS_VARIABLE = "_FLASK_M9M_SERVER"
"""The environment variable in which `flask m9m serve` passes `server` settings on, in JSON."""

REMEDY = "run: pip install 'flask-m9m[serve]'"
