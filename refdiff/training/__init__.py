"""Training with the tape: losses, AdamW, EMA, data, and a loop that can be stopped at any moment."""
