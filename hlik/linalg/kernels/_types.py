"""Array types in the annotations of kernels."""

from ..patterns import Float, Int32, Int64

__all__ = ["Float", "Int32", "Int64"]
