// The client of the private messaging example in the Socket.IO documentation, with the host as its server.
//
// Usage: node private-messaging.mjs <http url>
//
// Prints {"ok":true,"checks":N} and exits 0; or exits 1 with the first failed check.

import { io } from "socket.io-client";
import { bounded, check, run } from "./checks.mjs";

/** A page of the example: the form for the name, and the session that its browser stores. */
class Page {
  isAtForm = true;
  heard = {};
  #waiting = {};

  constructor(url, sessionID) {
    this.socket = io(url, { autoConnect: false, forceNew: true, reconnectionDelay: 100 });
    this.socket.onAny((event, ...args) => this.#hear(event, args[0]));
    this.socket.on("connect", () => this.#hear("connect"));
    this.socket.on("connect_error", (error) => {
      if (error.message === "invalid username") this.isAtForm = true;
      this.#hear("connect_error", error);
    });
    this.socket.on("session", (session) => {
      this.session = session;
      this.socket.auth = { sessionID: session.sessionID };
    });
    if (sessionID !== undefined) this.#connect({ sessionID });
  }

  choose(username) {
    this.#connect({ username });
  }

  #connect(auth) {
    this.isAtForm = false;
    this.socket.auth = auth;
    this.socket.connect();
  }

  #hear(event, data) {
    (this.heard[event] ??= []).push(data);
    this.#waiting[event]?.();
  }

  async next(event) {
    const heard = async () => {
      while (!this.heard[event]?.length) await new Promise((resolve) => (this.#waiting[event] = resolve));
      return this.heard[event].shift();
    };
    return bounded(heard(), () => `a ${event}`);
  }
}

const pages = [];

async function main([url]) {
  const page = (sessionID) => {
    pages.push(new Page(url, sessionID));
    return pages.at(-1);
  };
  const forger = page("forged");
  const error = await forger.next("connect_error");
  check("the reason", error.message, "invalid username");
  check("its data", error.data, { content: "Please retry with a name" });
  check("the form is there again", forger.isAtForm, true);
  check("it does not reconnect by itself", forger.socket.active, false);
  forger.choose("eve");
  await forger.next("connect");
  check("the form is gone", forger.isAtForm, false);
  await forger.next("session");

  const ana = page();
  ana.choose("ana");
  await ana.next("session");
  const users = await ana.next("users");
  check("who is there", users.map(({ username }) => username).sort(), ["ana", "eve"]);
  const announced = await forger.next("user connected");
  check("who came", announced.username, "ana");

  const eve = users.find(({ username }) => username === "eve");
  ana.socket.emit("private message", { content: "hello", to: eve.userID });
  const message = await forger.next("private message");
  check("the message", [message.content, message.from], ["hello", ana.session.userID]);

  // The page is loaded again: the stored session comes back, without the form.
  const { session } = ana;
  ana.socket.disconnect();
  check("who left", await forger.next("user disconnected"), session.userID);
  const again = page(session.sessionID);
  check("the same session", await again.next("session"), session);
  check("no form", again.isAtForm, false);
  check("she is back", (await forger.next("user connected")).userID, session.userID);
}

await run(main, () => pages.forEach(({ socket }) => socket.disconnect()));
