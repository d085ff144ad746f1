"""Pieces of ONNX graphs that stand before and after an encoder: grey values in, rows of unit norm out.

Nodes suit the version of operators that the encoder was exported with: axes became an input in version 18.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from deepssim.extras import require

__all__ = ["LEAST_OPSET", "Parts"]

# Where and Flatten as they are used here.
LEAST_OPSET = 9
_AXES_AS_INPUT = 18
# Below this a row has no direction.
_TINY = 1e-30


class Parts:
    """A list of nodes and constants that grows.

    Args:
        opset: Version of ONNX operators.
        prefix: Of all names that are made.

    Attributes:
        nodes: In order.
        constants: Initializers.
    """

    def __init__(self, opset: int, prefix: str) -> None:
        self._onnx = require("onnx", "cpu")
        self._opset, self._prefix = opset, prefix
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def _name(self, kind: str) -> str:
        return f"{self._prefix}{kind}.{len(self.nodes) + len(self.constants)}"

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        """Add a constant; returns its name."""
        name = self._name("constant")
        self.constants.append(self._onnx.numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def node(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add a node of one output; returns the output's name."""
        name = self._name(kind)
        self.nodes.append(self._onnx.helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def reduced(self, kind: str, given: str, axes: Sequence[int]) -> str:
        """Reduce axes, which stay with length 1."""
        if self._opset >= _AXES_AS_INPUT:
            return self.node(kind, [given, self.constant(axes, np.int64)], keepdims=1)
        return self.node(kind, [given], axes=list(axes), keepdims=1)

    def normalised(self, given: str, means: Sequence[float], deviations: Sequence[float]) -> str:
        """Subtract from images ``(n, 1, h, w)``, then divide by, one number for each channel that comes out."""
        by_channel = [np.asarray(values, np.float32).reshape(1, -1, 1, 1) for values in (means, deviations)]
        centred = self.node("Sub", [given, self.constant(by_channel[0])])
        return self.node("Div", [centred, self.constant(by_channel[1])])

    def min_max(self, given: str) -> str:
        """Bring each image ``(n, c, h, w)`` to [0, 1]; a constant one becomes 0."""
        axes = (1, 2, 3)
        low, high = (self.reduced(kind, given, axes) for kind in ("ReduceMin", "ReduceMax"))
        above = self.node("Sub", [given, low])
        return self.node("Div", [above, self._or_one(self.node("Sub", [high, low]))])

    def z_score(self, given: str) -> str:
        """Subtract the mean of each image and divide by its standard deviation; a constant one becomes 0."""
        axes = (1, 2, 3)
        # By the range first: squares of 16-bit values or of CT numbers would lose what differs.
        unit = self.min_max(given)
        centred = self.node("Sub", [unit, self.reduced("ReduceMean", unit, axes)])
        variance = self.reduced("ReduceMean", self.node("Mul", [centred, centred]), axes)
        return self.node("Div", [centred, self._or_one(self.node("Sqrt", [variance]))])

    def unit_rows(self, given: str, *, is_centred: bool) -> str:
        """Scale rows ``(n, dim)`` to unit norm; a row of zeros stays.

        Args:
            given: Rows.
            is_centred: Whether the mean of each row is subtracted first: the inner product is a correlation.
        """
        # By the largest magnitude first, so that no sum of squares overflows.
        peak = self.reduced("ReduceMax", self.node("Abs", [given]), (1,))
        rows = self.node("Div", [given, self._or_one(peak)])
        if is_centred:
            # Twice: the first mean of values with a large offset is itself rounded.
            for _ in range(2):
                rows = self.node("Sub", [rows, self.reduced("ReduceMean", rows, (1,))])
        norm = self.reduced("ReduceL2", rows, (1,))
        return self.node("Div", [rows, self.node("Max", [norm, self.constant(_TINY)])])

    def without_flat(self, given: str, images: str) -> str:
        """Put zeros in place of the rows ``(n, dim)`` of images ``(n, dim)`` that are constant."""
        low, high = (self.reduced(kind, images, (1,)) for kind in ("ReduceMin", "ReduceMax"))
        return self.node("Where", [self.node("Greater", [high, low]), given, self.constant(0.0)])

    def _or_one(self, given: str) -> str:
        is_positive = self.node("Greater", [given, self.constant(0.0)])
        return self.node("Where", [is_positive, given, self.constant(1.0)])
