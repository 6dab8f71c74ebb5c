// npm `centrifuge`, in Node: away for 1, 100 and 10,000 publications, over each transport and in
// both encodings.
import { Centrifuge as Json } from "centrifuge";
import { Centrifuge as Protobuf } from "centrifuge/build/protobuf";
import WebSocket from "ws";
import { network } from "./proxy.mjs";
import { asBytes } from "./story.mjs";

const [url, token, peerToken] = process.argv.slice(2);
const socket = (base) => base.replace("http", "ws") + "/connection/websocket";
const stream = (base) => [{ transport: "http_stream", endpoint: `${base}/connection/http_stream` }];
const fast = { minReconnectDelay: 50, maxReconnectDelay: 300, timeout: 20000 };
const net = await network(url);
const streams = { fetch, readableStream: ReadableStream, emulationEndpoint: `${net.url}/emulation` };
const clients = {
  "websocket json": [Json, socket(net.url), { websocket: WebSocket }, (data) => data],
  "websocket protobuf": [Protobuf, socket(net.url), { websocket: WebSocket }, asBytes.from],
  "http_stream json": [Json, stream(net.url), streams, (data) => data],
  "http_stream protobuf": [Protobuf, stream(net.url), streams, asBytes.from],
};
const peer = new Json(socket(url), { token: peerToken, websocket: WebSocket, ...fast });
peer.connect();
await peer.ready();

const followed = Object.entries(clients).map(([name, [Client, endpoint, options, from]]) => {
  const client = new Client(endpoint, { token, ...fast, ...options });
  const subscription = client.newSubscription("deep:1", { recoverable: true });
  const got = [];
  const recoveries = [];
  subscription.on("publication", (event) => got.push(from(event.data)));
  subscription.on("subscribed", (event) => event.wasRecovering && recoveries.push(event.recovered));
  subscription.subscribe();
  client.connect();
  return { name, client, subscription, got, recoveries };
});
await Promise.all(followed.map(({ subscription }) => subscription.ready(20000)));

let next = 0;
const publish = async (count) => {
  for (const end = next + count; next < end;) {
    // Commands of one connection are obeyed in their order.
    const some = Array.from({ length: Math.min(500, end - next) }, () => peer.publish("deep:1", next++));
    await Promise.all(some);
  }
};
await publish(3);
for (const missed of [1, 100, 10000]) {
  const lost = followed.map(({ client }) => new Promise((resolve) => client.once("connecting", resolve)));
  await net.cut();
  await Promise.all(lost);
  await publish(missed);
  await net.restore();
  for (const { name, got } of followed) {
    const until = Date.now() + 30000;
    while (got.length < next) {
      if (Date.now() > until) throw new Error(`${name}: ${got.length} of ${next}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
  console.log(`${missed} missed and recovered`);
}
for (const { name, client, got, recoveries } of followed) {
  if (!got.every((n, at) => n === at)) throw new Error(`${name}: lost or out of order`);
  if (!recoveries.every((recovered) => recovered)) throw new Error(`${name}: not recovered`);
  client.disconnect();
}
peer.disconnect();
net.close();
