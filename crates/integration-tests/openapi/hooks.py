"""What a node has that its OpenAPI document does not tell: sessions, letters, connections and the
like, made for three of four requests that are to succeed. Counts what every operation answered, and
asks those again at the end that have fewer different requests than there are to be examples.

schemathesis loads this by SCHEMATHESIS_HOOKS. The environment says where the node is.
"""

import atexit
import collections
import json
import os
import random
import re
import uuid

import hypothesis
import requests
import schemathesis
from schemathesis.generation import GenerationMode
from websockets.sync.client import connect

# Requests are made, and none is made better: that takes four times as long and finds no other fault.
hypothesis.settings.register_profile("once", phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate])
hypothesis.settings.load_profile("once")

NODE, ADMIN = os.environ["NODE"], os.environ["ADMIN"]
KEY, ADMIN_KEY = os.environ["KEY"], os.environ["ADMIN_KEY"]
INSTANCE, CONFIG = os.environ["INSTANCE"], os.environ["CONFIG"]

http = requests.Session()
calls = collections.Counter()
answers = collections.defaultdict(collections.Counter)
# Connections that are to be told of, and those that are to be closed.
held = {}


def ask(method, path, body=None, base=NODE + "/crosstown/v1", key=KEY):
    headers = {"Authorization": f"Bearer {key}"}
    answer = http.request(method, base + path, json=body, headers=headers, timeout=30)
    assert answer.status_code < 300, f"{method} {path}: {answer.status_code} {answer.text}"
    return answer.json() if answer.content else None


def admin(method, path, body=None):
    return ask(method, path, body, ADMIN, ADMIN_KEY)


def session(user=None, **more):
    return ask("POST", f"/sessions?user={user or 'u' + uuid.uuid4().hex}", more)


def of_session(case):
    case.path_parameters = {"id": session(durable=True)["id"]}


def moved(case):
    case.path_parameters = {"id": session(pillars=["content:a"])["id"]}
    case.body = {"from": "content:a", "to": "content:b"}


def routed(case):
    of_session(case)
    case.body = {"service": "shop", "instance": INSTANCE}


def redeemed(case):
    made = ask("POST", f"/sessions/{session()['id']}/handover", {})
    case.body = {"code": made["code"], "device": {"name": "phone"}}


def document(case):
    case.path_parameters = {**case.path_parameters, "scope": "pillar", "id": "content"}


def entry(case):
    ask("PUT", "/state/pillar/content/entries/k", {"a": 1})
    case.path_parameters = {"scope": "pillar", "id": "content", "key": "k"}


def read(case):
    entry(case)
    case.query = {}


def changed(case):
    document(case)
    case.query = {"wait_ms": "1"}


def unconditional(case):
    entry(case)
    case.query = {}


def transacted(case):
    document(case)
    case.body = {"steps": [{"op": "put", "key": uuid.uuid4().hex, "value": 1}]}


def restored(case):
    document(case)
    entry(case)
    now = ask("GET", "/state/pillar/content")
    case.path_parameters = {"scope": "pillar", "id": "content"}
    case.body = {"revision": now["revision"], "keys": ["k"]}


def synced(case):
    entry(case)
    case.path_parameters = {"scope": "pillar", "id": "copy"}
    case.body = {"from": "pillar:content", "keys": ["k"], "strategy": "source_wins"}


def sync_read(case):
    synced(case)
    ask("POST", "/state/pillar/copy/sync", case.body)
    case.query, case.body = {"from": "pillar:content"}, None


def simulated(case):
    document(case)
    case.body = {}


def channel(case):
    case.path_parameters = {**case.path_parameters, "channel": "news"}
    case.query = {}


def map_entry(case):
    ask("PUT", "/channels/board:1/entries/k", 1)
    case.path_parameters, case.query = {"channel": "board:1", "key": "k"}, {}


def connection(case):
    if "one" not in held:
        held["one"] = opened()
    case.path_parameters, case.query = {"id": held["one"][1]}, {}


def disconnected(case):
    socket, name = opened()
    held[name] = socket
    case.path_parameters, case.query = {"id": name}, {}


