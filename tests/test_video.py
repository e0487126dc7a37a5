from __future__ import annotations

import sys

import numpy as np
import pytest

from rlgan.errors import PluginError, UsageError
from rlgan.report.video import Video

ffmpeg = pytest.importorskip("imageio_ffmpeg")
pytest.importorskip("cv2")


def film(path) -> tuple[dict, list[np.ndarray]]:
    reader = ffmpeg.read_frames(str(path))
    meta = next(reader)
    width, height = meta["size"]
    return meta, [np.frombuffer(data, np.uint8).reshape(height, width, 3) for data in reader]


def test_a_film_is_h264_in_even_sizes_with_the_frames_and_the_text(tmp_path):
    frames = [np.zeros((105, 81, 3), np.uint8) for _ in range(12)]
    for i, frame in enumerate(frames):
        frame[:, :27], frame[:, 27:54], frame[i, 54:] = (200, 40, 40), (40, 40, 200), 255
    with Video(tmp_path / "play.mp4", 15, (105, 81)) as video:
        for i, frame in enumerate(frames):
            video.add(frame, f"score {i}   step {i * 100}")
    meta, shown = film(tmp_path / "play.mp4")
    assert meta["codec"] == "h264" and meta["pix_fmt"].startswith("yuv420p") and meta["fps"] == 15
    # 105 x 81 five times enlarged is 525 x 405, made even, with a strip of a twelfth below.
    assert meta["size"] == (406, 526 + 44) and len(shown) == 12
    for i, picture in enumerate(shown):
        assert np.abs(picture[300, 60].astype(int) - (200, 40, 40)).max() < 12
        assert np.abs(picture[300, 200].astype(int) - (40, 40, 200)).max() < 12
        assert picture[i * 5 + 2, 330].min() > 200 and picture[(i + 4) * 5, 330].max() < 60
        strip = picture[530:]
        assert strip[:, :150].max() > 200 and np.median(strip) < 40
        assert strip[:, -10:].max() < 60, "the text stays inside"
    assert not np.array_equal(shown[0][530:], shown[11][530:])
    assert [path.name for path in tmp_path.iterdir()] == ["play.mp4"]


def test_long_text_is_made_to_fit(tmp_path):
    with Video(tmp_path / "play.mp4", 30, (64, 64)) as video:
        video.add(np.zeros((64, 64, 3), np.uint8), "score 123456   " * 12)
    _, (picture,) = film(tmp_path / "play.mp4")
    assert picture.shape == (512 + 42, 512, 3)
    assert picture[512:, :40].max() > 100 and picture[512:, -8:].max() < 60


def test_large_frames_keep_their_size(tmp_path):
    with Video(tmp_path / "play.mp4", 30, (480, 640)) as video:
        video.add(np.zeros((480, 640, 3), np.uint8))
    meta, _ = film(tmp_path / "play.mp4")
    assert meta["size"] == (640, 520)


def test_a_film_that_breaks_off_leaves_nothing(tmp_path):
    sentence = r"A frame of play\.mp4 is uint8 \(4, 4, 3\); it must be uint8 \(64, 64, 3\)"
    with pytest.raises(UsageError, match=sentence), Video(tmp_path / "play.mp4", 30, (64, 64)) as video:
        video.add(np.zeros((64, 64, 3), np.uint8))
        video.add(np.zeros((4, 4, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_a_film_that_cannot_be_written_says_so(tmp_path):
    path = tmp_path / "missing" / "play.mp4"
    sentence = f"The film {path} could not be written"
    with pytest.raises(UsageError, match=sentence), Video(path, 30, (64, 64)) as video:
        for _ in range(200):
            video.add(np.zeros((64, 64, 3), np.uint8))


def test_a_film_whose_name_is_a_folder_leaves_nothing(tmp_path):
    (tmp_path / "play.mp4").mkdir()
    with pytest.raises(UsageError, match="could not be written"), Video(tmp_path / "play.mp4", 30, (64, 64)) as video:
        video.add(np.zeros((64, 64, 3), np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ["play.mp4"]


@pytest.mark.parametrize("library", ["cv2", "imageio_ffmpeg"])
def test_a_missing_library_names_the_extra(library, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(PluginError, match=rf'Films need {library}: pip install "rlgan\[video\]"'):
        Video(tmp_path / "play.mp4", 30, (64, 64))
