"""Authentication schemes: one module per scheme, and the interface that all have."""
