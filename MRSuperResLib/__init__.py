"""MRSuperResLib: super-resolution and contrast translation of MR volumes, in plain Python. Research use only.

Importing this package is cheap on purpose: torch, MONAI and SimpleITK are loaded by the functions that need them.
"""

__version__ = "0.1.0"
