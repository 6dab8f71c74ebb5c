// npm `centrifuge` over an HTTP stream or server-sent events, in Node: in JSON, or in Protobuf if
// that is named. Its peer has a WebSocket, and talks JSON.
import { Centrifuge as Json } from "centrifuge";
import { Centrifuge as Protobuf } from "centrifuge/build/protobuf";
import { EventSource } from "eventsource";
import WebSocket from "ws";
import { network } from "./proxy.mjs";
import { asBytes, story } from "./story.mjs";

const [url, token, peerToken, transport, encoding] = process.argv.slice(2);
const net = await network(url);
const media = new Set();
const observed = async (...request) => {
  const response = await fetch(...request);
  if (String(request[0]).includes(`/connection/${transport}`)) media.add(response.headers.get("content-type"));
  return response;
};
const given = { url: net.url, peerUrl: url, token, peerToken, transport, Peer: Json,
  cut: () => net.cut(), restore: () => net.restore() };
try {
  const eventsource = class extends EventSource {
    constructor(address) {
      super(address, { fetch: observed });
    }
  };
  const options = { websocket: WebSocket, fetch: observed, readableStream: ReadableStream, eventsource };
  if (encoding === "protobuf") await story(Protobuf, options, { ...given, data: asBytes });
  else await story(Json, options, given);
  console.log(`streamed as ${[...media].map((type) => type.split(";")[0])}`);
} finally {
  net.close();
}
