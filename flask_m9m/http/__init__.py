"""HTTP rules without state: client addresses behind proxies, CORS, CSRF, security headers."""
