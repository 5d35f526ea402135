// A line between clients and the host, which can be cut like a cable, and can keep WebSockets waiting.

import { once } from "node:events";
import net from "node:net";
import { bounded } from "./checks.mjs";

export class Line {
  #server;
  #wires = new Set();
  #isUp = true;
  #released = Promise.resolve();
  #release = () => {};
  #changed = () => {};

  /** A line to the host at `url`. */
  static async to(url) {
    const line = new Line();
    const { protocol, hostname, port } = new URL(url);
    line.#server = net.createServer((client) => line.#connect(client, net.connect(port, hostname)));
    line.#server.listen(0, "127.0.0.1");
    await once(line.#server, "listening");
    // Connections that are still open at the end do not keep the process.
    line.#server.unref();
    line.url = `${protocol}//127.0.0.1:${line.#server.address().port}`;
    return line;
  }

  /** Ends all connections, as who pulls a plug, and lets none come into being. */
  async cut() {
    // A polling client without an open request, as between two, may be cut without the host noticing.
    const open = async () => {
      while (![...this.#wires].some(({ isOpen }) => isOpen)) await new Promise((resolve) => (this.#changed = resolve));
    };
    await bounded(open(), () => "a connection to cut");
    this.#isUp = false;
    for (const wire of this.#wires) wire.end();
  }

  mend() {
    this.#isUp = true;
  }

  /** New WebSockets get no answer until they are released. */
  holdWebSockets() {
    this.#released = new Promise((resolve) => (this.#release = resolve));
  }

  releaseWebSockets() {
    this.#release();
  }

  #connect(client, host) {
    const wire = {
      isOpen: false,
      end: () => {
        client.destroy();
        host.destroy();
        this.#wires.delete(wire);
      },
    };
    this.#wires.add(wire);
    for (const socket of [client, host]) socket.setNoDelay().on("error", wire.end).on("close", wire.end);
    if (!this.#isUp) return wire.end();
    let isWebSocket = false;
    client.on("data", async (bytes) => {
      const head = bytes.toString("latin1");
      isWebSocket ||= /^upgrade: *websocket/im.test(head);
      const opens = isWebSocket || (wire.isOpen && !head.startsWith("POST ")) || /^GET \/socket\.io\//.test(head);
      if (isWebSocket) await this.#released;
      // Not before: the host cannot miss a request that never reached it.
      host.write(bytes, () => {
        wire.isOpen = opens;
        this.#changed();
      });
    });
    host.on("data", (bytes) => {
      wire.isOpen &&= isWebSocket;
      client.write(bytes);
    });
  }
}
