"""Passes connections on: ``python -m tests.chaos.bridge FROM TO``, each ``host:port`` or a path.

A path is a socket in the file system, which network namespaces share: one bridge on each side of
it lets a namespace reach a server of another on its own 127.0.0.1, over no network at all.
"""

import asyncio
import contextlib
import sys

CHUNK_BYTES = 65_536


async def _bridge(source: str, target: str) -> None:
    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            onward = await _connect(target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_copy(reader, onward[1]), _copy(onward[0], writer))

    if "/" in source:
        server = await asyncio.start_unix_server(pass_on, source)
    else:
        host, _, port = source.partition(":")
        server = await asyncio.start_server(pass_on, host, int(port))
    async with server:
        await server.serve_forever()


async def _connect(target: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if "/" in target:
        return await asyncio.open_unix_connection(target)
    host, _, port = target.partition(":")
    return await asyncio.open_connection(host, int(port))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()


if __name__ == "__main__":
    asyncio.run(_bridge(*sys.argv[1:]))
