"""Rules of HTTP without state: client addresses, CORS, CSRF and header fields."""
