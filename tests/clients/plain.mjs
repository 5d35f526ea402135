// The plain protocol, walked by a client in another language that knows nothing but the protocol's page.
//
// Usage: node plain.mjs <ws url without query> <token of ana> <token of ben>
//
// Prints {"ok":true,"checks":N} and exits 0; or exits 1 with the first thing that was not as promised. It waits for a
// heartbeat of the host's: with the default interval that alone takes 25 s, so run the host with a short one.

import assert from "node:assert/strict";
import WebSocket from "ws";

/** How long the host may take for anything. */
const STEP_MS = 10_000;
/** With an interval this short, five heartbeats outlast a timeout that goes with it: unanswered, they would end the connection. */
const SHORT_HEARTBEAT_MS = 1000;

let checks = 0;

/** Like `assert.deepEqual`, and counted. */
function check(what, actual, expected) {
  assert.deepEqual(actual, expected, what);
  checks += 1;
}

/** An object of these fields alone. */
function pick(object, ...fields) {
  return Object.fromEntries(fields.map((field) => [field, object?.[field]]));
}

/** Fails if `promise` takes too long. */
function bounded(promise, what, timeout = STEP_MS) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${timeout} ms in vain for ${what()}`)), timeout);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

class Client {
  static #all = [];
  #frames = [];
  #wake = () => {};
  #nextId = 100;
  pings = 0;

  constructor(name, url, options) {
    this.name = name;
    this.socket = new WebSocket(url, options);
    // The library answers a ping by itself; this only counts.
    this.socket.on("ping", () => {
      this.pings += 1;
      this.#wake();
    });
    this.socket.on("message", (data, isBinary) => {
      this.#frames.push(isBinary ? { binary: true } : JSON.parse(data));
      this.#wake();
    });
    this.socket.on("error", (error) => {
      this.failed = error;
      this.#wake();
    });
    this.closed = new Promise((resolve) => {
      this.socket.on("close", (code, reason) => {
        this.failed ??= new Error(`${name} was closed with ${code}: ${reason}`);
        this.#wake();
        resolve({ code, reason: String(reason) });
      });
    });
    Client.#all.push(this);
  }

  static endAll() {
    for (const { socket } of Client.#all) socket.terminate();
  }

  send(frame) {
    this.socket.send(typeof frame === "string" || Buffer.isBuffer(frame) ? frame : JSON.stringify(frame));
  }

  async #until(find, what, timeout) {
    const found = async () => {
      for (;;) {
        const result = find();
        if (result !== undefined) return result;
        if (this.failed) throw this.failed;
        await new Promise((resolve) => (this.#wake = resolve));
      }
    };
    return bounded(found(), () => `${this.name} to get ${what}; there are ${JSON.stringify(this.#frames)}`, timeout);
  }

  /** The next frame, whatever it is. */
  async next() {
    return this.#until(() => this.#frames.shift(), "a frame");
  }

  /** The next events, in their order; acknowledgements do not count. */
  async events(...names) {
    const events = [];
    for (const name of names) {
      const at = () => this.#frames.findIndex(({ event }) => event !== undefined);
      const frame = await this.#until(() => (at() < 0 ? undefined : this.#frames.splice(at(), 1)[0]), name);
      check(`${this.name} gets`, frame.event, name);
      events.push(frame.data);
    }
    return events;
  }

  /** The acknowledgement of `id`, whichever events come before it. */
  async acknowledgement(id) {
    const at = () => this.#frames.findIndex((frame) => frame.event === undefined && frame.id === id);
    return this.#until(() => (at() < 0 ? undefined : this.#frames.splice(at(), 1)[0]), `the acknowledgement ${id}`);
  }

  /** Sends an event that is to be acknowledged with data. */
  async call(event, data) {
    const id = this.#nextId++;
    this.send({ event, data, id });
    const frame = await this.acknowledgement(id);
    check(`${event} is acknowledged`, frame.error, undefined);
    return frame.data;
  }

  async getsPings(n, heartbeatMs) {
    await this.#until(() => (this.pings >= n ? true : undefined), `${n} pings`, n * heartbeatMs + STEP_MS);
    checks += 1;
  }

  async getsPong() {
    const pong = new Promise((resolve) => this.socket.once("pong", (content) => resolve(String(content))));
    this.socket.ping("are you there");
    check("a ping is answered with its content", await bounded(pong, () => "a pong"), "are you there");
  }

  /** Nothing may be left that nobody asked for. */
  checkQuiet() {
    check(`${this.name} gets nothing else`, this.#frames, []);
  }

  async opened() {
    const { socket } = this;
    if (socket.readyState === WebSocket.CONNECTING) {
      await bounded(new Promise((resolve, reject) => socket.once("open", resolve).once("error", reject)), () => "the handshake");
    }
  }

  async endsWith(code) {
    const close = await bounded(this.closed, () => `${this.name}'s end`);
    check(`${this.name}'s close code`, close.code, code);
    return close;
  }
}

/** The user whom a JSON Web Token is for. */
function subject(token) {
  return JSON.parse(Buffer.from(token.split(".")[1], "base64url")).sub;
}

async function getsConnected(client, user) {
  const { event, data } = await client.next();
  check(`${client.name}'s first frame`, event, "connected");
  check("the user is the token's", data.userId, user);
  check("the connection has an id", typeof data.connectionId === "string" && data.connectionId !== "", true);
  check("the figures are integers", [data.heartbeatMs, data.maxMessageBytes].every((n) => Number.isInteger(n) && n > 0), true);
  return data;
}

/** A token comes by query, by header or by first message. */
async function signIn(url, tokens, users) {
  const ana = new Client("ana", `${url}?token=${encodeURIComponent(tokens.ana)}`);
  const ben = new Client("ben", url, { headers: { Authorization: `Bearer ${tokens.ben}` } });
  const second = new Client("ana's second", url);
  const connected = await getsConnected(ana, users.ana);
  const other = await getsConnected(ben, users.ben);
  await second.opened();
  second.send({ event: "authenticate", data: { token: tokens.ana }, id: 1 });
  const third = await getsConnected(second, users.ana);
  check("authenticate is acknowledged", await second.acknowledgement(1), { id: 1, data: null });
  check("ids differ", new Set([connected, other, third].map(({ connectionId }) => connectionId)).size, 3);
  return { ana, ben, second, connected };
}

async function comeAndGo({ ana, ben, second }, users, ticketId) {
  const agents = (viewers) => viewers.map(({ agentId, status }) => `${agentId} ${status}`);
  // The id is any integer, and comes back as it was.
  ana.send({ event: "ticket:view", data: { ticketId }, id: -7 });
  const { data } = await ana.acknowledgement(-7);
  check("the acknowledgement names the ticket", data.ticketId, ticketId);
  check("who views it", agents(data.viewers), [`${users.ana} viewing`]);
  check("since is in milliseconds", Math.abs(Date.now() - data.viewers[0].since) < 60_000, true);
  await ana.events("viewers:updated");

  const both = [`${users.ana} viewing`, `${users.ben} viewing`];
  check("who views it", agents((await ben.call("ticket:view", { ticketId })).viewers), both);
  const [warning, shown] = await ben.events("collision:warning", "viewers:updated");
  check("the warning", pick(warning, "ticketId", "severity"), { ticketId, severity: "viewing" });
  check("who is in the way", agents(warning.viewers), [`${users.ana} viewing`]);
  check("the warning has a text", typeof warning.message, "string");
  check("the list", agents(shown.viewers), both);
  const [joined] = await ana.events("agent:joined", "viewers:updated");
  check("who joined", pick(joined, "ticketId", "agentId"), { ticketId, agentId: users.ben });

  // A person is not a connection: a second tab is no collision, and changes nothing for others.
  check("who views it", agents((await second.call("ticket:view", { ticketId })).viewers), both);
  await second.events("viewers:updated");
  await second.call("ticket:leave", { ticketId });

  // Without an id there is no acknowledgement, and no answer to what goes well.
  ben.send({ event: "ticket:typing", data: { ticketId } });
  const [typing, list] = await ana.events("agent:typing", "viewers:updated");
  check("who types", pick(typing, "ticketId", "agentId", "warning"), { ticketId, agentId: users.ben, warning: "COLLISION_RISK" });
  check("the list", agents(list.viewers), [`${users.ana} viewing`, `${users.ben} typing`]);
  await ben.events("viewers:updated");
  await ana.call("ticket:typing", { ticketId });
  const [risk] = await ana.events("collision:warning", "viewers:updated");
  check("the warning", pick(risk, "ticketId", "severity"), { ticketId, severity: "typing" });
  await ben.events("agent:typing", "viewers:updated");
  await ana.call("ticket:stop_typing", { ticketId });
  await ana.events("viewers:updated");
  const [stopped] = await ben.events("agent:stopped_typing", "viewers:updated");
  check("who stopped", stopped.agentId, users.ana);

  // An agent that types leaves, and then has no business typing.
  await ben.call("ticket:leave", { ticketId });
  const [, left, rest] = await ana.events("agent:stopped_typing", "agent:left", "viewers:updated");
  check("who left", pick(left, "ticketId", "agentId", "reason"), { ticketId, agentId: users.ben, reason: "left" });
  check("the list", agents(rest.viewers), [`${users.ana} viewing`]);
  ben.send({ event: "ticket:typing", data: { ticketId }, id: 1 });
  check("typing where one is not", (await ben.acknowledgement(1)).error?.code, "conflict");
  for (const client of [ana, ben, second]) client.checkQuiet();
}

async function mistakes({ ana, ben }, ticketId) {
  const events = [
    ["unknown_event", { event: "no:such" }],
    ["bad_request", { event: "ticket:view" }],
    ["bad_request", { event: "ticket:view", data: "t-1" }],
    ["bad_request", { event: "ticket:view", data: { ticketId: "two words" } }],
    ["forbidden", { event: "ticket:view", data: { ticketId, agentId: "mallory" } }],
  ];
  let id = 200;
  for (const [code, frame] of events) {
    id += 1;
    const what = JSON.stringify(frame);
    ben.send({ ...frame, id });
    const { error } = await ben.acknowledgement(id);
    check(`${what} with an id`, error?.code, code);
    check("the error says why", typeof error.message === "string" && error.message !== "", true);
    ben.send(frame);
    const [data] = await ben.events("error");
    check(`${what} without an id`, pick(data, "code", "event"), { code, event: frame.event });
  }
  for (const frame of ["no JSON", "[]", "{}", '{"event":5}', '{"event":"ticket:view","id":1.5}', Buffer.from([1, 2, 3])]) {
    ben.send(frame);
    const [data] = await ben.events("error");
    check(`${frame} is`, data.code, "bad_request");
  }
  // The connection is as good as before, and nobody else has seen anything: what ana gets next is ben's coming.
  await ben.call("ticket:view", { ticketId });
  await ben.events("collision:warning", "viewers:updated");
  await ana.events("agent:joined", "viewers:updated");
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

  const { reason } = await new Client("a bad token", `${url}?token=no.good.token`).endsWith(4001);
  check("the close says why", reason !== "", true);
  await new Client("a bad header", url, { headers: { Authorization: "Bearer no.good.token" } }).endsWith(4001);
  for (const first of [{ event: "authenticate", data: { token: "no.good.token" } }, { event: "ticket:view", data: { ticketId } }]) {
    const client = new Client(`who begins with ${first.event}`, url);
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

async function main() {
  const [url, tokenOfAna, tokenOfBen] = process.argv.slice(2);
  if (!tokenOfBen) throw new Error("usage: node plain.mjs <ws url without query> <token of ana> <token of ben>");
  const tokens = { ana: tokenOfAna, ben: tokenOfBen };
  const users = { ana: subject(tokenOfAna), ben: subject(tokenOfBen) };
  // Another one each time, so that a run finds nothing of the run before.
  const ticketId = `t-plain-${process.pid}-${Date.now()}`;
  const clients = await signIn(url, tokens, users);
  await comeAndGo(clients, users, ticketId);
  await mistakes(clients, ticketId);
  await heartbeat(clients, ticketId);
  await ends(clients, url, users, ticketId);
}

try {
  await main();
  process.stdout.write(`${JSON.stringify({ ok: true, checks })}\n`);
} catch (error) {
  process.stderr.write(`${error.stack}\n`);
  process.exitCode = 1;
} finally {
  Client.endAll();
}
