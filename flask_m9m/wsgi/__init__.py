"""WSGI: middleware for any WSGI app, policies by path prefix, and the assembly of one app."""