def opened():
    """A connection of a user of its own, and its id."""
    user = "u" + uuid.uuid4().hex
    token = session(user)["token"]
    socket = connect(NODE.replace("http", "ws") + "/connection/websocket")
    socket.send(json.dumps({"id": 1, "connect": {"token": token}}))
    socket.recv(timeout=30)
    return socket, ask("GET", f"/connections?user={user}")["connections"][0]["connection"]


def ordered(case):
    case.body = {"to": {"user": "u" + uuid.uuid4().hex}, "order": {"do": "disconnect"}}


def traced(case):
    for trace in ask("GET", "/traces")["traces"]:
        http.delete(f"{NODE}/crosstown/v1/traces/{trace['id']}", headers={"Authorization": f"Bearer {KEY}"})
    case.body = {"of": {"user": "ann"}, "duration": "1m"}


def trace_ended(case):
    traced(case)
    case.path_parameters = {"id": ask("POST", "/traces", case.body)["id"]}
    case.body = None


def blocked(case):
    user = "u" + uuid.uuid4().hex
    ask("POST", f"/users/{user}/block", {"duration": "1m"})
    case.path_parameters, case.query = {"id": user}, {}


def to_block(case):
    case.path_parameters, case.query = {"id": "u" + uuid.uuid4().hex}, {}
    case.body = {"reason": "why", "duration": "1m"}


def of_service(case):
    case.path_parameters = {"service": "shop"}


def to_register(case):
    of_service(case)
    case.body = {"url": f"http://{INSTANCE}", "ttl": "30s"}


def registered(case):
    made = ask("POST", "/services/shop/instances", {"url": f"http://{INSTANCE}", "ttl": "30s"})
    case.path_parameters = {"service": "shop", "id": made["id"]}


def of_realm(case):
    case.path_parameters = {"realm": "solution", "service": "plans"}


def to_publish(case):
    of_realm(case)
    case.body = {
        "openapi": "3.1.0",
        "info": {"title": "Plans", "version": "1.0.0"},
        "paths": {"/plans": {"get": {"operationId": "list", "responses": {"200": {"description": "All."}}}}},
    }


def published(case):
    to_publish(case)
    ask("PUT", "/realms/solution/services/plans/openapi", case.body)
    case.body = None


def letter(case):
    made = ask("POST", "/mailboxes/user:ann/letters", {"data": 1})
    case.path_parameters = {"address": "user:ann", "letter": made["letter"]}


def mailbox(case):
    case.path_parameters, case.query = {"address": f"user:u{uuid.uuid4().hex}"}, {}


def dead(case):
    letter(case)
    name = case.path_parameters["letter"]
    ask("POST", f"/mailboxes/user:ann/letters/{name}/refusals", {"why": "no pen"})


def nothing_asked(case):
    case.query = {}


def reset(case):
    case.path_parameters = {"limit": "everybody"}
    case.body = {"tenant": "acme"}


def text(**more):
    with open(CONFIG, encoding="utf-8") as file:
        return {"text": file.read(), **more}


def planned(case):
    case.body = text()


def rolled_back(case):
    changed = text(force=True)
    requests = random.randrange(10**6, 10**9)
    changed["text"] = re.sub(r"requests = \d+", f"requests = {requests}", changed["text"])
    http.delete(ADMIN + "/config/trial", headers={"Authorization": f"Bearer {ADMIN_KEY}"})
    admin("POST", "/config/apply", changed)
    case.body = {}


def on_trial(case):
    trial = {"percent": 1.0, "for": "1h"}
    tried = text(trial=trial, force=True)
    tried["text"] = tried["text"].replace('name = "everybody"', 'name = "everyone"')
    http.delete(ADMIN + "/config/trial", headers={"Authorization": f"Bearer {ADMIN_KEY}"})
    admin("POST", "/config/apply", tried)


def keys(case):
    # Not those of the tenant whose key makes what has to be there: any that is seen may be deleted.
    case.query = {"tenant": "guests"}


def new_key(case):
    case.body = {"tenant": "guests", "principal": "billing"}


