"""All that a server is told when it starts, as data that can be sent to another process."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from healthgpt.files import require_file
from healthgpt.loading import LoadOptions
from healthgpt.serving.api.keys import ENVIRONMENT, Keys
from healthgpt.serving.api.limits import Limits
from healthgpt.serving.api.remote import RemoteImages
from healthgpt.serving.api.service import Service
from healthgpt.serving.residents import Residents

_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a server is reached.

    Attributes:
        certificate, private_key: for https; None for http.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    certificate: Path | None = None
    private_key: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port < 2**16:
            raise ValueError(f"--port is {self.port}, expected 0 ... {2**16 - 1}")
        for path in filter(None, (self.certificate, self.private_key)):
            require_file(path)

    @property
    def local(self) -> bool:
        """Whether only this machine reaches it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True, kw_only=True)
class Settings:
    """
    Attributes:
        models: names, folders or hub ids.
        keys: of the clients; without any, everybody is one.
        insecure: others may reach the server without a key.
        allowed_hosts: names that clients may call it by, beside this machine's own where it is reached from here only.
        remote_hosts: hosts that images are fetched from.
        threads: cores for a model on the CPU; None is all but one.

    Raises:
        ValueError: others could reach the server, and need no key.
    """

    models: tuple[str, ...]
    options: LoadOptions = field(default_factory=LoadOptions)
    place: Place = field(default_factory=Place)
    limits: Limits = field(default_factory=Limits)
    keys: Keys = field(default_factory=Keys)
    insecure: bool = False
    allowed_hosts: tuple[str, ...] = ()
    remote_hosts: tuple[str, ...] = ()
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"--threads is {self.threads}, expected at least 1")
        if not (self.place.local or self.keys or self.insecure):
            raise ValueError(
                f"--host is {self.place.host}, where others reach this server: give --api_keys FILE or {ENVIRONMENT}, "
                "or allow everyone by --insecure"
            )

    def service(self) -> Service:
        """The service, before it is started.

        Raises:
            ValueError: two models of one id, or hosts that are none.
        """
        local = (*_LOCAL_NAMES, self.place.host) if self.place.local else ()
        hosts = tuple(name.lower() for name in (*local, *self.allowed_hosts))
        return Service(
            Residents(self.models, self.options),
            limits=self.limits,
            keys=self.keys,
            remote=RemoteImages(self.remote_hosts, most=self.limits.body_bytes, seconds=self.limits.image_seconds),
            hosts=hosts or None,
            threads=self.threads,
        )
