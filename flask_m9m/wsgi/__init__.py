"""The guard in front of any WSGI app: middleware, policies by prefix, and an app's assembly."""
