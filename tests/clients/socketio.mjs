// Two users on Socket.IO clients, as a front-end has them: they use the features, lose their transport, recover and leave.
//
// Usage: node socketio.mjs <http url> <newest|4.1> <polling|websocket|upgrade> <token of ana> <token of ben>
//
// Prints {"ok":true,"checks":N} and exits 0; or exits 1 with the first failed check. It sends more
// events a second than a host allows unless it is told otherwise (`limits.events_per_second = 0`).

import { check, fresh, pick, run, subject } from "./checks.mjs";
import { Line } from "./line.mjs";
import { PlainClient } from "./plain-client.mjs";
import { SocketIoClient, TRANSPORTS, VERSIONS } from "./socketio-client.mjs";
import { walkChat, walkMistakes, walkTicket } from "./walks.mjs";

/** How many events of a stream go before and after the moment that it is about. */
const STREAM = 150;
/** What happens while a client is away. */
const MISSED = 20;

async function signIn({ url, line, options, tokens, lasting }) {
  const clients = {
    ana: new SocketIoClient("ana", line.url, { ...options, auth: { token: tokens.ana } }),
    ben: new SocketIoClient("ben", url, { ...options, auth: (tell) => tell({ token: tokens.ben }) }),
    second: new SocketIoClient("ana's second", url, { ...options, auth: { token: tokens.ana } }),
  };
  const ids = [];
  for (const client of Object.values(clients)) {
    ids.push(await client.connected());
    await client.isOn(lasting);
  }
  check("ids differ", new Set(ids).size, 3);
  return clients;
}

/** What has binary in it where no feature expects any costs its sender an error, and nothing else. */
async function sendsBinary({ ben }) {
  check("binary for an id", (await ben.refused("ticket:view", { ticketId: Buffer.from([0, 1, 255]) })).code, "bad_request");
  ben.checkQuiet();
}

/** One of the two speaks the plain protocol: together they see what the others saw. */
async function walkMixed({ ana, ben, second }, { url, tokens, users }) {
  const plain = new PlainClient("ana's plain one", `${url.replace("http", "ws")}/ws?token=${encodeURIComponent(tokens.ana)}`);
  await plain.connected(users.ana);
  const clients = { ana: plain, ben, second };
  const ticketId = fresh("t-mixed");
  await walkTicket(clients, users, ticketId);
  await walkMistakes(clients, ticketId);
  await walkChat(clients, users, fresh("r-mixed"));
  // All her connections get her message.
  await ana.events("roomMessageSent");
  plain.socket.close(1000);
  await plain.endsWith(1000);
  await ben.events("agent:left", "viewers:updated");
}

