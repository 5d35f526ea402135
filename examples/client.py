"""Views a ticket over Socket.IO, prints the list of viewers, and leaves.

Usage: python3 client.py URL TOKEN TICKET, with `pip install python-socketio aiohttp`.
"""

import asyncio
import sys

import socketio


async def main(url, token, ticket):
    client = socketio.AsyncClient()
    listed = asyncio.Event()

    @client.on("viewers:updated")
    def on_viewers(data, *_):
        # The host adds an offset for connection state recovery, which this library does not use.
        print("viewers:updated", data)
        listed.set()

    # The library reconnects by itself; a refused token raises ConnectionError.
    await client.connect(url, auth={"token": token})
    print("acknowledged", await client.call("ticket:view", {"ticketId": ticket}))
    await listed.wait()
    await client.call("ticket:leave", {"ticketId": ticket})
    await client.disconnect()


asyncio.run(main(*sys.argv[1:]))
