"""One Flask extension that secures an HTTP API."""

__version__ = "0.1.0"
