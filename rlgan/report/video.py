"""Writes pictures of an agent at work as an H.264 film that every browser plays."""

from __future__ import annotations

import math
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from rlgan.errors import PluginError, UsageError

HEIGHT = 480
"""Least height of the picture, in pixels."""
BACKGROUND, INK = (24, 24, 27), (244, 244, 245)


class Video:
    """A film of frames of one size, enlarged by a whole number, over a strip of text.

    Args:
        path: Of the mp4, which appears when the film is closed.
        fps: Frames per second.
        size: (height, width) of the frames.

    Raises:
        PluginError: Where the extra ``video`` is missing.
        UsageError: When the film cannot be written.
    """

    def __init__(self, path: Path, fps: float, size: tuple[int, int]) -> None:
        self._cv2, ffmpeg = _libraries()
        self.path, self.size = Path(path), size
        # A name of its own while it grows: an mp4 that was never closed does not play.
        self._partial = self.path.with_name(f"{self.path.stem}.partial.mp4")
        self._zoom = max(1, math.ceil(HEIGHT / size[0]))
        height, width = size[0] * self._zoom, size[1] * self._zoom
        self._strip = 2 * round(height / 24)
        self._canvas = np.zeros((_even(height) + self._strip, _even(width), 3), np.uint8)
        self._writer = ffmpeg.write_frames(
            str(self._partial),
            (self._canvas.shape[1], self._canvas.shape[0]),
            fps=fps,
            codec="libx264",
            pix_fmt_out="yuv420p",
            macro_block_size=2,
            quality=None,
            output_params=["-crf", "20", "-preset", "veryfast", "-movflags", "+faststart"],
            ffmpeg_log_level="error",
        )
        self._write(None)

    def add(self, frame: np.ndarray, text: str = "") -> None:
        """Append a uint8 (H, W, 3) frame with ``text`` beneath it."""
        if frame.shape != (*self.size, 3) or frame.dtype != np.uint8:
            raise UsageError(
                f"A frame of {self.path.name} is {frame.dtype} {frame.shape}; it must be uint8 {(*self.size, 3)}."
            )
        canvas, cv2 = self._canvas, self._cv2
        canvas[:] = BACKGROUND
        big = frame.repeat(self._zoom, axis=0).repeat(self._zoom, axis=1)
        canvas[: big.shape[0], : big.shape[1]] = big
        font, margin = cv2.FONT_HERSHEY_SIMPLEX, self._strip // 3
        scale = self._strip / 64
        (width, height), _ = cv2.getTextSize(text, font, scale, 1)
        if width > canvas.shape[1] - 2 * margin:
            scale *= (canvas.shape[1] - 2 * margin) / width
            (width, height), _ = cv2.getTextSize(text, font, scale, 1)
        baseline = canvas.shape[0] - (self._strip - height) // 2
        cv2.putText(canvas, text, (margin, baseline), font, scale, INK, 1, cv2.LINE_AA)
        self._write(canvas.tobytes())

    def close(self) -> None:
        """Finish the film and give it its name."""
        self._writer.close()
        if not self._partial.exists():
            raise UsageError(f"The film {self.path} could not be written.")
        try:
            os.replace(self._partial, self.path)
        except OSError as error:
            self._partial.unlink(missing_ok=True)
            raise UsageError(f"The film {self.path} could not be written: {error.strerror or error}.") from error

    def __enter__(self) -> Video:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self.close()
        else:
            self._writer.close()
            self._partial.unlink(missing_ok=True)

    def _write(self, data: Any) -> None:
        try:
            self._writer.send(data)
        except (OSError, RuntimeError, StopIteration) as error:
            raise UsageError(f"The film {self.path} could not be written: {error}") from error


def _even(pixels: int) -> int:
    return pixels + pixels % 2


def _libraries() -> tuple[ModuleType, ModuleType]:
    try:
        import cv2
        import imageio_ffmpeg
    except ImportError as error:
        raise PluginError(f'Films need {error.name}: pip install "rlgan[video]"') from error
    return cv2, imageio_ffmpeg
