"""What serves an app under gunicorn: TLS from the settings, and a worker no client can hold up."""
