"""Two users on Python's Socket.IO client: they work on a ticket and in a room, lose their transport, come back and go.

Usage: python python_socketio.py <http url> <polling|websocket|upgrade> <token of ana> <token of ben>

Prints {"ok":true,"checks":N} and exits 0; or exits 1 with the first thing that was not as promised. (It is not called
socketio.py because it would then import itself.)
"""

import asyncio
import base64
import json
import os
import re
import socket
import sys
import time

import socketio

# The time-out of each step.
STEP_SECONDS = 10
# The time-out of the whole run, for the library has waits of its own.
SCRIPT_SECONDS = 100
TRANSPORTS = {"polling": ["polling"], "websocket": ["websocket"], "upgrade": ["polling", "websocket"]}

n_checks = 0


def check(what, actual, expected):
    global n_checks
    if actual != expected:
        raise AssertionError(f"{what}: expected {expected!r}, got {actual!r}")
    n_checks += 1


def pick(data, *fields):
    return {field: data.get(field) for field in fields}


def agents(viewers):
    return [f"{viewer['agentId']} {viewer['status']}" for viewer in viewers]


def subject(token):
    """The user whom a JSON Web Token is for."""
    claims = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["sub"]


class Client:
    """Keeps what it hears, in order, until somebody asks for it."""

    def __init__(self, name, url, transports, token):
        self.name = name
        self.url = url
        self.transports = transports
        self.token = token
        self.heard = asyncio.Queue()
        self.sio = socketio.AsyncClient(reconnection_delay=0.1, reconnection_delay_max=0.5)
        self.sio.on("*", lambda event, *args: self.heard.put_nowait((event, args)))
        for own in ("connect", "disconnect", "connect_error"):
            self.sio.on(own, lambda *args, own=own: self.heard.put_nowait((f"({own})", args)))

    async def connect(self):
        await self.sio.connect(self.url, transports=self.transports, auth={"token": self.token}, wait_timeout=STEP_SECONDS)
        await self.expect("(connect)")
        self.check_transport()

    def check_transport(self):
        check(f"{self.name}'s transport", self.sio.transport(), self.transports[-1])
        check(f"{self.name}'s id is a connection's", bool(re.fullmatch("[0-9a-f]{16}", self.sio.get_sid())), True)

    async def expect(self, *names):
        """The data of the next events, which are these."""
        data = []
        for name in names:
            try:
                event, args = await asyncio.wait_for(self.heard.get(), STEP_SECONDS)
            except asyncio.TimeoutError:
                raise AssertionError(f"{self.name} waited {STEP_SECONDS} s in vain for {name}") from None
            check(f"{self.name} gets, with {args!r},", event, name)
            # The offset for recovery may stand behind the data.
            check(f"what follows the data of {name}", all(isinstance(arg, str) for arg in args[1:]), True)
            data.append(args[0] if args else None)
        return data

    async def call(self, event, data):
        reply = await self.sio.call(event, data, timeout=STEP_SECONDS)
        check(f"{event} is acknowledged, with {reply!r}", isinstance(reply, dict) and "error" in reply, False)
        return reply

    async def refused(self, event, data):
        reply = await self.sio.call(event, data, timeout=STEP_SECONDS)
        check(f"{event} is refused, with {reply!r}", isinstance(reply, dict) and "error" in reply, True)
        return reply["error"]["code"]

    async def lose(self):
        """Cuts the transport, which is no goodbye."""
        engine = self.sio.eio
        if engine.transport() == "websocket":
            # An orderly close would be deliberate.
            engine.ws.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        else:
            await engine.http.close()
        await self.expect("(disconnect)")

    def check_quiet(self):
        heard = [self.heard.get_nowait() for _ in range(self.heard.qsize())]
        check(f"{self.name} gets nothing else", heard, [])


async def walk_ticket(ana, ben, users, ticket_id):
    ticket = {"ticketId": ticket_id}
    viewing = [f"{users['ana']} viewing", f"{users['ben']} viewing"]
    check("who views it", agents((await ana.call("ticket:view", ticket))["viewers"]), viewing[:1])
    await ana.expect("viewers:updated")
    check("who views it", agents((await ben.call("ticket:view", ticket))["viewers"]), viewing)
    warning, _ = await ben.expect("collision:warning", "viewers:updated")
    check("the warning", pick(warning, "ticketId", "severity"), {"ticketId": ticket_id, "severity": "viewing"})
    joined, listed = await ana.expect("agent:joined", "viewers:updated")
    check("who joined", joined["agentId"], users["ben"])
    check("the list", agents(listed["viewers"]), viewing)
    await see_type(ben, ana, users["ben"], ticket)

    check("an unknown event", await ben.refused("no:such", {}), "unknown_event")
    check("another's id", await ben.refused("ticket:view", {**ticket, "agentId": "mallory"}), "forbidden")
    check("binary for an id", await ben.refused("ticket:view", {"ticketId": b"\0\1\xff"}), "bad_request")
    await ben.sio.emit("ticket:view", {"ticketId": "two words"})
    (error,) = await ben.expect("error")
    check("the error", pick(error, "code", "event"), {"code": "bad_request", "event": "ticket:view"})


