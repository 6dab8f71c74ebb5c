"""PyPI `centrifuge-python`: connect, subscribe, publish, RPC, lose the network, recover.

With `protobuf` as the last argument the client talks Protobuf, to a peer that talks JSON.
"""

import asyncio
import json
import sys
from urllib.parse import urlsplit

from centrifuge import Client, ClientEventHandler, CentrifugeError, SubscriptionEventHandler


class Network:
    """Forwards TCP to the node until told to drop everything."""

    def __init__(self, target):
        parts = urlsplit(target)
        self.host, self.port = parts.hostname, parts.port
        self.up, self.open = True, set()

    async def start(self):
        self.server = await asyncio.start_server(self.forward, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def forward(self, reader, writer):
        if not self.up:
            return writer.close()
        node_reader, node_writer = await asyncio.open_connection(self.host, self.port)
        self.open |= {writer, node_writer}
        await asyncio.gather(self.pump(reader, node_writer), self.pump(node_reader, writer))

    async def pump(self, reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            self.open.discard(writer)
            writer.close()

    def cut(self):
        self.up = False
        for writer in list(self.open):
            writer.transport.abort()


class Lost(ClientEventHandler):
    def __init__(self):
        self.lost = asyncio.Event()

    async def on_connecting(self, _):
        self.lost.set()


class Room(SubscriptionEventHandler):
    def __init__(self, read):
        self.got, self.recoveries, self.read = [], [], read

    async def on_publication(self, context):
        self.got.append(self.read(context.pub.data)["n"])

    async def on_subscribed(self, context):
        self.recoveries.append((context.was_recovering, context.recovered))

    async def arrived(self, count):
        while len(self.got) < count:
            await asyncio.sleep(0.01)


class Lobby(SubscriptionEventHandler):
    def __init__(self):
        self.moves = []

    async def on_join(self, context):
        self.moves.append(("join", context.info.user))

    async def on_leave(self, context):
        self.moves.append(("leave", context.info.user))

    async def moved(self, count):
        while len(self.moves) < count:
            await asyncio.sleep(0.01)


async def main(url, permits, peer_token, encoding="json"):
    protobuf = encoding == "protobuf"
    to = (lambda data: json.dumps(data).encode()) if protobuf else (lambda data: data)
    read = json.loads if protobuf else (lambda data: data)
    network = Network(url)
    token = json.loads(permits)["lasting"]
    through = await network.start()
    socket = lambda base: base.replace("http", "ws") + "/connection/websocket"
    events, room = Lost(), Room(read)
    fast = {"min_reconnect_delay": 0.05, "max_reconnect_delay": 0.3}
    client = Client(
        socket(through), token=token, events=events, use_protobuf=protobuf, **fast
    )
    peer = Client(socket(url), token=peer_token, **fast)
    await asyncio.gather(client.connect(), peer.connect())
    await asyncio.gather(client.ready(10), peer.ready(10))
    subscription = client.new_subscription("room", room, recoverable=True)
    await subscription.subscribe()
    await subscription.ready(10)

    async def publish(start, end):
        for n in range(start, end):
            await peer.publish("room", {"n": n})

    await publish(0, 20)
    await asyncio.wait_for(room.arrived(20), 20)
    put = {"document": "user:ann", "key": "p", "value": [1]}
    put = read((await client.rpc("state.put", to(put))).data)
    assert put["value"] == [1], put
    try:
        await client.rpc("no.such", to({}))
        raise AssertionError("a missing method was not refused")
    except CentrifugeError:
        pass

    for turn in range(3):
        events.lost.clear()
        network.cut()
        await asyncio.wait_for(events.lost.wait(), 20)
        await publish(20 + turn * 20, 40 + turn * 20)
        network.up = True
        await asyncio.wait_for(room.arrived(40 + turn * 20), 20)
    assert room.got == list(range(80)), room.got
    assert room.recoveries[1:] == [(True, True)] * 3, room.recoveries

    # The other way: the peer takes what this client publishes.
    heard = Room(lambda data: data)
    listening = peer.new_subscription("room", heard)
    await listening.subscribe()
    await listening.ready(10)
    await subscription.publish(to({"n": 80}))
    await asyncio.wait_for(heard.arrived(1), 20)
    assert heard.got == [80], heard.got

    # Who is there, and who comes and goes.
    lobby = client.new_subscription("lobby:1", Lobby(), join_leave=True)
    await lobby.subscribe()
    await lobby.ready(10)
    visit = peer.new_subscription("lobby:1")
    await visit.subscribe()
    await visit.ready(10)
    present = await lobby.presence()
    assert sorted(info.user for info in present.clients.values()) == ["ann", "peer"], present
    stats = await visit.presence_stats()
    assert (stats.num_clients, stats.num_users) == (2, 2), stats
    await visit.unsubscribe()
    await asyncio.wait_for(lobby.events.moved(3), 20)
    moves = [("join", "ann"), ("join", "peer"), ("leave", "peer")]
    assert lobby.events.moves == moves, lobby.events.moves
    print("presence, joins and leaves are told")
    await asyncio.gather(client.disconnect(), peer.disconnect())
    print(f"spoken in {encoding}")
    print("3 losses of the network, nothing lost: 80 publications in order")


asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), 120))
