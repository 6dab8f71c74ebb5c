// A network that can be cut: forwards TCP to the node until told to drop everything.
import net from "node:net";

export async function network(target) {
  const { hostname, port } = new URL(target);
  const open = new Set();
  let up = true;
  const server = net.createServer((client) => {
    if (!up) return client.destroy();
    const node = net.connect(Number(port), hostname);
    for (const [from, to] of [[client, node], [node, client]]) {
      open.add(from);
      from.pipe(to);
      from.on("error", () => to.destroy());
      from.on("close", () => { open.delete(from); to.destroy(); });
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    cut() { up = false; for (const socket of open) socket.destroy(); },
    restore() { up = true; },
    close() { this.cut(); server.close(); },
  };
}
