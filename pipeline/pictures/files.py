"""Pictures as somebody gives them: a file's path, or a data URL. They are read within bounds, and never fetched."""

import base64
import binascii
import io
import re
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from pipeline.core.errors import UserError

FORMATS = ("PNG", "JPEG", "WEBP")
BYTES = 20 << 20  # of a picture as it is stored
PIXELS = 32 << 20  # of a picture as it is seen
SMALL = 256  # pixels, of the longer side of a picture on a page
REMEDY = f"give a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} picture"
_DATA = re.compile(r"data:(?:image/[\w.+-]+)?(?:;[\w=-]+)*;base64,", re.IGNORECASE)
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+:")


def stored(picture: str) -> bytes:
    """The bytes of a picture. picture: a path, or a data URL in base64. UserError where there is none of them."""
    named = repr(picture[:60])
    if found := _DATA.match(picture):
        if (len(picture) - found.end()) * 3 // 4 > BYTES:
            raise UserError(
                f"expected a picture of at most {BYTES >> 20} MB, got a larger one; {REMEDY} that is smaller"
            )
        try:
            return base64.b64decode(picture[found.end() :], validate=True)
        except (binascii.Error, ValueError):
            raise UserError(f"expected base64 in the data URL of a picture, got {named}; encode it anew") from None
    if _SCHEME.match(picture):
        raise UserError(
            f"expected a picture as a file or as a data URL in base64, got {named}: nothing is fetched from a network; "
            "send the picture itself"
        )
    path = Path(picture)
    if not path.is_file():
        raise UserError(f"expected a picture in the file {picture[:200]}, which is none; name another")
    if path.stat().st_size > BYTES:
        raise UserError(f"expected a picture of at most {BYTES >> 20} MB in {path}, got more; {REMEDY} that is smaller")
    return path.read_bytes()


def opened(data: bytes, named: str = "the picture") -> Image.Image:
    """A picture in RGB. data: as it is stored. named: for the error. UserError where nothing can be seen."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures: they are refused below
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
            wide, high = picture.size
            if wide * high > PIXELS:
                raise UserError(
                    f"expected a picture of at most {PIXELS >> 20} million pixels, got {wide} × {high} in {named}; "
                    "make it smaller"
                )
            return picture.convert("RGB")
    except UserError:
        raise
    except Image.DecompressionBombError:  # so large that the library itself refuses
        raise UserError(
            f"expected a picture of at most {PIXELS >> 20} million pixels, got a far larger one in {named}; make it "
            "smaller"
        ) from None
    except Exception as error:  # a decoder says in its own way what a damaged file is to it
        known = not isinstance(error, UnidentifiedImageError)
        said = " ".join(str(error).split())[:100] if known else "something else"
        raise UserError(f"expected a whole picture in {named}, got: {said}; {REMEDY}") from None


def png(pixels: np.ndarray) -> bytes:
    """A picture as PNG. pixels: (high, wide, 3) of bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def url(data: bytes) -> str:
    """The data URL of a picture. data: as it is stored."""
    kind = {"jpg": "jpeg"}.get(suffix(data), suffix(data))
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def thumbnail(data: bytes) -> str:
    """The data URL of a picture that is at most ``SMALL`` pixels wide and high; a smaller one stays as it is."""
    picture = opened(data)
    if max(picture.size) <= SMALL:
        return url(data)
    picture.thumbnail((SMALL, SMALL))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def suffix(data: bytes) -> str:
    """What the name of a picture's file ends with. data: as it is stored."""
    return "jpg" if data[:2] == b"\xff\xd8" else "webp" if data[8:12] == b"WEBP" else "png"
