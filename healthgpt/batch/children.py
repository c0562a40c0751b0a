"""What other processes do for a batch, without torch: they belong to the one that started them, and read images."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Sequence

from PIL import Image

from healthgpt.images import ImageSource, View, read_images


def belong_to_parent() -> None:
    """Leaves interrupts to the parent, and ends when the parent is gone, however it went."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, name="healthgpt-parent", daemon=True).start()


def read_pictures(images: Sequence[ImageSource], view: View) -> list[Image.Image]:
    """All pictures of some images, in order.

    Raises:
        FileNotFoundError, ValueError, OSError: an image that cannot be read.
    """
    return [picture for image in images for picture in read_images(image, view)]
