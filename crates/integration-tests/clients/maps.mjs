// Maps with npm `centrifuge`, the same in Node and in a browser: a document of ten thousand keys
// is followed while it changes a thousand times a second, and every follower ends with the same.
const same = (data) => data;
const KEYS = 10_000, RATE = 1_000, UPDATES_MIN = 5_000, WRITERS = 8;

export async function maps(Centrifuge, options, { url, token, peerToken, transport, cut, restore,
  Peer = Centrifuge, data = { to: same, from: same }, peerUrl }) {
  const must = (holds, text) => { if (!holds) throw new Error(text); };
  const until = async (holds, what) => {
    const end = Date.now() + 60_000;
    while (!holds()) {
      must(Date.now() < end, `no ${what} in 60 s`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  };
  const socket = (base) => base.replace("http", "ws") + "/connection/websocket";
  const fast = { minReconnectDelay: 50, maxReconnectDelay: 300, timeout: 60_000, ...options };
  const endpoint = transport ? [{ transport, endpoint: `${url}/connection/${transport}` }] : socket(url);
  const connect = () => {
    const client = new Centrifuge(endpoint, { token, emulationEndpoint: `${url}/emulation`, ...fast });
    client.connect();
    return client;
  };
  // A node obeys one connection's commands one after the other, and those of several together.
  const peers = Array.from({ length: WRITERS }, () => new Peer(socket(peerUrl), { token: peerToken, ...fast }));
  const [peer] = peers;
  for (const one of peers) one.connect();
  await Promise.all(peers.map((one) => one.ready(20_000)));

  const document = "tenant:self", channel = `state:${document}`;
  const key = (n) => `key-${String(n).padStart(5, "0")}`;
  for (let from = 0; from < KEYS; from += 32 * WRITERS) {
    await Promise.all(peers.map(async (one, at) => {
      const begin = from + at * 32;
      const steps = Array.from({ length: Math.max(0, Math.min(32, KEYS - begin)) },
        (_, step) => ({ op: "put", key: key(begin + step), value: { n: 0 } }));
      if (steps.length > 0) await one.rpc("state.transact", { document, steps });
    }));
  }
  console.log(`${KEYS} keys written`);

  const follow = (pageSize) => {
    const client = connect();
    const subscription = client.newMapSubscription(channel, { pageSize });
    const held = { client, subscription, entries: new Map(), syncs: 0, recoveries: 0, pages: 0 };
    subscription.on("sync", ({ entries }) => {
      held.syncs++;
      held.entries = new Map(entries.map((entry) => [entry.key, JSON.stringify(data.from(entry.data))]));
    });
    subscription.on("update", (update) => {
      if (update.removed) held.entries.delete(update.key);
      else held.entries.set(update.key, JSON.stringify(data.from(update.data)));
    });
    subscription.on("subscribed", (event) => { held.recoveries += event.wasRecovering && event.recovered ? 1 : 0; });
    subscription.subscribe();
    return held;
  };

  // Open loop: updates leave by the clock, whatever is answered, until all has happened that is to
  // happen under them.
  let sent = 0, answered = 0;
  const failures = [];
  const send = (promise) => {
    sent++;
    promise.then(() => answered++, (error) => failures.push(error.message));
  };
  const change = (n) => {
    const which = key((n * 7919) % KEYS);
    const peer = peers[n % WRITERS];
    if (n % 20 === 0) return send(peer.mapRemove(channel, which));
    if (n % 20 === 1) return send(peer.mapPublish(channel, `new-${n}`, { n }));
    if (n % 2 === 0) return send(peer.mapPublish(channel, which, { n }));
    send(peer.rpc("state.put", { document, key: which, value: { n } }));
  };
  const begun = Date.now();
  let n = 0, enough = false;
  const ticking = setInterval(() => {
    const due = (Date.now() - begun) * RATE / 1000;
    while (n < due && !(enough && n >= UPDATES_MIN)) change(n++);
  }, 5);

  const followers = [follow(100), follow(1000), follow(0)];
  const all = (what, holds) => until(() => followers.every(holds), what);
  await all("first sync", (held) => held.syncs > 0);
  const while_changing = n;
  // A while without a network, in which changes go on.
  await cut();
  await new Promise((resolve) => setTimeout(resolve, 300));
  await restore();
  await all("recovery", (held) => held.recoveries > 0 || held.syncs > 1);
  enough = true;
  await until(() => n >= UPDATES_MIN && sent === answered + failures.length, "answer to every update");
  clearInterval(ticking);
  must(failures.length === 0, `${failures.length} updates failed: ${failures[0]}`);
  followers.push(follow(500));
  await peer.mapPublish(channel, "last", { done: true });
  await all("last update", (held) => held.entries.has("last"));

  const snapshot = (await peer.rpc("state.get", { document })).data;
  const expected = JSON.stringify(snapshot.entries.map((entry) => [entry.key, JSON.stringify(entry.value)]));
  must(snapshot.entries.length > KEYS * 0.9, `only ${snapshot.entries.length} keys are left`);
  for (const { entries } of followers) {
    const ends = JSON.stringify([...entries].sort(([a], [b]) => (a < b ? -1 : 1)));
    must(ends === expected, "a follower ends with something else");
  }
  const recovered = followers.filter((held) => held.recoveries > 0).length;
  must(recovered > 0, "nobody recovered");
  console.log(`${snapshot.entries.length} keys after ${answered} updates, the same for ${followers.length} followers, ${recovered} recovered; synced by update ${while_changing}`);

  // What has been can be read, and made so again.
  const { revision } = snapshot;
  const changed = [key(1), "last"];
  await peer.mapPublish(channel, changed[0], { n: -1 });
  await peer.mapRemove(channel, changed[1]);
  const past = (await peer.rpc("state.get", { document, at_revision: revision })).data;
  must(JSON.stringify(past.entries.map(({ key, value }) => [key, JSON.stringify(value)])) === expected,
    "the document was another one");
  await peer.rpc("state.restore", { document, revision, keys: changed });
  const restored = ({ entries }) => JSON.stringify([...entries].sort(([a], [b]) => (a < b ? -1 : 1))) === expected;
  await all("restored document", restored);
  console.log(`the document of revision ${revision} is restored`);

  // Another map, of a namespace: what a client sets and removes reaches the others.
  const board = followers[0].client.newMapSubscription("board:1");
  const seen = [];
  board.on("update", (update) => seen.push([update.key, update.removed ? null : data.from(update.data)]));
  board.subscribe();
  await board.ready(20_000);
  await board.publish("mine", data.to({ x: 1 }));
  await peer.mapPublish("board:1", "theirs", 2);
  await board.remove("mine");
  await board.remove("never-there");
  await until(() => seen.length === 3, "update of the board");
  must(JSON.stringify(seen) === '[["mine",{"x":1}],["theirs",2],["mine",null]]', JSON.stringify(seen));
  const stream = followers[0].client.newSubscription("board:2");
  const refused = new Promise((resolve) => stream.on("unsubscribed", (event) => resolve(event.code)));
  stream.subscribe();
  must(await refused === 107, "a map may be followed as a stream");
  console.log("a board is set and cleared");
  // What nobody renews ends by itself, and who follows is told.
  const brief = followers[0].client.newMapSubscription("brief:1");
  const ended = [];
  brief.on("update", (update) => ended.push([update.key, update.removed === true]));
  brief.subscribe();
  await brief.ready(20_000);
  await brief.publish("guest", data.to({ x: 1 }));
  await until(() => ended.length === 2, "end of an entry");
  must(JSON.stringify(ended) === '[["guest",false],["guest",true]]', JSON.stringify(ended));
  console.log("an entry ends by itself");
  for (const { client } of followers) client.disconnect();
  for (const one of peers) one.disconnect();
}
