"""Pictures of signs: what stands on them, and how they are drawn, by a seed.

What stands on a sign decides where it may be used. Strings are divided by a hash, and words by a list (``WORDS``): the
tasks draw the ones, and whoever trains a tower draws the others. So no string of a task has been seen by a tower, and
a word of a task is one that its tower has never read.
"""

import functools
import hashlib
import random
import string
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

HEIGHT, WIDTH = 32, 128  # pixels
CHARACTERS = string.digits + string.ascii_letters + ".$+"  # what a sign has, beside spaces
FACES = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSerif", "DejaVuSerif-Bold")
SIZES = (15, 21)  # of a face, in pixels: smallest, largest
HELD_OUT = 64  # of 256: the share of the strings that are kept for the tasks

_COUNTRIES = (
    "France Paris, Germany Berlin, Italy Rome, Spain Madrid, Russia Moscow, China Beijing, Japan Tokyo, Egypt Cairo, "
    "Greece Athens, Austria Vienna, Poland Warsaw, Ireland Dublin, Norway Oslo, Cuba Havana, Peru Lima, Iran Tehran, "
    "Hungary Budapest, Belgium Brussels, England London, Kenya Nairobi"
)
CAPITALS = {pair.split()[0]: pair.split()[1] for pair in _COUNTRIES.split(", ")}
MONTHS = "January February March April May June July August September October November December".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
# Words of the tasks' signs. A tower is trained on others.
WORDS = tuple(
    (
        "anchor apple arrow bacon baker banana barber barn basket beach beard bench berry bicycle bird biscuit blanket "
        "blood boat bottle bowl bread bridge broom brush bucket bus butter button cabin cable cactus cake camel "
        "camera candle candy canoe carpet carrot castle cattle chain chair chalk cheese cherry chicken church circle "
        "circus clay clock cloud clown coach coast cotton cousin cradle cream crown cup curtain dairy dance danger "
        "dealer deer dentist desert diamond dinner dirt doctor doll donkey door dragon drum duck dust eagle elbow "
        "engine exit fabric farm feather fence ferry finger fire fish flag flame flour flower forest fork fox frog "
        "fruit garage garden garlic gate ghost glove goat goose grape grass guitar hammer harbor harvest hat hawk "
        "helmet herring honey horse hotel hunter ice island jacket jar jelly jewel juice kettle kitchen kitten knife "
        "ladder lake lamp lantern leaf leather lemon letter lettuce library lion lizard magnet maple marble market "
        "meadow melon mirror monkey mother motor museum needle nest noodle ocean olive onion orange oven owl paint "
        "palace paper parade parrot pastry peach peanut pear pearl pebble pencil pepper piano picnic pigeon pillow "
        "pirate plate plum pocket police pond pony potato prison pumpkin puppet purple purse queen rabbit rain razor "
        "ribbon rice river rocket roof rope rose saddle salad salmon salt sand scarf school seed sheep shirt shovel "
        "silver singer skirt snail snow soap soldier soup spider spoon stable station sugar summer sunset swan table "
        "tailor tea temple tiger tobacco toilet tomato torch towel toy tractor trail tram tunnel turkey turtle "
        "umbrella uncle valley velvet violin wagon walnut water wheat wheel whistle window winter wizard wolf wool "
        "yard zebra"
    ).split()
)
KNOWN = frozenset(word.lower() for word in (*WORDS, *CAPITALS, *CAPITALS.values(), *MONTHS, *DAYS))


def held_out(text: str) -> bool:
    """Whether a string without words is kept for the tasks."""
    return hashlib.sha256(text.lower().encode()).digest()[0] < HELD_OUT


def cased(word: str, draw: random.Random) -> str:
    return draw.choice([str.upper, str.title, str.lower])(word)


def number(draw: random.Random, most: int = 4) -> str:
    """A number of two to ``most`` digits; each length is as likely."""
    digits = draw.randint(2, most)
    return str(draw.randint(10 ** (digits - 1), 10**digits - 1))


def price(draw: random.Random) -> str:
    return f"{draw.randint(1, 99)}.{draw.randint(0, 99):02d}"


def plate(draw: random.Random) -> str:
    return "".join(draw.choice(string.ascii_uppercase) for _ in range(2)) + " " + number(draw, 3)


def pair(draw: random.Random) -> str:
    return f"{number(draw, 3)} {number(draw, 3)}"


def sum_of_two(draw: random.Random) -> str:
    return f"{draw.randint(1, 40)} + {draw.randint(1, 40)}"


FORMS = (number, lambda draw: f"${price(draw)}", plate, pair, sum_of_two)


def unread(draw: random.Random, words: Sequence[str]) -> str:
    """What stands on a sign that a tower is trained on: no word and no string of the tasks. words: to draw from."""
    while True:
        kind = draw.random()
        if kind < 0.35:
            text = cased(draw.choice(words), draw)
        elif kind < 0.5:
            letters = string.ascii_letters if draw.random() < 0.3 else string.ascii_lowercase
            text = "".join(draw.choice(letters) for _ in range(draw.randint(2, 7)))
            text = text.upper() if draw.random() < 0.3 else text
        elif kind < 0.6:
            short = draw.choice(words)[:6]
            text = f"{cased(short, draw)} {number(draw, 3)}"
        else:
            text = draw.choice(FORMS)(draw)
            if held_out(text):
                continue
        if not any(part.lower() in KNOWN for part in text.split()):
            return text


@functools.cache
def _face(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf" / f"{name}.ttf"), size)


def draw_sign(text: str, draw: random.Random) -> np.ndarray:
    """A sign, (HEIGHT, WIDTH, 3) of bytes: a face and a size, two colors, a place, a slant, blur, noise, a shade."""
    light = draw.random() < 0.5
    back = tuple(draw.randint(150, 255) if light else draw.randint(0, 105) for _ in range(3))
    fore = tuple(draw.randint(0, 90) if light else draw.randint(165, 255) for _ in range(3))
    name, size = draw.choice(FACES), draw.randint(*SIZES)
    left, top, right, bottom = _face(name, size).getbbox(text)
    while right - left > WIDTH - 8 and size > 9:
        size -= 1
        left, top, right, bottom = _face(name, size).getbbox(text)
    wide, high = right - left, bottom - top
    x, y = draw.uniform(2, max(2, WIDTH - wide - 2)), draw.uniform(2, max(2, HEIGHT - high - 2))
    image = Image.new("RGB", (WIDTH, HEIGHT), back)
    pen = ImageDraw.Draw(image)
    if draw.random() < 0.3:
        pen.rectangle((x - 3, y - 3, x + wide + 3, y + high + 3), outline=fore)
    pen.text((x - left, y - top), text, fill=fore, font=_face(name, size))
    image = image.rotate(
        draw.uniform(-2, 2), Image.Resampling.BILINEAR, center=(x + wide / 2, y + high / 2), fillcolor=back
    )
    if draw.random() < 0.2:
        image = image.filter(ImageFilter.GaussianBlur(draw.uniform(0.3, 0.7)))
    noise = np.random.default_rng(draw.getrandbits(32)).normal(0, draw.uniform(0, 14), (HEIGHT, WIDTH, 3))
    shade = np.linspace(-1, 1, WIDTH)[None, :, None] * draw.uniform(-20, 20)
    return (np.asarray(image, np.float32) + noise + shade).clip(0, 255).astype(np.uint8)
