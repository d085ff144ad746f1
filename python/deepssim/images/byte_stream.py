"""Bytes that come one after the other and cannot be read again: a pipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from deepssim.errors import StreamError

__all__ = ["ByteStream"]

# Taken at a time: a declared length costs no memory before the bytes are there.
_PIECE_BYTES = 2**22


class ByteStream:
    """A binary file that is read forwards, whose place is known.

    Args:
        file: Open for reading; may give fewer bytes than were asked for.

    Attributes:
        offset: Bytes taken so far.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._ahead = b""
        self.offset = 0

    def peek(self, n_bytes: int) -> bytes:
        """Return the next bytes without taking them; fewer at the end of the stream.

        Raises:
            StreamError: It cannot be read.
        """
        while len(self._ahead) < n_bytes:
            try:
                more = self._file.read(n_bytes - len(self._ahead))
            except (OSError, ValueError) as error:
                raise StreamError(f"the stream cannot be read: {error}") from error
            if not more:
                break
            self._ahead += more
        return self._ahead[:n_bytes]

    def take(self, n_bytes: int, what: str) -> bytes:
        """Return exactly so many bytes.

        Args:
            n_bytes: How many.
            what: They belong to, for the message.

        Raises:
            StreamError: The stream ends before.
        """
        pieces: list[bytes] = []
        self._pass(n_bytes, what, pieces.append)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def skip(self, n_bytes: int, what: str) -> None:
        """Pass over so many bytes, in constant memory.

        Raises:
            StreamError: The stream ends before.
        """
        self._pass(n_bytes, what, lambda _: None)

    def _pass(self, n_bytes: int, what: str, use: Callable[[bytes], object]) -> None:
        missing = n_bytes
        while missing:
            wanted = min(missing, _PIECE_BYTES)
            piece = self.peek(wanted)
            self._ahead = self._ahead[len(piece) :]
            self.offset += len(piece)
            missing -= len(piece)
            if len(piece) < wanted:
                raise StreamError(
                    f"the stream breaks off inside {what}, after {self.offset:,} bytes: what writes it ended early"
                )
            use(piece)
