"""JSON Web Tokens: signing keys, issuing and verification."""
