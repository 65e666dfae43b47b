"""Guard: the security pipeline of every request and response, and the marks it enforces."""
