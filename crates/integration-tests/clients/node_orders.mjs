// npm `centrifuge`, in Node: what a service has its connection do, in JSON and in Protobuf.
import { Centrifuge as Json } from "centrifuge";
import { Centrifuge as Protobuf } from "centrifuge/build/protobuf";
import WebSocket from "ws";
import { asBytes } from "./story.mjs";

const [url, token, service] = process.argv.slice(2);
const order = async (body) => {
  const answer = await fetch(`${url}/crosstown/v1/connections/orders`, { method: "POST",
    headers: { authorization: `Bearer ${service}`, "content-type": "application/json" },
    body: JSON.stringify({ to: { user: "ann" }, order: body }) });
  const { connections } = await answer.json();
  if (connections !== 1) throw new Error(`${connections} connections were told`);
};
const same = (data) => data;
for (const [name, Centrifuge, read] of [["json", Json, same], ["protobuf", Protobuf, asBytes.from]]) {
  const client = new Centrifuge(url.replace("http", "ws") + "/connection/websocket",
    { token, websocket: WebSocket, minReconnectDelay: 50, maxReconnectDelay: 100 });
  const told = [];
  const next = async (count) => {
    const end = Date.now() + 20_000;
    while (told.length < count) {
      if (Date.now() > end) throw new Error(`only ${told}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  };
  client.on("message", (event) => told.push(`message ${read(event.data).n}`));
  client.on("subscribed", (event) => told.push(`subscribed ${event.channel}`));
  client.on("publication", (event) => told.push(`publication ${read(event.data).n}`));
  client.on("unsubscribed", (event) => told.push(`unsubscribed ${event.channel}`));
  client.on("connecting", (event) => { if (event.code !== 0) told.push(`connecting ${event.code}`); });
  client.on("disconnected", (event) => told.push(`disconnected ${event.code}`));
  client.connect();
  await client.ready(20_000);
  await order({ do: "send", data: { n: 1 } });
  await order({ do: "subscribe", channel: "closed:1" });
  await next(2);
  const answer = await fetch(`${url}/crosstown/v1/channels/closed:1/publications`, { method: "POST",
    headers: { authorization: `Bearer ${service}`, "content-type": "application/json" }, body: '{"n":2}' });
  if (answer.status !== 201) throw new Error(`${answer.status}`);
  await next(3);
  await order({ do: "unsubscribe", channel: "closed:1" });
  await next(4);
  await order({ do: "disconnect", reconnect: true });
  await next(5);
  await client.ready(20_000);
  await order({ do: "disconnect" });
  await next(6);
  const expected = "message 1,subscribed closed:1,publication 2,unsubscribed closed:1,connecting 3011,disconnected 3503";
  if (told.join() !== expected) throw new Error(told.join());
  console.log(`orders are obeyed in ${name}`);
}
