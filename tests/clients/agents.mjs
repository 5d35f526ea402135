// Many agents on many tickets, half of them on socket.io-client and half on a bare WebSocket, through a load balancer before
// several hosts. Two who come to a ticket are always warned; then all view and leave at random, and at each rest the list of
// viewers that each agent has is that of a model.
//
// Usage: node agents.mjs <http url> <secret of the tokens> <agents> <tickets> <rounds> <seed>
//
// Prints {"ok":true,"checks":N} and exits 0; or exits 1 with the first failed check.

import { createHmac } from "node:crypto";
import { io } from "socket.io-client";
import WebSocket from "ws";
import { bounded, check, run } from "./checks.mjs";

/** The most tickets that an agent views. */
const VIEWED = 3;

/** A JSON Web Token for a user. */
function token(user, secret) {
  const encode = (object) => Buffer.from(JSON.stringify(object)).toString("base64url");
  const signed = `${encode({ alg: "HS256", typ: "JWT" })}.${encode({ sub: user, name: user })}`;
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
}

/** Random numbers below `n` (mulberry32), the same for the same seed. */
function randomNumbers(seed) {
  let state = seed;
  return (n) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * n);
  };
}

/** socket.io-client, unmodified. */
class SocketIoAgent {
  constructor(url, auth, tell) {
    this.socket = io(url, { auth, transports: ["websocket"], reconnection: false, forceNew: true });
    this.socket.onAny(tell);
    this.socket.on("disconnect", (reason) => tell("disconnected", reason));
  }

  connected() {
    return new Promise((resolve, reject) => this.socket.on("connect", resolve).on("connect_error", reject));
  }

  ask(event, data) {
    return this.socket.emitWithAck(event, data);
  }

  close() {
    this.socket.off("disconnect").close();
  }
}

/** A bare WebSocket with the plain protocol. */
class PlainAgent {
  #asked = new Map();
  #last = 0;

  constructor(url, auth, tell) {
    this.socket = new WebSocket(`${url.replace("http", "ws")}/ws?token=${auth.token}`);
    this.socket.on("message", (text) => {
      const frame = JSON.parse(text);
      const asked = this.#asked.get(frame.id);
      this.#asked.delete(frame.id);
      if (asked) asked(frame);
      else if (frame.event) tell(frame.event, frame.data);
    });
    this.socket.on("close", (code) => this.isClosing || tell("disconnected", code));
  }

  connected() {
    return new Promise((resolve, reject) => this.socket.on("open", resolve).on("error", reject));
  }

  ask(event, data) {
    this.#last += 1;
    const id = this.#last;
    this.socket.send(JSON.stringify({ event, data, id }));
    return new Promise((resolve, reject) => {
      this.#asked.set(id, (frame) => (frame.error ? reject(new Error(JSON.stringify(frame.error))) : resolve(frame.data)));
    });
  }

  close() {
    this.isClosing = true;
    this.socket.close();
  }
}

/** An agent with the lists of viewers that it was told. */
class Agent {
  lists = new Map();
  told = [];

  constructor(number, url, secret) {
    this.name = `agent-${number}`;
    const tell = (event, data) => {
      if (event === "viewers:updated" && this.lists.has(data.ticketId)) this.lists.set(data.ticketId, names(data));
      else this.told.push([event, data]);
    };
    const Protocol = number % 2 ? PlainAgent : SocketIoAgent;
    this.client = new Protocol(url, { token: token(this.name, secret) }, tell);
  }

  async view(ticketId) {
    // Lists may come before the answer, and are newer than none.
    this.lists.set(ticketId, []);
    const { viewers } = await bounded(this.client.ask("ticket:view", { ticketId }), () => `${this.name} to view ${ticketId}`);
    if (this.lists.get(ticketId).length === 0) this.lists.set(ticketId, names({ viewers }));
  }

  async leave(ticketId) {
    await bounded(this.client.ask("ticket:leave", { ticketId }), () => `${this.name} to leave ${ticketId}`);
    this.lists.delete(ticketId);
  }

  /** Takes an event of a ticket, which may not have come yet. */
  async event(event, ticketId) {
    const find = () => this.told.findIndex(([told, data]) => told === event && data.ticketId === ticketId);
    const come = async () => {
      while (find() < 0) await pause();
    };
    await bounded(come(), () => `${this.name} to get ${event} of ${ticketId}`);
    return this.told.splice(find(), 1)[0][1];
  }
}

const names = ({ viewers }) => viewers.map((viewer) => viewer.agentId).sort();
const pause = () => new Promise((resolve) => setTimeout(resolve, 20));

/** Two agents come to each ticket, one after the other: the second is warned of the first, who is told of the second. */
async function warnsPairs(agents, tickets) {
  for (let n = 0; n < tickets; n += 1) {
    const [first, second, ticketId] = [agents[(2 * n) % agents.length], agents[(2 * n + 1) % agents.length], `pair-${n}`];
    await first.view(ticketId);
    await second.view(ticketId);
    check(`the warning at ${ticketId}`, names(await second.event("collision:warning", ticketId)), [first.name]);
    check(`who joined ${ticketId}`, (await first.event("agent:joined", ticketId)).agentId, second.name);
    await Promise.all([first.leave(ticketId), second.leave(ticketId)]);
  }
}

/** All agents view and leave at random, and rest. */
async function views(agents, tickets, rounds, random) {
  const model = new Map(agents.map((agent) => [agent, new Set()]));
  for (let round = 0; round < rounds; round += 1) {
    await Promise.all(
      agents.map(async (agent) => {
        const viewed = model.get(agent);
        const ticketId = `ticket-${random(tickets)}`;
        if (viewed.has(ticketId) || viewed.size >= VIEWED) {
          const left = viewed.has(ticketId) ? ticketId : [...viewed][random(viewed.size)];
          viewed.delete(left);
          return agent.leave(left);
        }
        viewed.add(ticketId);
        return agent.view(ticketId);
      }),
    );
    const viewers = (ticketId) => agents.filter((agent) => model.get(agent).has(ticketId)).map((agent) => agent.name).sort();
    const differs = () =>
      agents.flatMap((agent) => [...model.get(agent)].filter((id) => `${agent.lists.get(id)}` !== `${viewers(id)}`).map((id) => [agent, id]))[0];
    const rest = async () => {
      while (differs()) await pause();
    };
    const shown = ([agent, id]) => `${agent.name} to see [${viewers(id)}] at ${id}, not [${agent.lists.get(id)}]`;
    await bounded(rest(), () => shown(differs()));
    check(`the rest after round ${round}`, differs(), undefined);
  }
}

run(async ([url, secret, ...numbers]) => {
  const [nAgents, tickets, rounds, seed] = numbers.map(Number);
  const agents = Array.from({ length: nAgents }, (_, number) => new Agent(number, url, secret));
  await bounded(Promise.all(agents.map((agent) => agent.client.connected())), () => "all agents to connect", 30_000);
  await warnsPairs(agents, tickets);
  await views(agents, tickets, rounds, randomNumbers(seed));
  check("nobody was disconnected", agents.flatMap(({ told }) => told.filter(([event]) => event === "disconnected")), []);
  agents.forEach((agent) => agent.client.close());
});
