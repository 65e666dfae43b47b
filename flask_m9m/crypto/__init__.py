"""Encryption of stored credentials: keys, envelopes and n8n's formats."""
