"""Addresses to listen at."""

from __future__ import annotations

import ipaddress
import socket

from mio.core.errors import UserError


def listen(host: str, port: int) -> socket.socket:
    """The socket of an address, before the seconds that a model takes to load. Raises `UserError`."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        raise UserError(
            f"--host {host} --port {port}: {error.strerror or error}; give another address, or stop what has it"
        ) from error


def is_loopback(host: str) -> bool:
    """Whether what listens at an address is reached by this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
