// npm `centrifuge` in its Protobuf build, in Node; its peer talks JSON.
import { Centrifuge as Json } from "centrifuge";
import { Centrifuge } from "centrifuge/build/protobuf";
import WebSocket from "ws";
import { network } from "./proxy.mjs";
import { asBytes, story } from "./story.mjs";

const [url, token, peerToken] = process.argv.slice(2);
const net = await network(url);
const encodings = new Set();
class Observed extends WebSocket {
  constructor(...args) {
    super(...args);
    this.on("open", () => encodings.add(this.protocol));
  }
}
try {
  await story(Centrifuge, { websocket: Observed },
    { url: net.url, peerUrl: url, token, peerToken, Peer: Json, data: asBytes,
      cut: () => net.cut(), restore: () => net.restore() });
  if (![...encodings].every((name) => ["centrifuge-protobuf", ""].includes(name)) || encodings.size !== 2) {
    throw new Error(`not both encodings were spoken: ${[...encodings]}`);
  }
  console.log("spoken in Protobuf to a peer in JSON");
} finally {
  net.close();
}
