// The community page as people use it: two of them join by link, see each
// other, chat and mute. Takes pictures of it, large and small.

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { startBrowser } from "./browser.mjs";
import { assert, httpUrl, until } from "./settings.mjs";

const pictures = process.env.HEADWATER_E2E_PICTURES;
const room = `town-hall-${process.pid}`;

async function enter(browser, name, viewport) {
  const context = await browser.newContext({ permissions: ["camera", "microphone"], viewport });
  const page = await context.newPage();
  page.on("pageerror", (error) => console.error(`[${name}] ${error.stack}`));
  await page.goto(`${httpUrl}/room/${room}`);
  await page.getByLabel("Your name").fill(name);
  await shoot(page, `join-${viewport.width}`);
  await page.getByRole("button", { name: "Join" }).click();
  return page;
}

async function shoot(page, name) {
  if (!pictures) return;
  await mkdir(pictures, { recursive: true });
  await page.screenshot({ path: join(pictures, `${name}.png`) });
}

const browser = await startBrowser();
try {
  const ada = await enter(browser, "Ada", { width: 1280, height: 800 });
  const bob = await enter(browser, "Bob", { width: 390, height: 844 });
  for (const [page, other] of [[ada, "Bob"], [bob, "Ada"]]) {
    await until(`${other} is shown moving`, 20_000, () => page.evaluate((other) => {
      const tile = [...document.querySelectorAll(".tile")].find((tile) => tile.textContent.includes(other));
      const video = tile?.querySelector("video");
      return Boolean(video && video.videoWidth > 0 && video.currentTime > 1);
    }, other));
  }
  await ada.getByRole("button", { name: "Chat", exact: true }).click();
  await ada.getByLabel("Message").fill("Hello from the front row");
  await ada.keyboard.press("Enter");
  await until("Bob is told of the message", 5000, () => bob.evaluate(() => document.querySelector(".badge")?.textContent === "1"));
  await bob.getByRole("button", { name: "Chat", exact: true }).click();
  assert(await bob.getByText("Hello from the front row").isVisible(), "Bob reads the message");
  await shoot(bob, "chat-390");
  await bob.getByRole("button", { name: "Close the chat" }).click();
  await bob.getByRole("button", { name: "Microphone" }).click();
  await until("Ada sees that Bob is muted", 5000, () => ada.evaluate(() => {
    const tile = [...document.querySelectorAll(".tile")].find((tile) => tile.textContent.includes("Bob"));
    return tile?.querySelector(".muted")?.hidden === false;
  }));
  await shoot(ada, "room-1280");
  await shoot(bob, "room-390");
  await bob.getByRole("button", { name: "Leave" }).click();
  await until("Ada sees Bob leave", 5000, () => ada.evaluate(() => document.querySelectorAll(".tile").length === 1));
  console.log("page: everything as expected");
} finally {
  await browser.close();
}
