"""Encryption of stored credentials: envelopes, and the keys that seal them."""
