// Views a ticket over the plain protocol, prints each event, and leaves once it has the list of viewers.
//
// Usage: node client.mjs URL TOKEN TICKET, on Node 22; on Node 20 with --experimental-websocket.

const [url, token, ticketId] = process.argv.slice(2);
const address = `${url.replace(/^http/, "ws")}/ws?token=${token}`;

const socket = new WebSocket(address);
const pending = new Map(); // Events that wait for their acknowledgement, by id.
let nextId = 1;

/** Sends an event, and resolves with the data of its acknowledgement. */
function emitWithAck(event, data) {
  const id = nextId++;
  socket.send(JSON.stringify({ event, data, id }));
  return new Promise((resolve, reject) => pending.set(id, { resolve, reject }));
}

async function onEvent(event, data) {
  console.log(event, JSON.stringify(data));
  if (event === "connected") {
    const reply = await emitWithAck("ticket:view", { ticketId });
    console.log("acknowledged", JSON.stringify(reply));
  }
  if (event === "viewers:updated") {
    await emitWithAck("ticket:leave", { ticketId });
    socket.close(1000);
  }
}

socket.onmessage = ({ data }) => {
  const frame = JSON.parse(data);
  if (frame.event) return onEvent(frame.event, frame.data);
  const { resolve, reject } = pending.get(frame.id);
  pending.delete(frame.id);
  // A refusal has a code for programs and a message for people.
  return frame.error ? reject(new Error(`${frame.error.code}: ${frame.error.message}`)) : resolve(frame.data);
};
socket.onclose = ({ code, reason }) => {
  console.log(`closed: ${code} ${reason}`);
  // 4001 and 4002 need a new token; after other codes a client connects again, a little later each time.
  process.exit(code === 1000 ? 0 : 1);
};
