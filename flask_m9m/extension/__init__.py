"""The Flask extension: `M9M`, decorators, request hooks, request context and the REST API."""
