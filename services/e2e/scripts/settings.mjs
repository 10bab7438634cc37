// Where the server under test is and how to sign for it. Every script here is
// started by a Rust test of this crate, which sets these variables.

import { AccessToken } from "livekit-server-sdk";

function required(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set; these scripts are run by cargo xtask test`);
  return value;
}

export const url = required("LIVEKIT_URL");
export const httpUrl = url.replace(/^ws/, "http");
export const apiKey = required("LIVEKIT_API_KEY");
export const apiSecret = required("LIVEKIT_API_SECRET");

/** Signs a token for a participant of a room. */
export async function joinToken(room, identity, grant = {}) {
  const token = new AccessToken(apiKey, apiSecret, { identity, name: identity, ttl: "1h" });
  token.addGrant({ room, roomJoin: true, canPublish: true, canSubscribe: true, canPublishData: true, ...grant });
  return token.toJwt();
}

/** Waits until a condition holds; the error names it and what was seen last. */
export async function until(name, milliseconds, probe) {
  const deadline = Date.now() + milliseconds;
  let last;
  for (;;) {
    last = await probe();
    if (last === true || last?.done) return last;
    if (Date.now() > deadline) throw new Error(`${name}: not within ${milliseconds} ms; last seen: ${JSON.stringify(last)}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

export function assert(condition, message) {
  if (!condition) throw new Error(message);
}
