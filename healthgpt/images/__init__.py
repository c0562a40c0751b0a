"""Any image, medical or not, to pixels with their geometry, and to the square RGB that the model takes.

`read_scan` reads, `look` chooses slice and window, `read_image` does both. Refused, with the reason: what cannot be
read, volumes of which no slice is chosen, and values of which nobody can know what is black and what is white. Nothing
is ever clipped unasked or replaced by a blank image.
"""

from healthgpt.images.pictures import FORMATS
from healthgpt.images.reading import ImageSource, describe, read_image, read_images, read_scan, see
from healthgpt.images.saving import format_of, pad_to_square, save_image
from healthgpt.images.scan import Plane, Scan
from healthgpt.images.view import Seen, View, look

__all__ = [
    "FORMATS",
    "ImageSource",
    "Plane",
    "Scan",
    "Seen",
    "View",
    "describe",
    "format_of",
    "look",
    "pad_to_square",
    "read_image",
    "read_images",
    "read_scan",
    "save_image",
    "see",
]
