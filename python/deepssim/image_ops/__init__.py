"""Image operations of the C++ core, one subject a module."""

from __future__ import annotations

from deepssim.image_ops.resize import resize_area

__all__ = ["resize_area"]
