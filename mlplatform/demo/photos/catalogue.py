"""What a photo can show: the categories in their order, and the colours."""

from collections.abc import Callable

from mlplatform.demo.photos import items_for_home, items_to_use, items_to_wear
from mlplatform.demo.photos.pen import Pen, Rgb

# The first N of these are the categories of a set of N.
CATEGORIES: dict[str, Callable[[Pen], None]] = {
    "t-shirt": items_to_wear.t_shirt,
    "dress": items_to_wear.dress,
    "trousers": items_to_wear.trousers,
    "sneaker": items_to_wear.sneaker,
    "handbag": items_to_wear.handbag,
    "mug": items_for_home.mug,
    "bottle": items_for_home.bottle,
    "lamp": items_for_home.lamp,
    "chair": items_for_home.chair,
    "guitar": items_to_use.guitar,
    "umbrella": items_to_wear.umbrella,
    "scissors": items_to_use.scissors,
    "clock": items_for_home.clock,
    "glasses": items_to_wear.glasses,
    "key": items_to_use.key,
    "phone": items_to_use.phone,
    "teapot": items_for_home.teapot,
    "ball": items_to_use.ball,
    "headphones": items_to_use.headphones,
    "hat": items_to_wear.hat,
    "camera": items_to_use.camera,
    "sofa": items_for_home.sofa,
    "watch": items_to_wear.watch,
    "boot": items_to_wear.boot,
    "vase": items_for_home.vase,
    "backpack": items_to_wear.backpack,
    "book": items_for_home.book,
    "skirt": items_to_wear.skirt,
}

COLOURS: dict[str, Rgb] = {
    "black": (38, 38, 42),
    "white": (236, 234, 228),
    "grey": (134, 138, 144),
    "red": (200, 38, 42),
    "orange": (236, 126, 32),
    "yellow": (240, 206, 52),
    "green": (52, 146, 66),
    "teal": (28, 148, 148),
    "blue": (44, 84, 196),
    "purple": (122, 58, 168),
    "pink": (236, 132, 176),
    "brown": (122, 78, 46),
    "beige": (208, 188, 152),
    "navy": (30, 40, 84),
}
