// Rooms of Socket.IO with all its defaults: the server that Roundhouse takes the place of.
import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer();
const io = new Server(http);

io.on("connection", (socket) => {
  socket.on("join", ({ room }, acknowledge) => {
    socket.join(room);
    acknowledge({});
  });
  socket.on("publish", (data) => io.to(data.room).emit("message", data));
});
http.listen(0, "127.0.0.1", () => console.log(http.address().port));
