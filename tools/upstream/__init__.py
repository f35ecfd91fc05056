"""The cases of the conformance suite by pinned upstream: torch, diffusers and transformers (the `parity` extra)."""
