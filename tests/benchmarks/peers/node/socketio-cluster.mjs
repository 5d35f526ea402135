// Rooms of Socket.IO over several processes, by one of its two adapters for Redis:
// `node socketio-cluster.mjs redis|sharded REDIS_URL`.
import { createServer } from "node:http";
import { createAdapter, createShardedAdapter } from "@socket.io/redis-adapter";
import { createClient } from "redis";
import { Server } from "socket.io";
import { serve } from "./rooms.mjs";

const [adapter, url] = process.argv.slice(2);
const publisher = createClient({ url });
const subscriber = publisher.duplicate();
await Promise.all([publisher.connect(), subscriber.connect()]);

const http = createServer();
const io = new Server(http, {
  adapter: adapter === "sharded" ? createShardedAdapter(publisher, subscriber) : createAdapter(publisher, subscriber),
});

serve(http, io);
