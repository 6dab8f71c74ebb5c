// npm `centrifuge`, in a real Chromium: over a WebSocket, or the transport that is named. What it
// has to manage is `story`, or the module that is named; in JSON, or in Protobuf if that is named
// last. Its peer talks JSON.
import { readFile } from "node:fs/promises";
import http from "node:http";
import { browse } from "./browser.mjs";
import { network } from "./proxy.mjs";

const [url, token, peerToken, transport, tale = "story", encoding = "json"] = process.argv.slice(2);
const dist = (name) => new URL(`./node_modules/centrifuge/dist/${name}`, import.meta.url);
const files = {
  "/centrifuge.js": dist("centrifuge.js"),
  "/centrifuge.protobuf.js": dist("centrifuge.protobuf.js"),
  "/story.mjs": new URL("./story.mjs", import.meta.url),
  [`/${tale}.mjs`]: new URL(`./${tale}.mjs`, import.meta.url),
};
const server = http.createServer(async (request, response) => {
  const file = files[request.url];
  response.setHeader("content-type", file ? "text/javascript" : "text/html");
  response.end(file ? await readFile(file) : `<!doctype html>
    <script src=centrifuge.js></script><script>Json = Centrifuge</script>
    <script src=centrifuge.protobuf.js></script><script>Protobuf = Centrifuge</script>`);
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const net = await network(url);
const browser = await browse();
try {
  const page = await browser.newPage();
  page.on("console", (message) => console.log(message.text()));
  await page.exposeFunction("cut", () => net.cut());
  await page.exposeFunction("restore", () => net.restore());
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  await page.evaluate(async (given) => {
    const { [given.tale]: manage } = await import(`/${given.tale}.mjs`);
    const { asBytes } = await import("/story.mjs");
    const more = { Peer: window.Json, cut: window.cut, restore: window.restore };
    if (given.encoding === "protobuf") await manage(window.Protobuf, {}, { ...given, ...more, data: asBytes });
    else await manage(window.Json, {}, { ...given, ...more });
  }, { url: net.url, peerUrl: url, token, peerToken, tale, encoding,
    transport: transport === "websocket" ? undefined : transport });
} finally {
  await browser.close();
  net.close();
  server.close();
}
