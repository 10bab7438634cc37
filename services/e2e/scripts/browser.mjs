// A real Chromium with fake camera and microphone, and a bare page that holds
// nothing but the unmodified livekit-client bundle.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const require = createRequire(import.meta.url);
const bundle = require.resolve("livekit-client").replace(/[^/]+$/, "livekit-client.umd.js");
// The package names no entry point.
const doors = require.resolve("whip-whep/package.json").replace(/[^/]+$/, "");

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--use-fake-device-for-media-stream",
  "--use-fake-ui-for-media-stream",
  "--auto-select-desktop-capture-source=Entire screen",
  "--autoplay-policy=no-user-gesture-required",
];

/** Starts Chromium; `tcpOnly` takes UDP away from its WebRTC. */
export async function startBrowser({ tcpOnly = false, program, flags = [] } = {}) {
  const tcp = tcpOnly ? ["--webrtc-ip-handling-policy=disable_non_proxied_udp"] : [];
  return chromium.launch({
    executablePath: program ?? process.env.HEADWATER_CHROMIUM ?? "/usr/bin/chromium",
    args: [...FLAGS, ...tcp, ...flags],
    headless: true,
  });
}

/** Serves the bare page until closed, on loopback if nothing else is said. */
export async function servePage(host = "127.0.0.1") {
  const scripts = {
    "/livekit-client.umd.js": await readFile(bundle),
    "/whip.js": await readFile(`${doors}whip.js`),
    "/whep.js": await readFile(`${doors}whep.js`),
  };
  const server = createServer((request, response) => {
    const script = scripts[request.url];
    if (script) {
      response.setHeader("content-type", "text/javascript").end(script);
    } else {
      response.setHeader("content-type", "text/html").end('<!doctype html><title>test</title><body><script src="/livekit-client.umd.js"></script>');
    }
  });
  await new Promise((resolve) => server.listen(0, host, resolve));
  return { address: `http://${host}:${server.address().port}/`, close: () => server.close() };
}

/** Opens the bare page in a context of its own; errors of the page end the script. */
export async function openPage(browser, address, name) {
  const context = await browser.newContext({ permissions: ["camera", "microphone"] });
  const page = await context.newPage();
  const sockets = [];
  page.on("websocket", (socket) => sockets.push(socket.url().replace(/\?.*/, "")));
  page.on("pageerror", (error) => { console.error(`[${name}] ${error.stack}`); });
  if (process.env.HEADWATER_E2E_VERBOSE) page.on("console", (message) => { console.error(`[${name}] ${message.text()}`); });
  await page.goto(address);
  return { page, sockets };
}
