// Rooms of Socket.IO over several processes, by one of its two adapters for Redis:
// `node socketio-cluster.mjs redis|sharded REDIS_URL`.
import { createServer } from "node:http";
import { createAdapter, createShardedAdapter } from "@socket.io/redis-adapter";
import { createClient } from "redis";
import { Server } from "socket.io";

const [adapter, url] = process.argv.slice(2);
const publisher = createClient({ url });
const subscriber = publisher.duplicate();
await Promise.all([publisher.connect(), subscriber.connect()]);

const http = createServer();
const io = new Server(http, {
  adapter: adapter === "sharded" ? createShardedAdapter(publisher, subscriber) : createAdapter(publisher, subscriber),
});

io.on("connection", (socket) => {
  socket.on("join", ({ room }, acknowledge) => {
    socket.join(room);
    acknowledge({});
  });
  socket.on("publish", (data) => io.to(data.room).emit("message", data));
});
http.listen(0, "127.0.0.1", () => console.log(http.address().port));
