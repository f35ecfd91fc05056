"""The engine below the layers: primitives, the tape, named parameters, taps, architectures."""
