"""How much a server takes on: of one request, of all together, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

MEBI = 2**20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds, each a flag of `healthgpt serve` (`MEANINGS` has their texts).

    Raises:
        ValueError: one is below 1.
    """

    max_requests: int = 128
    max_batch: int = 32
    max_body_mib: int = 32
    max_bodies_mib: int = 512
    max_images: int = 8
    max_megapixels: int = 64
    max_characters: int = 100_000
    image_workers: int = 2
    image_memory_mib: int = 2048
    image_seconds: float = 20.0
    body_seconds: float = 30.0
    send_seconds: float = 30.0
    request_seconds: float = 300.0
    drain_seconds: float = 30.0

    def __post_init__(self) -> None:
        for name in MEANINGS:
            if not getattr(self, name) >= 1:
                raise ValueError(f"--{name} is {getattr(self, name)}, expected at least 1")
        if self.max_bodies_mib < self.max_body_mib:
            raise ValueError(f"--max_bodies_mib is {self.max_bodies_mib}, less than one body's {self.max_body_mib}")

    @property
    def body_bytes(self) -> int:
        return self.max_body_mib * MEBI

    @property
    def pixels(self) -> int:
        return self.max_megapixels * 10**6


MEANINGS = {
    "max_requests": "requests at once, those that wait included; more are answered with 429",
    "max_batch": "requests that run through a model together",
    "max_body_mib": "MiB of a request's body",
    "max_bodies_mib": "MiB of all bodies at once; more are answered with 429",
    "max_images": "images of a request",
    "max_megapixels": "millions of pixels of a request's images",
    "max_characters": "characters of a request's text",
    "image_workers": "processes that read images",
    "image_memory_mib": "MiB of memory that each of them may take",
    "image_seconds": "seconds that the images of a request may take to be read",
    "body_seconds": "seconds that a request's headers, and then its body, may take to arrive",
    "send_seconds": "seconds that a client may take to accept a part of its reply",
    "request_seconds": "seconds until a request is given up",
    "drain_seconds": "seconds that requests have to end in when the server is told to",
}
