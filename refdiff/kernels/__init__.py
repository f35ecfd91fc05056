"""Fast substitutes for operations; never needed to understand one. Importing a sub-package registers its kernels."""
