// Rooms of Socket.IO with all its defaults: the server that Roundhouse takes the place of.
import { createServer } from "node:http";
import { Server } from "socket.io";
import { serve } from "./rooms.mjs";

const http = createServer();
const io = new Server(http);

serve(http, io);
