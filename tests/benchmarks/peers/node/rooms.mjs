// What each server of Socket.IO does: members join rooms, and publish to them. Prints its port.
export function serve(http, io) {
  io.on("connection", (socket) => {
    socket.on("join", ({ room }, acknowledge) => {
      socket.join(room);
      acknowledge({});
    });
    socket.on("publish", (data) => io.to(data.room).emit("message", data));
  });
  http.listen(0, "127.0.0.1", () => console.log(http.address().port));
}
