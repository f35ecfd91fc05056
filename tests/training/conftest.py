"""The mode "fast" is the CPU kernels' mode: they are registered by their import."""

import refdiff.kernels.cpu  # noqa: F401