def key(case):
    new_key(case)
    case.path_parameters = {"tenant": "guests", "id": admin("POST", "/api-keys", case.body)["id"]}
    case.body = None


def explained(case):
    case.body = {"url": "http://shop.test/", "as": {"tenant": "acme", "principal": "ann"}}


THERE = {
    "createSession": lambda case: setattr(case, "query", {"user": "u" + uuid.uuid4().hex}),
    "readSession": of_session,
    "updateSession": of_session,
    "endSession": of_session,
    "refreshSession": of_session,
    "readEvents": lambda case: (of_session(case), nothing_asked(case)),
    "readTimeline": lambda case: (of_session(case), nothing_asked(case)),
    "offerHandover": of_session,
    "redeemHandover": redeemed,
    "moveSession": moved,
    "routeSession": routed,
    "readDocument": lambda case: (document(case), nothing_asked(case)),
    "readChanges": changed,
    "readHistory": document,
    "transact": transacted,
    "restoreDocument": restored,
    "syncDocument": synced,
    "readSync": sync_read,
    "readEntry": read,
    "putEntry": unconditional,
    "patchEntry": unconditional,
    "deleteEntry": unconditional,
    "promoteDocument": document,
    "demoteDocument": document,
    "pinDocument": document,
    "unpinDocument": document,
    "readTier": document,
    "readLineage": document,
    "simulateTiers": simulated,
    "readChannel": channel,
    "publish": channel,
    "setMapEntry": map_entry,
    "removeMapEntry": map_entry,
    "readConnection": connection,
    "disconnect": disconnected,
    "orderConnections": ordered,
    "beginTrace": traced,
    "endTrace": trace_ended,
    "blockUser": to_block,
    "readBlock": blocked,
    "liftBlock": blocked,
    "listInstances": of_service,
    "registerInstance": to_register,
    "renewInstance": registered,
    "deregisterInstance": registered,
    "removeInstance": registered,
    "publishDocument": to_publish,
    "withdrawDocument": published,
    "sendLetter": mailbox,
    "listLetters": mailbox,
    "acknowledgeLetter": letter,
    "refuseLetter": letter,
    "listDeadLetters": mailbox,
    "reviveLetter": dead,
    "readTraffic": nothing_asked,
    "readLog": nothing_asked,
    "readRealmDocument": nothing_asked,
    "resetLimit": reset,
    "planConfig": planned,
    "applyConfig": planned,
    "rollBackConfig": rolled_back,
    "abandonTrial": on_trial,
    "listApiKeys": keys,
    "createApiKey": new_key,
    "deleteApiKey": key,
    "explainRequest": explained,
}


def name(case):
    return case.operation.definition.raw["operationId"]


# The last request of each operation that was to succeed.
lasts = {}


@schemathesis.hook
def before_call(context, case, kwargs):
    operation = name(case)
    calls[operation] += 1
    if case.meta is None or case.meta.generation.mode == GenerationMode.POSITIVE:
        lasts[operation] = case
        if operation in THERE and calls[operation] % 4:
            THERE[operation](case)
    if operation == "readChanges" and str((case.query or {}).get("wait_ms", "")).isdigit():
        case.query["wait_ms"] = "1"


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """A method that no resource has is not implemented, and no fault (RFC 9110, section 9.1)."""
    return not (case.method == "TRACE" and response.status_code == 501)


@schemathesis.hook
def after_call(context, case, response):
    answers[name(case)][response.status_code] += 1


@atexit.register
def told():
    base, key = (ADMIN, ADMIN_KEY) if os.environ["API"] == "admin" else (NODE, KEY)
    faults = []
    for operation, case in lasts.items():
        while calls[operation] < int(os.environ["EXAMPLES"]):
            try:
                case.call_and_validate(base, headers={"Authorization": f"Bearer {key}"})
            except Exception as fault:
                faults.append(f"{operation}: {fault}")
                break
    with open(os.environ["ANSWERS"], "w", encoding="utf-8") as file:
        json.dump({"answers": answers, "faults": faults}, file)
