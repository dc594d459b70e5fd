"""Clients that send malformed requests, and what they saw."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter

from serving.client import HOST
from serving.malformed import LEAVES, STALLS, Malformed

CLOSED, LEFT, NOTHING = "closed", "left", "nothing"
"""The server has closed the connection without an answer; the client was gone; neither within the time."""


async def outcome(port: int, sent: Malformed, patience: float = 20.0) -> str:
    """Status of the answer, or what happened instead."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        async with asyncio.timeout(patience):
            for piece in sent.pieces:
                writer.write(piece)
                await writer.drain()
            if sent.then == LEAVES:
                # half of them leave by a reset
                if len(sent.pieces[0]) % 2:
                    writer.get_extra_info("socket").setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                    )
                return LEFT
            line = await reader.readline()
            if sent.then != STALLS:
                while await reader.read(1 << 16):
                    pass
            return line.split()[1].decode() if line.startswith(b"HTTP/1.") else CLOSED
    except (ConnectionError, IndexError):
        return CLOSED
    except TimeoutError:
        return NOTHING
    finally:
        writer.close()


async def outcomes(port: int, requests: list[Malformed], at_a_time: int) -> Counter[tuple[str, str]]:
    """How often each kind of request came to what."""
    found: Counter[tuple[str, str]] = Counter()
    waiting = iter(requests)

    async def client() -> None:
        for one in waiting:
            found[one.kind, await outcome(port, one)] += 1

    await asyncio.gather(*(client() for _ in range(at_a_time)))
    return found


def wrong(found: Counter[tuple[str, str]]) -> list[tuple[str, str]]:
    """What should not have happened: neither refused nor closed."""
    return [(kind, what) for kind, what in found if what not in (CLOSED, LEFT) and not what.startswith("4")]
