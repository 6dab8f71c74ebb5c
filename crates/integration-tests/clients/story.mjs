// What every unmodified client has to manage; the same in Node and in a browser, over every
// transport, and in both encodings: the client of a binary one takes and gives data as bytes.
const same = (data) => data;
export const asBytes = {
  to: (data) => new TextEncoder().encode(JSON.stringify(data)),
  from: (data) => JSON.parse(new TextDecoder().decode(data)),
};

const socketUrl = (base) => base.replace("http", "ws") + "/connection/websocket";
// Where and how a client connects by an answer without an end, and by requests of its own.
const streaming = (base, transport) => ({
  endpoint: [{ transport, endpoint: `${base}/connection/${transport}` }],
  options: { emulationEndpoint: `${base}/emulation` },
});

export async function story(Centrifuge, options, { url, token, peerToken, cut, restore, peerUrl, transport,
  Peer = Centrifuge, data = { to: same, from: same } }) {
  const say = (text) => console.log(text);
  const must = (holds, text) => { if (!holds) throw new Error(text); };
  const within = (promise, what) => Promise.race([
    promise, new Promise((_, reject) => setTimeout(() => reject(new Error(`no ${what} in 20 s`)), 20000)),
  ]);
  const fast = { minReconnectDelay: 50, maxReconnectDelay: 300, ...options };
  const by = transport ? streaming(url, transport) : { endpoint: socketUrl(url) };
  // A token that soon ends, its successor, and one for a single channel.
  const permits = JSON.parse(token);
  let refreshed = 0;
  const getToken = async () => { refreshed++; return permits.lasting; };
  const client = new Centrifuge(by.endpoint, { token: permits.short, getToken, ...fast, ...by.options });
  const personal = new Promise((resolve) => client.on("publication", (event) => resolve([event.channel, data.from(event.data)])));
  const peer = new Peer(socketUrl(peerUrl), { token: peerToken, ...fast });

  client.connect(); peer.connect();
  await within(Promise.all([client.ready(), peer.ready()]), "connection");
  say("connected");

  const got = [];
  const subscription = client.newSubscription("room", { recoverable: true });
  const recoveries = [];
  subscription.on("publication", (event) => got.push(data.from(event.data).n));
  subscription.on("subscribed", (event) => recoveries.push([event.wasRecovering, event.recovered]));
  subscription.subscribe();
  await within(subscription.ready(), "subscription");
  say("subscribed");

  const publish = async (from, to) => { for (let n = from; n < to; n++) await peer.publish("room", { n }); };
  const arrived = (count) => within((async () => {
    while (got.length < count) await new Promise((resolve) => setTimeout(resolve, 10));
  })(), `publication ${count}`);
  await publish(0, 20);
  await arrived(20);
  say("20 publications arrived");

  const rpc = async (method, argument) => data.from((await client.rpc(method, data.to(argument))).data);
  const put = await rpc("state.put", { document: "user:ann", key: "k", value: { a: 1 } });
  must(put.revision >= 1, "no revision");
  const patched = await rpc("state.patch", { document: "user:ann", key: "k", value: { b: 2 } });
  must(patched.value.a === 1 && patched.value.b === 2, "the patch was not merged");
  let refused;
  try { await rpc("no.such", {}); } catch (error) { refused = error; }
  must(refused && refused.code === 104, "a missing method was not refused with 104");
  const newest = (await subscription.history({ limit: 5, reverse: true })).publications[0];
  must(data.from(newest.data).n === 19, "history");
  say("rpc and history answered");

  for (let round = 0; round < 3; round++) {
    const from = 20 + round * 20;
    const away = within(new Promise((resolve) => client.once("connecting", resolve)), "loss");
    await cut();
    await away;
    await publish(from, from + 20);
    await restore();
    await arrived(from + 20);
  }
  must(got.every((n, at) => n === at), `lost or reordered: ${got}`);
  must(recoveries.length === 4 && recoveries.slice(1).every(([was, ok]) => was && ok), JSON.stringify(recoveries));
  say("3 losses of the network, nothing lost: 80 publications in order");

  // The other way: the peer takes what this client publishes.
  const heard = peer.newSubscription("room");
  const echoed = new Promise((resolve) => heard.on("publication", (event) => resolve(event.data.n)));
  heard.subscribe();
  await within(heard.ready(), "subscription of the peer");
  await subscription.publish(data.to({ n: 80 }));
  must(await within(echoed, "publication to the peer") === 80, "the peer got something else");

  // A channel that is a value: whoever comes is given the newest.
  for (const price of [1, 2, 3]) await peer.publish("price:1", { price });
  const price = client.newSubscription("price:1", { since: { offset: 0, epoch: "" } });
  const given = new Promise((resolve) => price.on("publication", (event) => resolve(event.data)));
  price.subscribe();
  must(data.from(await within(given, "newest price")).price === 3, "another price");
  say("the newest is given");

  // Who is there, and who comes and goes.
  const lobby = client.newSubscription("lobby:1", { joinLeave: true });
  const moves = [];
  // What the token of a connection says of it, if anything.
  const team = (info) => (info === undefined || info.length === 0 ? "" : ` of ${data.from(info).team}`);
  for (const move of ["join", "leave"]) {
    lobby.on(move, ({ info }) => moves.push(`${move} ${info.user}${team(info.connInfo)}`));
  }
  lobby.subscribe();
  await within(lobby.ready(), "subscription to the lobby");
  const visit = peer.newSubscription("lobby:1");
  visit.subscribe();
  await within(visit.ready(), "visit");
  const { clients } = await lobby.presence();
  must(Object.values(clients).map((info) => info.user).sort().join() === "ann,peer", JSON.stringify(clients));
  const stats = await visit.presenceStats();
  must(stats.numClients === 2 && stats.numUsers === 2, JSON.stringify(stats));
  visit.unsubscribe();
  const moved = within((async () => {
    while (moves.length < 3) await new Promise((resolve) => setTimeout(resolve, 10));
  })(), "leave");
  await moved.catch((error) => { throw new Error(`${error.message}: ${moves}`); });
  must(moves.join() === "join ann,join peer of press,leave peer of press", moves.join());
  say("presence, joins and leaves are told");
  // A channel that nobody may follow without a token for it.
  const closed = client.newSubscription("closed:1");
  const shut = new Promise((resolve) => closed.on("unsubscribed", (event) => resolve(event.code)));
  closed.subscribe();
  must(await within(shut, "refusal") === 103, "the closed channel is open");
  client.removeSubscription(closed);
  const opened = client.newSubscription("closed:1", { getToken: async () => permits.closed });
  opened.subscribe();
  await within(opened.ready(), "subscription by token");
  say("a token opens a closed channel");

  // The channel that the server has subscribed it to.
  await peer.publish("#ann", { for: "ann" });
  const [name, letter] = await within(personal, "publication in its own channel");
  must(name === "#ann" && letter.for === "ann", `${name} ${JSON.stringify(letter)}`);
  say("its own channel came by itself");

  // Publications by what differs from the last, also over a loss of the network.
  const ticks = client.newSubscription("ticks:1", { delta: "fossil", recoverable: true });
  const values = [];
  ticks.on("publication", (event) => values.push(data.from(event.data)));
  ticks.subscribe();
  await within(ticks.ready(), "subscription to ticks");
  const tick = (n) => ({ n, name: "a name that stays – é✓", list: Array.from({ length: 20 }, (_, at) => at === n % 20 ? n : 0) });
  const run = async (from, to) => { for (let n = from; n < to; n++) await peer.publish("ticks:1", tick(n)); };
  await run(0, 20);
  const away = within(new Promise((resolve) => client.once("connecting", resolve)), "loss");
  await cut();
  await away;
  await run(20, 30);
  await restore();
  await within(ticks.ready(), "subscription to ticks");
  await run(30, 50);
  await within((async () => {
    while (values.length < 50) await new Promise((resolve) => setTimeout(resolve, 10));
  })(), "tick");
  must(values.every((value, n) => JSON.stringify(value) === JSON.stringify(tick(n))), JSON.stringify(values));
  say("differences make the same values");

  await within((async () => {
    while (refreshed === 0) await new Promise((resolve) => setTimeout(resolve, 10));
  })(), "refresh");
  must(client.state === "connected", client.state);
  say("a fresh token was brought in time");
  if (transport) {
    must(client._transport.name() === transport, client._transport.name());
    say(`over ${transport}`);
  }

  client.disconnect(); peer.disconnect();
  return got.length;
}
