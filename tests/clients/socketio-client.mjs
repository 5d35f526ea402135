// A Socket.IO client that keeps received events until a script reads them, in the newest version and in an old one.

import { io as newest } from "socket.io-client";
import { io as old } from "socket.io-client-4.1";
import { Inbox, check } from "./checks.mjs";

/** The libraries: whether they ask for what they missed when they come back is what tells them apart. */
export const VERSIONS = {
  newest: { io: newest, recovers: true },
  4.1: { io: old, recovers: false },
};

export const TRANSPORTS = {
  polling: ["polling"],
  websocket: ["websocket"],
  upgrade: ["polling", "websocket"],
};

export class SocketIoClient {
  static #all = [];
  #inbox;

  /** A client of this version (newest unless `io` says another) with the library's own options. */
  constructor(name, url, { io = newest, ...options }) {
    this.name = name;
    this.#inbox = new Inbox(name);
    // Each client has a connection of its own, and reconnects soon.
    this.socket = io(url, { forceNew: true, reconnectionDelay: 100, reconnectionDelayMax: 500, ...options });
    this.socket.onAny((event, ...args) => this.#inbox.push({ event, args }));
    this.socket.on("connect", () => this.#inbox.push({ own: "connect" }));
    this.socket.on("connect_error", (error) => this.#inbox.push({ own: "connect_error", error }));
    this.socket.on("disconnect", (reason) => this.#inbox.push({ own: "disconnect", reason }));
    SocketIoClient.#all.push(this);
  }

  static endAll() {
    for (const { socket } of SocketIoClient.#all) socket.disconnect();
  }

  get transport() {
    return this.socket.io.engine.transport.name;
  }

  /** Sends an event that is not to be acknowledged. */
  tell(event, ...args) {
    this.socket.emit(event, ...args);
  }

  /** Sends an event that is to be acknowledged with data. */
  async call(event, ...args) {
    const reply = await this.#ask(event, args);
    check(`${event} is acknowledged`, reply?.error, undefined);
    return reply;
  }

  /** Sends an event that is to be refused, and gives the error of its acknowledgement. */
  async refused(event, ...args) {
    const reply = await this.#ask(event, args);
    check(`${event} is refused`, typeof reply?.error, "object");
    return reply.error;
  }

  async #ask(event, args) {
    const answer = {};
    this.socket.emit(event, ...args, (...reply) => {
      answer.reply = reply;
      this.#inbox.wake();
    });
    const reply = await this.#inbox.until(`an acknowledgement of ${event}`, () => answer.reply);
    // An acknowledgement without data has no argument. The plain protocol has null then.
    check(`the acknowledgement of ${event} has at most one argument`, reply.length <= 1, true);
    return reply[0] ?? null;
  }

  /** The next events, in their order. */
  async events(...names) {
    const events = [];
    for (const name of names) {
      const frame = await this.#inbox.take(name, () => true);
      check(`${this.name} gets`, frame.event ?? frame, name);
      events.push(this.#data(frame));
    }
    return events;
  }

  /** The data of `n` events of this name, whichever events come between. */
  async eventsNamed(name, n) {
    const frames = await this.#inbox.takeAll(n, name, ({ event }) => event === name);
    return frames.map((frame) => this.#data(frame));
  }

  /** The one argument of an event. Behind it may stand where in the stream the event was, for who comes back. */
  #data({ event, args: [data, ...more] }) {
    check(`what follows the data of ${event}`, more.map((arg) => typeof arg), more.length ? ["string"] : []);
    return data;
  }

  checkQuiet() {
    this.#inbox.checkEmpty();
  }

  /** Waits until the host has let it in, again or for the first time, and gives its id. */
  async connected() {
    await this.#own("connect");
    check("the id is a connection's", /^[0-9a-f]{16}$/.test(this.socket.id), true);
    return this.socket.id;
  }

  async disconnected() {
    return (await this.#own("disconnect")).reason;
  }

  /** Waits until the host has refused it, and gives the error. */
  async turnedAway() {
    return (await this.#own("connect_error")).error;
  }

  /** Waits for what becomes of the connection. Attempts that reach nobody are no news. */
  async #own(name) {
    for (;;) {
      const frame = await this.#inbox.take(`a ${name}`, ({ own }) => own !== undefined);
      if (frame.own === "connect_error" && frame.error.data === undefined && name === "connect") continue;
      if (frame.own !== name) throw new Error(`${this.name} gets a ${frame.own} (${frame.error ?? frame.reason ?? ""}) and no ${name}`);
      return frame;
    }
  }

  /** Waits until the transport is this one. */
  async isOn(transport) {
    const { engine } = this.socket.io;
    engine.once("upgrade", () => this.#inbox.wake());
    await this.#inbox.until(`the transport ${transport}, from ${this.transport}`, () => (this.transport === transport ? true : undefined));
    check("the transport", engine.transport.name, transport);
  }

  /** Loses its transport, which is no goodbye. */
  async loses() {
    this.socket.io.engine.close();
    return this.disconnected();
  }
}
