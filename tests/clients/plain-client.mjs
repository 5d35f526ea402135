// A client of the plain protocol on Node's `ws`, which keeps received events until a script reads them.

import WebSocket from "ws";
import { Inbox, STEP_MS, bounded, check } from "./checks.mjs";

export class PlainClient {
  static #all = [];
  #inbox;
  #nextId = 100;
  pings = 0;

  constructor(name, url, options) {
    this.name = name;
    this.#inbox = new Inbox(name);
    this.socket = new WebSocket(url, options);
    // The library answers pings; this only counts them.
    this.socket.on("ping", () => {
      this.pings += 1;
      this.#inbox.wake();
    });
    this.socket.on("message", (data, isBinary) => this.#inbox.push(isBinary ? { binary: true } : JSON.parse(data)));
    this.socket.on("error", (error) => this.#inbox.fail(error));
    this.closed = new Promise((resolve) => {
      this.socket.on("close", (code, reason) => {
        this.#inbox.fail(new Error(`${name} was closed with ${code}: ${reason}`));
        resolve({ code, reason: String(reason) });
      });
    });
    PlainClient.#all.push(this);
  }

  static endAll() {
    for (const { socket } of PlainClient.#all) socket.terminate();
  }

  /** Sends a frame, or what is none. */
  send(frame) {
    this.socket.send(typeof frame === "string" || Buffer.isBuffer(frame) ? frame : JSON.stringify(frame));
  }

  /** Sends an event that is not to be acknowledged. */
  tell(event, data) {
    this.send({ event, data });
  }

  /** Sends an event that is to be acknowledged with data. */
  async call(event, data) {
    const frame = await this.#ask(event, data);
    check(`${event} is acknowledged`, frame.error, undefined);
    return frame.data;
  }

  /** Sends an event that is to be refused, and gives the error of its acknowledgement. */
  async refused(event, data) {
    const { error } = await this.#ask(event, data);
    check(`${event} is refused`, typeof error, "object");
    return error;
  }

  #ask(event, data) {
    const id = this.#nextId++;
    this.send({ event, data, id });
    return this.acknowledgement(id);
  }

  /** The next frame, whatever it is. */
  next() {
    return this.#inbox.take("a frame", () => true);
  }

  /** The next events, in their order; acknowledgements do not count. */
  async events(...names) {
    const events = [];
    for (const name of names) {
      const frame = await this.#inbox.take(name, ({ event }) => event !== undefined);
      check(`${this.name} gets`, frame.event, name);
      events.push(frame.data);
    }
    return events;
  }

  /** The data of `n` events of this name, whichever events come between. */
  async eventsNamed(name, n) {
    const frames = await this.#inbox.takeAll(n, name, ({ event }) => event === name);
    return frames.map(({ data }) => data);
  }

  /** The acknowledgement of `id`, whichever events come before it. */
  acknowledgement(id) {
    return this.#inbox.take(`the acknowledgement ${id}`, (frame) => frame.event === undefined && frame.id === id);
  }

  async getsPings(n, heartbeatMs) {
    await this.#inbox.until(`${n} pings`, () => (this.pings >= n ? true : undefined), n * heartbeatMs + STEP_MS);
    check("pings come", this.pings >= n, true);
  }

  async getsPong() {
    const pong = new Promise((resolve) => this.socket.once("pong", (content) => resolve(String(content))));
    this.socket.ping("are you there");
    check("a ping is answered with its content", await bounded(pong, () => "a pong"), "are you there");
  }

  checkQuiet() {
    this.#inbox.checkEmpty();
  }

  async opened() {
    const { socket } = this;
    if (socket.readyState === WebSocket.CONNECTING) {
      await bounded(new Promise((resolve, reject) => socket.once("open", resolve).once("error", reject)), () => "the handshake");
    }
  }

  /** Waits for the first frame, which says who this is. */
  async connected(user) {
    const { event, data } = await this.next();
    check(`${this.name}'s first frame`, event, "connected");
    check("the user is the token's", data.userId, user);
    check("the connection has an id", typeof data.connectionId === "string" && data.connectionId !== "", true);
    check("the figures are integers", [data.heartbeatMs, data.maxMessageBytes].every((n) => Number.isInteger(n) && n > 0), true);
    return data;
  }

  async endsWith(code) {
    const close = await bounded(this.closed, () => `${this.name}'s end`);
    check(`${this.name}'s close code`, close.code, code);
    return close;
  }
}
