"""What serves an app under gunicorn: TLS from the settings, and a worker no client can hold up."""

HANDED_ON = "_FLASK_M9M_SERVER"
"""The variable in which `flask m9m serve` hands the app's own `server` settings on, as JSON."""

REMEDY = "run: pip install 'flask-m9m[serve]'"
