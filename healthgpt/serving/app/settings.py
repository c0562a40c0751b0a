"""All that the web app is told when it starts."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

from healthgpt.loading import LoadOptions
from healthgpt.serving.api.keys import Keys
from healthgpt.serving.api.remote import RemoteImages
from healthgpt.serving.api.settings import Place

PASSWORDS = "HEALTHGPT_APP_PASSWORDS"
_LARGEST_REMOTE, _REMOTE_SECONDS = 32 * 2**20, 20.0
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, kw_only=True)
class AppSettings:
    """
    Attributes:
        models: names, folders or hub ids; the first is chosen at the beginning.
        passwords: that let people in; without any, everybody is.
        insecure: others may reach the app without a password.
        allowed_hosts: names that browsers may call it by, beside this machine's own where only this machine reaches it.
        remote_hosts: hosts that images are fetched from.

    Raises:
        ValueError: others could reach the app, and need no password.
    """

    models: tuple[str, ...]
    options: LoadOptions = field(default_factory=LoadOptions)
    place: Place = field(default_factory=Place)
    passwords: Keys = field(default_factory=Keys)
    insecure: bool = False
    allowed_hosts: tuple[str, ...] = ()
    remote_hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (self.place.local or self.passwords or self.insecure):
            raise ValueError(
                f"--host is {self.place.host}, where others reach this app: give --password_file FILE or {PASSWORDS}, "
                "or let everyone in by --insecure"
            )

    @property
    def hosts(self) -> frozenset[str] | None:
        """Names that the app goes by; None for any."""
        local = _LOCAL_NAMES | {self.place.host.lower()} if self.place.local else frozenset()
        return local | {name.lower() for name in self.allowed_hosts} or None

    @property
    def remote(self) -> RemoteImages | None:
        """Where images may be fetched from; None where they may not.

        Raises:
            ValueError: a host that is none.
        """
        if not self.remote_hosts:
            return None
        return RemoteImages(self.remote_hosts, most=_LARGEST_REMOTE, seconds=_REMOTE_SECONDS)

    def check(self) -> None:
        """Finds mistakes before a model is loaded, which may take minutes.

        Raises:
            ValueError, OSError: a remote host that is none, or the place is taken.
        """
        _ = self.remote
        family = socket.AF_INET6 if ":" in self.place.host else socket.AF_INET
        try:
            socket.create_server((self.place.host, self.place.port), family=family).close()
        except OSError as error:
            raise self.taken(error) from None

    def taken(self, error: OSError) -> OSError:
        """Why the app cannot be served, in one line."""
        return OSError(f"cannot listen at {self.place.host}, port {self.place.port}: {error.strerror or error}")