async def see_type(who, whom, user, ticket):
    """One types, which the other hears next: neither has heard anything else."""
    await who.sio.emit("ticket:typing", ticket)
    typing, _ = await whom.expect("agent:typing", "viewers:updated")
    check("who types", typing["agentId"], user)
    await who.expect("viewers:updated")
    await who.call("ticket:stop_typing", ticket)
    await who.expect("viewers:updated")
    await whom.expect("agent:stopped_typing", "viewers:updated")
    for client in (who, whom):
        client.check_quiet()


async def walk_chat(ana, ben, room_id):
    room = {"roomId": room_id}
    for n, client in enumerate((ana, ben), 1):
        check("who is there", await client.call("joinRoom", room), {**room, "connectedUsers": n})
    body = "Grüße, “Ana” 😀"
    temp_id = (await ana.call("roomMessage", {**room, "body": body}))["tempId"]
    seen, sent, confirmed = await ana.expect("roomMessageRecieved", "roomMessageSent", "roomMessageConfirmed")
    check("what is seen", pick(seen, "tempId", "body", "isOptimistic"), {"tempId": temp_id, "body": body, "isOptimistic": True})
    check("it is sent", sent["tempId"], temp_id)
    check("it is confirmed", pick(confirmed, "tempId", "isConfirmed"), {"tempId": temp_id, "isConfirmed": True})
    check("the other sees the same", await ben.expect("roomMessageRecieved", "roomMessageConfirmed"), [seen, confirmed])


async def come_back(ana, ben, users, ticket_id):
    """This library does not ask for what it missed: it is a new connection, and opens again what it had open."""
    ticket = {"ticketId": ticket_id}
    before = ana.sio.get_sid()
    await ana.lose()
    await ana.expect("(connect)")
    ana.check_transport()
    check("the id is another", ana.sio.get_sid() == before, False)
    await ana.call("ticket:view", ticket)
    # The host keeps the old session, so that ana never left: this is one tab more.
    await ana.expect("viewers:updated")
    await see_type(ana, ben, users["ana"], ticket)
    await see_type(ben, ana, users["ben"], ticket)


async def go(ana, ben, users, ticket_id):
    await ben.sio.disconnect()
    await ben.expect("(disconnect)")
    left, _ = await ana.expect("agent:left", "viewers:updated")
    expected = {"ticketId": ticket_id, "agentId": users["ben"], "reason": "disconnected"}
    check("who left", pick(left, "ticketId", "agentId", "reason"), expected)
    ana.check_quiet()


async def turn_away(url, transports):
    client = Client("a bad token", url, transports, "no.good.token")
    try:
        await client.connect()
    except socketio.exceptions.ConnectionError:
        pass
    else:
        raise AssertionError("a bad token is let in")
    (error,) = await client.expect("(connect_error)")
    check(f"the code in {error!r}", error["data"]["code"], "unauthorized")
    check(f"the text in {error!r}", bool(error["message"]), True)
    await client.sio.shutdown()


async def main(url, transport, *tokens):
    transports = TRANSPORTS[transport]
    users = {name: subject(token) for name, token in zip(("ana", "ben"), tokens, strict=True)}
    # New names each time, so that a run finds nothing of an earlier one.
    unique = f"python-{os.getpid()}-{time.time_ns()}"
    ana, ben = (Client(name, url, transports, token) for name, token in zip(users, tokens))
    try:
        await ana.connect()
        await ben.connect()
        await walk_ticket(ana, ben, users, f"t-{unique}")
        await walk_chat(ana, ben, f"r-{unique}")
        await come_back(ana, ben, users, f"t-{unique}")
        await go(ana, ben, users, f"t-{unique}")
        await turn_away(url, transports)
    finally:
        for client in (ana, ben):
            await client.sio.shutdown()
    print(json.dumps({"ok": True, "checks": n_checks}))


if len(sys.argv) != 5 or sys.argv[2] not in TRANSPORTS:
    sys.exit(__doc__.split("\n\n")[1])
asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), SCRIPT_SECONDS))
