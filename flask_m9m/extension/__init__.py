"""The Flask extension: M9M, decorators, hooks, and what a view can ask about its request."""
