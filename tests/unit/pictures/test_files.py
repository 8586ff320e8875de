"""Pictures as they are given: read within bounds, refused in one sentence."""

import base64

import numpy as np
import pytest
from PIL import Image

from pipeline.core.errors import UserError
from pipeline.pictures.files import PIXELS, opened, png, stored, suffix, thumbnail, url

PICTURE = png(np.arange(32 * 20 * 3, dtype=np.uint8).reshape(20, 32, 3))


def test_a_picture_is_the_same_from_a_file_and_from_a_data_url(tmp_path):
    (tmp_path / "a.png").write_bytes(PICTURE)
    assert stored(str(tmp_path / "a.png")) == stored(url(PICTURE)) == PICTURE
    assert np.array_equal(np.asarray(opened(PICTURE)), np.arange(32 * 20 * 3, dtype=np.uint8).reshape(20, 32, 3))


BAD = {
    "a truncated PNG": (PICTURE[: len(PICTURE) // 2], "expected a whole picture"),
    "a text file": (b"What does the sign say?", "expected a whole picture"),
    "nothing": (b"", "expected a whole picture"),
}


@pytest.mark.parametrize(("data", "said"), BAD.values(), ids=BAD)
def test_what_cannot_be_seen_is_one_sentence(data, said):
    with pytest.raises(UserError, match=said) as raised:
        opened(data)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 300


def test_a_huge_picture_is_refused_before_it_is_unpacked(tmp_path):
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    data = (tmp_path / "huge.png").read_bytes()
    assert len(data) < 1 << 20 and PIXELS < 20_000**2
    with pytest.raises(UserError, match="million pixels, got a far larger one"):
        opened(data)
    Image.new("1", (8_000, 8_000)).save(tmp_path / "large.png")
    with pytest.raises(UserError, match="got 8000 × 8000"):
        opened((tmp_path / "large.png").read_bytes())


NAMED = {
    "a URL": ("https://example.org/sign.png", "nothing is fetched"),
    "a file's URL": ("file:///etc/hosts", "nothing is fetched"),
    "no file": ("there/is/none.png", "which is none"),
    "a folder": (".", "which is none"),
    "no base64": ("data:image/png;base64,§§", "expected base64"),
    "a data URL of text": ("data:text/plain,hello", "nothing is fetched"),
}


@pytest.mark.parametrize(("name", "said"), NAMED.values(), ids=NAMED)
def test_what_is_no_picture_is_refused_by_its_name(name, said):
    with pytest.raises(UserError, match=said):
        stored(name)


def test_a_picture_of_another_format_is_refused(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.bmp")
    with pytest.raises(UserError, match="give a PNG, JPEG or WEBP picture"):
        opened((tmp_path / "a.bmp").read_bytes())


def test_a_page_shows_small_pictures_as_they_are_and_large_ones_made_small(tmp_path):
    assert thumbnail(PICTURE) == url(PICTURE)
    Image.new("RGB", (2000, 1000)).save(tmp_path / "a.png")
    small = base64.b64decode(thumbnail((tmp_path / "a.png").read_bytes()).partition(",")[2])
    assert opened(small).size == (256, 128) and suffix(small) == "jpg"
