// A bad link (link.py) and a Chromium behind it.

import { spawn } from "node:child_process";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startBrowser } from "./browser.mjs";

/** Where this machine is, seen from behind the link. */
export const HERE = "10.231.7.1";

/** Makes the link; `set` changes what its directions are like. */
export async function makeLink() {
  const namespace = `hw-e2e-${process.pid}`;
  const child = spawn("python3", ["scripts/link.py", namespace], { stdio: ["pipe", "pipe", "inherit"] });
  await new Promise((resolve, reject) => {
    child.stdout.once("data", resolve);
    child.once("exit", (code) => { reject(new Error(`link.py ended with ${code}`)); });
  });
  const ended = new Promise((resolve) => child.once("exit", resolve));
  return {
    namespace,
    set: (conditions) => child.stdin.write(`${JSON.stringify(conditions)}\n`),
    close: async () => { child.stdin.end(); await ended; },
  };
}

/** Starts a Chromium behind a link. Pages from this machine count as secure there. */
export async function startBrowserBehind(link, pageAddress) {
  const folder = await mkdtemp(join(tmpdir(), "headwater-link-"));
  const program = join(folder, "chromium");
  const chromium = process.env.HEADWATER_CHROMIUM ?? "/usr/bin/chromium";
  await writeFile(program, `#!/bin/sh\nexec ip netns exec ${link.namespace} ${chromium} "$@"\n`);
  await chmod(program, 0o755);
  const flags = [`--unsafely-treat-insecure-origin-as-secure=${new URL(pageAddress).origin}`];
  const browser = await startBrowser({ program, flags });
  browser.on("disconnected", () => rm(folder, { recursive: true }).catch(() => {}));
  return browser;
}