/** Streams in both directions, from the moment that one client is in: in the middle of them it changes its transport. */
async function stream({ ben, ...others }, { line, options, tokens, lasting, transport }) {
  if (transport === "upgrade") line.holdWebSockets();
  const ana = new SocketIoClient("ana's stream", line.url, { ...options, auth: { token: tokens.ana } });
  const roomId = fresh("r-stream");
  await ben.call("joinRoom", { roomId });
  await ana.connected();
  await ana.call("joinRoom", { roomId });
  check("the first transport", ana.transport, options.transports[0]);
  let n = 0;
  const send = async (more) => {
    for (const end = n + more; n < end; n++) {
      for (const client of [ana, ben]) client.tell("roomMessage", { roomId, body: `${client.name} ${n}` });
      // Paced, so that transports send many of them separately.
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  };
  await send(STREAM);
  if (transport === "upgrade") {
    check("the transport while WebSockets are held back", ana.transport, "polling");
    line.releaseWebSockets();
    // It goes on during the upgrade.
    let upgraded = false;
    const upgrade = ana.isOn(lasting).finally(() => (upgraded = true));
    while (!upgraded) await send(1);
    await upgrade;
  }
  await send(STREAM);
  for (const receiver of [ana, ben]) {
    for (const name of ["roomMessageRecieved", "roomMessageConfirmed"]) {
      const bodies = (await receiver.eventsNamed(name, 2 * n)).map(({ body }) => body);
      for (const sender of [ana, ben]) {
        const expected = Array.from({ length: n }, (_, i) => `${sender.name} ${i}`);
        check(`${name} of ${sender.name} at ${receiver.name}`, bodies.filter((body) => body.startsWith(`${sender.name} `)), expected);
      }
    }
    await receiver.call("leaveRoom", { roomId });
  }
  for (const sender of [ana, ben, others.ana, others.second]) await sender.eventsNamed("roomMessageSent", n);
  for (const client of [ana, ben]) client.checkQuiet();
  ana.socket.disconnect();
  await ana.disconnected();
}

/** What ben does while ana is away, and what she hears of it. */
function gap({ ana, ben }, { ticketId, roomId }) {
  const bodies = Array.from({ length: MISSED }, (_, i) => `missed ${i}`);
  return {
    async happens() {
      for (const event of ["ticket:typing", "ticket:stop_typing"]) {
        await ben.call(event, { ticketId });
        await ben.events("viewers:updated");
      }
      for (const body of bodies) await ben.call("roomMessage", { roomId, body });
      await ben.eventsNamed("roomMessageSent", MISSED);
      // When all are stored, no event of the gap is pending.
      for (const name of ["roomMessageRecieved", "roomMessageConfirmed"]) await ben.eventsNamed(name, MISSED);
    },
    async isHeard(...andThen) {
      const expected = [...bodies, ...andThen];
      for (const name of ["roomMessageRecieved", "roomMessageConfirmed"]) {
        check(`${name} in the gap`, (await ana.eventsNamed(name, expected.length)).map(({ body }) => body), expected);
      }
      await ana.events("agent:typing", "viewers:updated", "agent:stopped_typing", "viewers:updated");
    },
  };
}

/** Each hears of the other next, and so has heard nothing else. */
async function seeEachOther({ ana, ben }, users, ticketId) {
  for (const [from, to, agentId] of [[ana, ben, users.ana], [ben, ana, users.ben]]) {
    from.tell("ticket:typing", { ticketId });
    const [typing] = await to.events("agent:typing", "viewers:updated");
    check("who types", pick(typing, "ticketId", "agentId"), { ticketId, agentId });
    await from.events("viewers:updated");
    await from.call("ticket:stop_typing", { ticketId });
    await from.events("viewers:updated");
    await to.events("agent:stopped_typing", "viewers:updated");
  }
  for (const client of [ana, ben]) client.checkQuiet();
}

/** A client that asks for it goes on as what it was: same id, same rooms, everything that it missed. */
async function recovers(clients, { line, users, lasting }, places) {
  const { ana, ben, second } = clients;
  const { happens, isHeard } = gap(clients, places);
  const { id } = ana.socket;
  const goesOn = async () => {
    check("the id after coming back", await ana.connected(), id);
    check("recovered", ana.socket.recovered, true);
  };

  // It reconnects on command, so that events before that are in the gap.
  ana.socket.io.reconnection(false);
  await ana.loses();
  await happens();
  // Events that it emits meanwhile are sent when it is back.
  const late = ana.call("roomMessage", { roomId: places.roomId, body: "said in the gap" });
  ana.socket.connect();
  await goesOn();
  await late;
  for (const name of ["roomMessageRecieved", "roomMessageConfirmed"]) {
    check(`${name} of what was said in the gap`, (await ben.events(name))[0].body, "said in the gap");
  }
  await isHeard("said in the gap");
  for (const sender of [ana, second]) await sender.events("roomMessageSent");
  await ana.isOn(lasting);
  await seeEachOther(clients, users, places.ticketId);

  // A cut line, and the library's own attempts until it is back.
  ana.socket.io.reconnection(true);
  await line.cut();
  await ana.disconnected();
  await happens();
  line.mend();
  await goesOn();
  await isHeard();
  await ana.isOn(lasting);
  await seeEachOther(clients, users, places.ticketId);
}

/** A client that does not is a new connection, and has to open again what it had open. */
async function comesBack(clients, { users, lasting }, { ticketId, roomId }) {
  const { ana, ben } = clients;
  const before = ana.socket.id;
  await ana.loses();
  const after = await ana.connected();
  check("the id is another", after === before, false);
  await ana.call("ticket:view", { ticketId });
  // The host keeps the old session, so that ana never left: this is one tab more.
  await ana.events("viewers:updated");
  await ana.call("joinRoom", { roomId });
  await ana.isOn(lasting);
  await seeEachOther(clients, users, ticketId);
  await ben.call("roomMessage", { roomId, body: "welcome back" });
  await ana.events("roomMessageRecieved", "roomMessageConfirmed");
  await ben.events("roomMessageRecieved", "roomMessageSent", "roomMessageConfirmed");
}

/** Who says goodbye is gone at once, and comes back as somebody new. */
async function goes({ ana, ben, second }, users, ticketId) {
  const { id } = ben.socket;
  const { engine } = ben.socket.io;
  ben.socket.disconnect();
  check("why", await ben.disconnected(), "io client disconnect");
  // Versions before 4.2 mistake the end of the old transport for the new one's.
  for (let n = 0; engine.readyState !== "closed" && n < 500; n += 1) await new Promise((wake) => setTimeout(wake, 10));
  const [left] = await ana.events("agent:left", "viewers:updated");
  check("who left", pick(left, "ticketId", "agentId", "reason"), { ticketId, agentId: users.ben, reason: "disconnected" });
  ben.socket.connect();
  check("the id is another", (await ben.connected()) === id, false);
  check("recovered", Boolean(ben.socket.recovered), false);
  for (const client of [ana, ben, second]) {
    client.checkQuiet();
    client.socket.disconnect();
    await client.disconnected();
  }
}

async function main([url, versionName, transport, tokenOfAna, tokenOfBen]) {
  const version = VERSIONS[versionName];
  const transports = TRANSPORTS[transport];
  if (!version || !transports || !tokenOfBen) {
    throw new Error("usage: node socketio.mjs <http url> <newest|4.1> <polling|websocket|upgrade> <token of ana> <token of ben>");
  }
  const tokens = { ana: tokenOfAna, ben: tokenOfBen };
  const users = { ana: subject(tokenOfAna), ben: subject(tokenOfBen) };
  const line = await Line.to(url);
  const world = { url, line, transport, lasting: transports.at(-1), tokens, users, options: { io: version.io, transports } };

  const clients = await signIn(world);
  const places = { ticketId: fresh("t-socketio"), roomId: fresh("r-socketio") };
  await walkTicket(clients, users, places.ticketId);
  await walkMistakes(clients, places.ticketId);
  await sendsBinary(clients);
  await walkChat(clients, users, places.roomId);
  await walkMixed(clients, world);
  await stream(clients, world);
  await (version.recovers ? recovers : comesBack)(clients, world, places);
  await goes(clients, users, places.ticketId);
}

await run(main, () => {
  SocketIoClient.endAll();
  PlainClient.endAll();
});
