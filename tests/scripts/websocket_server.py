"""websocket_server.py ADDRESS CERTIFICATE KEY: WebSockets by the `websockets` library, over TLS. What is said is said back,
except where the path has it otherwise:

- /silent: nothing is said back
- /vanish: the first message is answered with a reset of the connection
- /liar: the handshake is answered with a key that is not the client's
- /plain, /refused: there is no WebSocket, but 200 or 404

It tells what each handshake came with, and how each WebSocket ended."""

import asyncio
import http
import json
import socket
import ssl
import struct
import sys

from common import tell
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed


def asked(connection, request):
    headers = request.headers
    names = ["X-Api-Key", "X-Mine", "Host", "Sec-WebSocket-Version", "Sec-WebSocket-Protocol", "Upgrade", "Cookie"]
    tell(asked=request.path, keys=len(headers.get_all("Sec-WebSocket-Key")),
         **{name.lower(): headers.get_all(name) for name in names})
    if request.path == "/plain":
        return connection.respond(http.HTTPStatus.OK, "no WebSocket here\n")
    if request.path == "/refused":
        return connection.respond(http.HTTPStatus.NOT_FOUND, "nor here\n")


def chosen(_connection, offered):
    return "chat" if "chat" in offered else None


def answered(_connection, request, response):
    if request.path == "/liar":
        del response.headers["Sec-WebSocket-Accept"]
        response.headers["Sec-WebSocket-Accept"] = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


async def handle(connection):
    path = connection.request.path
    try:
        async for message in connection:
            if path == "/vanish":
                raw = connection.transport.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.transport.abort()
            elif path != "/silent":
                await connection.send(message)
    except ConnectionClosed:
        pass
    tell(ended=path, code=connection.close_code)


async def main():
    address, certificate, key = sys.argv[1:]
    json.loads(sys.stdin.readline())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    async with serve(handle, address, 443, ssl=context, subprotocols=["chat"], select_subprotocol=chosen, process_request=asked,
                     process_response=answered, max_size=None, ping_interval=None) as server:
        tell(ready=True)
        await server.serve_forever()


asyncio.run(main())
