// Rooms on bare `ws`, as one writes them first: a set of sockets for each name, and a text made once for all of them.
import { WebSocketServer } from "ws";

const rooms = new Map();
const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });

server.on("connection", (socket) => {
  const joined = [];
  socket.on("message", (message) => {
    const { event, data, id } = JSON.parse(message);
    if (event === "join") {
      if (!rooms.has(data.room)) rooms.set(data.room, new Set());
      rooms.get(data.room).add(socket);
      joined.push(data.room);
    } else if (event === "publish") {
      const text = JSON.stringify({ event: "message", data });
      for (const member of rooms.get(data.room) ?? []) member.send(text);
    }
    if (id !== undefined) socket.send(JSON.stringify({ id, data: {} }));
  });
  socket.on("close", () => {
    for (const room of joined) rooms.get(room).delete(socket);
  });
});
server.on("listening", () => console.log(server.address().port));
