// The demo's page in a real Chromium: two tabs, one document, one limit, live traffic.
import { browse } from "./browser.mjs";

const [url, picture] = process.argv.slice(2);
const browser = await browse();
const must = (holds, text) => { if (!holds) throw new Error(text); };
try {
  const context = await browser.newContext({ viewport: { width: 1100, height: 760 } });
  const broken = [];
  const open = async (address) => {
    const tab = await context.newPage();
    tab.on("pageerror", (error) => broken.push(String(error)));
    await tab.goto(address);
    await tab.locator("#status", { hasText: "connected" }).waitFor();
    return tab;
  };
  const first = await open(url);
  const second = await open(await first.locator("#link").getAttribute("href"));
  const session = (tab) => tab.locator("#session").textContent();
  must((await session(first)) === (await session(second)), "two tabs, two sessions");

  await first.locator("#note").fill("five words from one tab");
  await second.waitForFunction(() => document.getElementById("note").value === "five words from one tab");
  for (const tab of [first, second]) {
    await tab.locator("#summary", { hasText: "5 words, 23 letters" }).waitFor();
  }
  console.log("two tabs and a service share a document");

  await second.locator("#burst").click();
  await second.locator("#answer", { hasText: "429" }).waitFor();
  // The refusal may be drawn before the last of the calls that were let in.
  await second.waitForFunction(() => document.querySelectorAll("#dots i:not(.no)").length >= 10);
  console.log("the limit answers 429");

  await second.locator("#routes", { hasText: "shop" }).waitFor();
  await second.locator("#chart rect").first().waitFor({ state: "attached" });
  console.log("traffic is shown live");
  if (picture) await second.screenshot({ path: picture });
  must(broken.length === 0, broken.join("\n"));
} finally {
  await browser.close();
}
