// A Socket.IO server with its defaults. A client joins a room and publishes to one by events:
// `join ROOM` (acknowledged) and `publish ROOM DATA`. Only WebSocket, as on the other sides.
import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer();
const io = new Server(http, { serveClient: false, transports: ["websocket"] });
io.on("connection", (socket) => {
  socket.on("join", (room, joined) => {
    socket.join(room);
    joined();
  });
  socket.on("publish", (room, data) => {
    socket.to(room).emit("message", data);
  });
});
http.listen({ host: "127.0.0.1", port: Number(process.argv[2]), backlog: 4096 });
