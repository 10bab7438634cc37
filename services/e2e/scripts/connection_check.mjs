// The SDK's own ConnectionCheck in a real Chromium: every check that applies to
// a self-hosted server must succeed.

import { openPage, servePage, startBrowser } from "./browser.mjs";
import { assert, joinToken, url } from "./settings.mjs";

/** Runs in the page. */
async function check({ url, token }) {
  const LK = window.LivekitClient;
  const checker = new LK.ConnectionCheck(url, token);
  const results = [];
  for (const name of ["checkWebsocket", "checkWebRTC", "checkTURN", "checkReconnect", "checkPublishAudio", "checkPublishVideo", "checkConnectionProtocol", "checkCloudRegion"]) {
    const result = await checker[name]();
    results.push({ name, status: LK.CheckStatus[result.status], logs: result.logs.map((log) => `${log.level}: ${log.message}`) });
  }
  return results;
}

// No TURN server comes with the product, and cloud regions are another product's.
const notOurs = new Set(["checkTURN", "checkCloudRegion"]);
const browser = await startBrowser();
const server = await servePage();
try {
  const { page } = await openPage(browser, server.address, "check");
  const token = await joinToken(`connection-check-${process.pid}`, "checker");
  const results = await page.evaluate(check, { url, token });
  for (const { name, status, logs } of results) {
    console.log(`${status.padEnd(8)} ${name}\n    ${logs.join("\n    ")}`);
  }
  for (const { name, status } of results) {
    assert(status === "SUCCESS" || notOurs.has(name), `${name} ended with ${status}`);
  }
} finally {
  await browser.close();
  server.close();
}
