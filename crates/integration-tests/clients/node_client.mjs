// npm `centrifuge`, in Node.
import { Centrifuge } from "centrifuge";
import WebSocket from "ws";
import { network } from "./proxy.mjs";
import { story } from "./story.mjs";

const [url, token, peerToken] = process.argv.slice(2);
const net = await network(url);
try {
  await story(Centrifuge, { websocket: WebSocket },
    { url: net.url, peerUrl: url, token, peerToken, cut: () => net.cut(), restore: () => net.restore() });
} finally {
  net.close();
}
