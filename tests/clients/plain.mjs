// The plain protocol, by a client in another language, written from the protocol's page alone.
//
// Usage: node plain.mjs <http url> <token of ana> <token of ben>
//
// Prints {"ok":true,"checks":N} and exits 0; or exits 1 with the first failed check. It waits for a
// heartbeat of the host's: with the default interval that alone takes 25 s, so run the host with a short one.

import { check, fresh, pick, run, subject } from "./checks.mjs";
import { PlainClient } from "./plain-client.mjs";
import { walkChat, walkMistakes, walkTicket } from "./walks.mjs";

/** With an interval this short, five heartbeats outlast a timeout that goes with it: unanswered, they would end the connection. */
const SHORT_HEARTBEAT_MS = 1000;

/** A token comes by query, by header or by first message. */
async function signIn(url, tokens, users) {
  const ana = new PlainClient("ana", `${url}?token=${encodeURIComponent(tokens.ana)}`);
  const ben = new PlainClient("ben", url, { headers: { Authorization: `Bearer ${tokens.ben}` } });
  const second = new PlainClient("ana's second", url);
  const connected = await ana.connected(users.ana);
  const other = await ben.connected(users.ben);
  await second.opened();
  second.send({ event: "authenticate", data: { token: tokens.ana }, id: 1 });
  const third = await second.connected(users.ana);
  check("authenticate is acknowledged", await second.acknowledgement(1), { id: 1, data: null });
  check("ids differ", new Set([connected, other, third].map(({ connectionId }) => connectionId)).size, 3);
  return { ana, ben, second, connected };
}

/** What is wrong with a frame, rather than with an event. */
async function brokenFrames({ ana, ben }, ticketId) {
  for (const frame of ["no JSON", "[]", "{}", '{"event":5}', '{"event":"ticket:view","id":1.5}', Buffer.from([1, 2, 3])]) {
    ben.send(frame);
    const [data] = await ben.events("error");
    check(`${frame} is`, data.code, "bad_request");
  }
  // Any integer is an id, and is returned unchanged.
  ben.send({ event: "ticket:stop_typing", data: { ticketId }, id: -7 });
  check("the id", (await ben.acknowledgement(-7)).id, -7);
  for (const client of [ana, ben]) client.checkQuiet();
}

async function heartbeat({ ana, connected: { heartbeatMs } }, ticketId) {
  await ana.getsPong();
  await ana.getsPings(heartbeatMs <= SHORT_HEARTBEAT_MS ? 5 : 1, heartbeatMs);
  check("it is still there", (await ana.call("ticket:view", { ticketId })).ticketId, ticketId);
}

async function ends({ ana, ben, second }, url, users, ticketId) {
  ben.socket.close(1000);
  await ben.endsWith(1000);
  const [left] = await ana.events("agent:left", "viewers:updated");
  check("who left", pick(left, "ticketId", "agentId", "reason"), { ticketId, agentId: users.ben, reason: "disconnected" });

  const { reason } = await new PlainClient("a bad token", `${url}?token=no.good.token`).endsWith(4001);
  check("the close says why", reason !== "", true);
  await new PlainClient("a bad header", url, { headers: { Authorization: "Bearer no.good.token" } }).endsWith(4001);
  for (const first of [{ event: "authenticate", data: { token: "no.good.token" } }, { event: "ticket:view", data: { ticketId } }]) {
    const client = new PlainClient(`who begins with ${first.event}`, url);
    await client.opened();
    client.send(first);
    await client.endsWith(4001);
  }
  for (const client of [ana, second]) {
    client.checkQuiet();
    client.socket.close(1000);
    await client.endsWith(1000);
  }
}

async function main([address, tokenOfAna, tokenOfBen]) {
  if (!tokenOfBen) throw new Error("usage: node plain.mjs <http url> <token of ana> <token of ben>");
  const url = `${address.replace("http", "ws")}/ws`;
  const tokens = { ana: tokenOfAna, ben: tokenOfBen };
  const users = { ana: subject(tokenOfAna), ben: subject(tokenOfBen) };
  const ticketId = fresh("t-plain");
  const clients = await signIn(url, tokens, users);
  await walkTicket(clients, users, ticketId);
  await walkMistakes(clients, ticketId);
  await brokenFrames(clients, ticketId);
  await walkChat(clients, users, fresh("r-plain"));
  await heartbeat(clients, ticketId);
  await ends(clients, url, users, ticketId);
}

await run(main, PlainClient.endAll);
