"""Images at addresses of the web: refused, unless their host is on a list, and never fetched from private networks.

The address that was checked is the address that is connected to, so that a name which changes its meaning in between
gains nothing. Redirects are not followed.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from urllib.parse import SplitResult, urlsplit

from healthgpt.serving.api.errors import ApiError, refused

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_AT_ONCE = 2**16


def is_public(address: IPAddress) -> bool:
    """Whether an address is one of the open internet, in whatever form it is written."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return is_public(address.ipv4_mapped)
        if address.sixtofour or address.teredo or address in _NAT64:  # they may lead to private ones
            return False
    return address.is_global and not address.is_multicast


class RemoteImages:
    """Fetches images by https from hosts that the server's owner named.

    Args:
        hosts: names, each with a port or not (443); without any, nothing is fetched.
        most: bytes of an image. seconds: that fetching one may take.
        public: decides which addresses may be connected to.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        *,
        most: int,
        seconds: float,
        public: Callable[[IPAddress], bool] = is_public,
        context: ssl.SSLContext | None = None,
    ):
        self._places = {_place(host) for host in hosts}
        self._most, self._seconds, self._public = most, seconds, public
        self._context = context or ssl.create_default_context()

    def fetch(self, url: str) -> bytes:
        """What is at an address.

        Raises:
            ApiError: it may not be fetched, or cannot be.
        """
        parts, host, port = self._checked(url)
        connection = _Pinned(host, port, self._address(host, port), self._seconds, self._context)
        timer = threading.Timer(self._seconds, connection.abort)
        timer.start()
        try:
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("GET", target, headers={"Accept": "image/*,*/*", "Accept-Encoding": "identity"})
            response = connection.getresponse()
            if 300 <= response.status < 400:
                raise _unfit(host, "redirects, which are not followed")
            if response.status != 200:
                raise _unfit(host, f"answers with status {response.status}")
            return self._body(host, response)
        except (OSError, http.client.HTTPException, UnicodeError):
            raise _unfit(host, f"gave no image within {self._seconds:g} seconds, or none at all") from None
        finally:
            timer.cancel()
            connection.close()

    def _checked(self, url: str) -> tuple[SplitResult, str, int]:
        if not self._places:
            raise refused("remote images are off here; send the image itself, as a data URL", code="remote_images_off")
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").lower(), parts.port or 443
        except ValueError:
            raise refused("the image's address cannot be read", code="invalid_image_url") from None
        if parts.scheme != "https" or parts.username is not None or parts.password is not None:
            raise refused("the image's address is none of https://host/path", code="invalid_image_url")
        if (host, port) not in self._places:
            raise ApiError(403, "images of that host are not fetched; it is not on the list", code="remote_host")
        if not url.isascii() or any(character <= " " for character in url):
            raise refused("the image's address has characters that have to be encoded", code="invalid_image_url")
        return parts, host, port

    def _address(self, host: str, port: int) -> str:
        """An address of the host, all of whose addresses are public."""
        try:
            found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
            addresses = [ipaddress.ip_address(address.partition("%")[0]) for address in sorted(found)]
        except (OSError, ValueError):
            raise _unfit(host, "cannot be found") from None
        if not addresses or not all(map(self._public, addresses)):
            raise ApiError(403, "images of private networks are not fetched", code="remote_host")
        return str(addresses[0])

    def _body(self, host: str, response: http.client.HTTPResponse) -> bytes:
        data, end = bytearray(), time.monotonic() + self._seconds
        while part := response.read1(_AT_ONCE):
            data += part
            if len(data) > self._most:
                raise _unfit(host, f"gives more than {self._most} bytes")
            if time.monotonic() > end:
                raise TimeoutError
        if response.length:  # of what was announced, that much did not come
            raise OSError
        return bytes(data)


class _Pinned(http.client.HTTPSConnection):
    """A connection to one address of a host."""

    def __init__(self, host: str, port: int, address: str, seconds: float, context: ssl.SSLContext):
        super().__init__(host, port, timeout=seconds, context=context)
        self._address, self._tls = address, context

    def connect(self) -> None:
        plain = socket.create_connection((self._address, self.port), self.timeout)
        self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)

    def abort(self) -> None:
        """Ends what is going on, from another thread."""
        if self.sock:
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)


def _place(host: str) -> tuple[str, int]:
    parts = urlsplit(f"//{host}")
    try:
        name, port = parts.hostname, parts.port
    except ValueError:
        name, port = None, None
    if not name or parts.path or parts.username is not None:
        raise ValueError(f"remote host {host!r} is none; expected a name such as images.example.org")
    return name.lower(), port or 443


def _unfit(host: str, what: str) -> ApiError:
    return refused(f"the image's host {host} {what}", code="remote_image")
