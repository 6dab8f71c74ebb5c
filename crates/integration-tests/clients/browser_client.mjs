// npm `centrifuge`, in a real Chromium: over a WebSocket, or the transport that is named. What it
// has to manage is `story`, or the module that is named last.
import { readFile } from "node:fs/promises";
import http from "node:http";
import { browse } from "./browser.mjs";
import { network } from "./proxy.mjs";

const [url, token, peerToken, transport, tale = "story"] = process.argv.slice(2);
const files = {
  "/centrifuge.js": new URL("./node_modules/centrifuge/dist/centrifuge.js", import.meta.url),
  [`/${tale}.mjs`]: new URL(`./${tale}.mjs`, import.meta.url),
};
const server = http.createServer(async (request, response) => {
  const file = files[request.url];
  response.setHeader("content-type", file ? "text/javascript" : "text/html");
  response.end(file ? await readFile(file) : "<!doctype html><script src=centrifuge.js></script>");
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
    await manage(window.Centrifuge, {}, { ...given, cut: window.cut, restore: window.restore });
  }, { url: net.url, peerUrl: url, token, peerToken, tale,
    transport: transport === "websocket" ? undefined : transport });
} finally {
  await browser.close();
  net.close();
  server.close();
}
