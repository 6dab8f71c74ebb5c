// Maps, in Node: over a WebSocket, an HTTP stream or server-sent events, in JSON or in Protobuf.
import { Centrifuge as Json } from "centrifuge";
import { Centrifuge as Protobuf } from "centrifuge/build/protobuf";
import { EventSource } from "eventsource";
import WebSocket from "ws";
import { maps } from "./maps.mjs";
import { network } from "./proxy.mjs";
import { asBytes } from "./story.mjs";

const [url, token, peerToken, transport, encoding] = process.argv.slice(2);
const net = await network(url);
try {
  const given = { url: net.url, peerUrl: url, token, peerToken, Peer: Json,
    transport: transport === "websocket" ? undefined : transport,
    cut: () => net.cut(), restore: () => net.restore() };
  const options = { websocket: WebSocket, fetch, readableStream: ReadableStream,
    eventsource: EventSource };
  if (encoding === "protobuf") await maps(Protobuf, options, { ...given, data: asBytes });
  else await maps(Json, options, given);
} finally {
  net.close();
}
