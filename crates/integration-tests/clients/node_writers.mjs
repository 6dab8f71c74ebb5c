// npm `centrifuge`, in Node: fifty writers change one entry, each only as it has read it.
import { Centrifuge } from "centrifuge";
import WebSocket from "ws";

const [url, token] = process.argv.slice(2);
const WRITERS = 50, EACH = 10;
const endpoint = url.replace("http", "ws") + "/connection/websocket";
const operations = [];
const entry = { document: "user:ann", key: "counter" };

async function write(number) {
  const client = new Centrifuge(endpoint, { token, websocket: WebSocket });
  client.connect();
  await client.ready(20000);
  const call = async (method, argument) => {
    const start = performance.now();
    try {
      const { data } = await client.rpc(method, argument);
      return { start, end: performance.now(), data };
    } catch (error) {
      return { start, end: performance.now(), error };
    }
  };
  for (let done = 0; done < EACH;) {
    const read = await call("state.get", entry);
    if (read.error && read.error.code !== 404) throw read.error;
    const held = read.error ? { revision: 0, value: 0 } : read.data;
    operations.push({ kind: "read", ...read, revision: held.revision, value: held.value });
    const put = await call("state.put", { ...entry, value: held.value + 1, if_revision: held.revision });
    if (put.error) {
      // The answer to a conflict carries what is there.
      const problem = JSON.parse(put.error.message);
      if (put.error.code !== 409 || !(problem.revision > held.revision)) throw put.error;
      continue;
    }
    operations.push({ kind: "write", ...put, revision: put.data.revision, value: held.value + 1, from: held.revision });
    done++;
  }
  client.disconnect();
}
await Promise.all(Array.from({ length: WRITERS }, (_, number) => write(number)));

// Every change made a revision of its own, so that there is only one order that can explain them
// all: by revision, reads behind the write that they saw. It has to agree with the clock.
operations.sort((a, b) => a.revision - b.revision || (a.kind === "write" ? -1 : b.kind === "write" ? 1 : a.end - b.end));
let revision = 0, value = 0, latest = 0;
for (const operation of operations) {
  const where = JSON.stringify(operation);
  if (operation.kind === "write") {
    if (operation.from !== revision) throw new Error(`an update is lost before ${where}`);
    if (operation.value !== value + 1) throw new Error(`another value than was read: ${where}`);
    ({ revision, value } = operation);
  } else if (operation.revision !== revision || operation.value !== value) {
    throw new Error(`it saw what was never there: ${where}`);
  }
  if (operation.end < latest) throw new Error(`it ended before one that it follows began: ${where}`);
  latest = Math.max(latest, operation.start);
}
if (value !== WRITERS * EACH) throw new Error(`${value} instead of ${WRITERS * EACH}`);
const conflicts = operations.filter(({ kind }) => kind === "read").length - WRITERS * EACH;
console.log(`${value} updates of ${WRITERS} writers in one order, ${conflicts} conflicts`);
