"""The guard: the one pipeline of every request and response, and the marks it enforces."""
