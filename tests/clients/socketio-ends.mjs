// How a host ends Socket.IO connections, seen by a client: one is disconnected by an operator, one by the host's shutdown.
//
// Usage: node socketio-ends.mjs <http url> <polling|websocket|upgrade> <token>
//
// Prints {"connection": id} of a connection that must then be disconnected, and of another whose host must then
// end; at last {"ok":true,"checks":N}, and exits 0. Or exits 1 with the first failed check.

import { check, run } from "./checks.mjs";
import { SocketIoClient, TRANSPORTS } from "./socketio-client.mjs";

async function main([url, transport, token]) {
  const transports = TRANSPORTS[transport];
  if (!transports || !token) throw new Error("usage: node socketio-ends.mjs <http url> <polling|websocket|upgrade> <token>");
  const connect = async (name) => {
    const client = new SocketIoClient(name, url, { transports, auth: { token } });
    const connection = await client.connected();
    await client.isOn(transports.at(-1));
    process.stdout.write(`${JSON.stringify({ connection })}\n`);
    return client;
  };

  const unwanted = await connect("who is unwanted");
  check("why", await unwanted.disconnected(), "io server disconnect");
  check("it comes back by itself", unwanted.socket.active, false);
  unwanted.checkQuiet();

  const faithful = await connect("who is faithful");
  // A polling client that needs a new TCP connection for its next request finds the listener closed.
  const reasons = transports.at(-1) === "polling" ? ["transport close", "transport error"] : ["transport close"];
  const reason = await faithful.disconnected();
  check(`one of ${reasons}, and not ${reason}`, reasons.includes(reason), true);
  check("it comes back by itself", faithful.socket.active, true);
  faithful.checkQuiet();
}

await run(main, SocketIoClient.endAll);
