"""Zstandard files as streams that notice when their end is missing."""

import io

import zstandard

READ_BYTES = 4096  # compressed; they may become a few thousand times as many at once


class ZstdReader(io.RawIOBase):
    """What the frames of `raw` hold, one behind another. ZstdError when the file ends inside one of them."""

    def __init__(self, raw):
        self._raw = raw
        self._decompressor = zstandard.ZstdDecompressor()
        self._frame = None
        self._ready = memoryview(b"")

    def readable(self):
        return True

    def readinto(self, buffer):
        while not self._ready:
            data = (self._frame.unused_data if self._frame and self._frame.eof else b"") or self._raw.read(READ_BYTES)
            if not data:
                if self._frame and not self._frame.eof:
                    raise zstandard.ZstdError("the file ends inside a frame")
                return 0
            if self._frame is None or self._frame.eof:
                self._frame = self._decompressor.decompressobj()
            self._ready = memoryview(self._frame.decompress(data))
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count
