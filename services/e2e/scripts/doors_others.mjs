// aiortc and FFmpeg come in by WHIP, aiortc goes out by WHEP; a LiveKit SDK in a
// browser watches and is watched. Argument: the Python that has them.

import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { openPage, servePage, startBrowser } from "./browser.mjs";
import { assert, httpUrl, joinToken, until, url } from "./settings.mjs";

const [python] = process.argv.slice(2);
const program = fileURLToPath(new URL("./doors.py", import.meta.url));

/** A process of doors.py, and what it said last. */
class Other {
  constructor(role, door, token) {
    this.role = role;
    this.last = {};
    this.child = spawn(python, [program, role, `${httpUrl}/${door}`], {
      stdio: ["pipe", "pipe", "inherit"], env: { ...process.env, DOOR_TOKEN: token },
    });
    this.ended = new Promise((resolve) => { this.child.on("exit", resolve); });
    createInterface({ input: this.child.stdout }).on("line", (line) => { Object.assign(this.last, JSON.parse(line)); });
  }

  /** Ends it and checks that its session was deleted. */
  async close() {
    this.child.stdin.end();
    const code = await this.ended;
    assert(code === 0 && this.last.deleted === 200, `${this.role} ended with ${code}: ${JSON.stringify(this.last)}`);
  }
}

/** Runs in the page: joins, and publishes if asked to. */
async function join({ url, token }) {
  const room = new window.LivekitClient.Room({ adaptiveStream: false, dynacast: false });
  window.room = room;
  window.tracks = {};
  room.on("trackSubscribed", (track) => {
    const media = track.attach();
    media.muted = track.kind === "video";
    document.body.append(media);
    window.tracks[track.kind] = track;
  });
  await room.connect(url, token);
}

/** Runs in the page: what arrives. */
async function observe() {
  const inbound = async (track) => {
    const entries = [...((await track?.receiver?.getStats()) ?? new Map()).values()];
    const rtp = entries.find(({ type }) => type === "inbound-rtp");
    return rtp && { ...rtp, mimeType: entries.find(({ id }) => id === rtp.codecId)?.mimeType };
  };
  const [video, audio] = [await inbound(window.tracks.video), await inbound(window.tracks.audio)];
  return {
    frames: video?.framesDecoded ?? 0, width: video?.frameWidth ?? 0, mimeType: video?.mimeType,
    energy: audio?.totalAudioEnergy ?? 0, others: window.room.remoteParticipants.size,
  };
}

const browser = await startBrowser();
const server = await servePage();
const others = [];
const start = (...options) => { const other = new Other(...options); others.push(other); return other; };
const heardAndSeen = (now) => ({ ...now, done: now.frames > 30 && now.energy > 0.0001 });
try {
  const { page } = await openPage(browser, server.address, "guest");
  const report = {};

  // aiortc publishes; the SDK and another aiortc watch.
  const room = `others-${process.pid}`;
  await page.evaluate(join, { url, token: await joinToken(room, "guest") });
  const publisher = start("publish", "whip", await joinToken(room, "aiortc"));
  const watcher = start("watch", "whep", await joinToken(room, "watcher", { canPublish: false }));
  report.aiortc = await until("the SDK's user sees and hears aiortc", 20_000, async () => heardAndSeen(await page.evaluate(observe)));
  report.watcher = await until("aiortc sees and hears aiortc", 20_000, async () => ({ ...watcher.last, done: watcher.last.video > 20 && watcher.last.loud > 20 }));
  await publisher.close();
  await until("aiortc is gone for the SDK's user", 3_000, async () => {
    const { others } = await page.evaluate(observe);
    return { others, done: others === 1 };
  });

  // The same viewer goes on with the SDK's user, who publishes now.
  const { video, loud } = watcher.last;
  await page.evaluate(() => window.room.localParticipant.enableCameraAndMicrophone());
  report.next = await until("aiortc sees and hears the SDK's user", 20_000, async () => ({
    ...watcher.last, done: watcher.last.video > video + 20 && watcher.last.loud > loud,
  }));
  await watcher.close();

  // FFmpeg publishes H.264.
  const second = (await openPage(browser, server.address, "second")).page;
  const studio = `${room}-ffmpeg`;
  await second.evaluate(join, { url, token: await joinToken(studio, "second") });
  const ffmpeg = start("ffmpeg", "whip", await joinToken(studio, "ffmpeg"));
  report.ffmpeg = await until("the SDK's user sees and hears FFmpeg", 20_000, async () => heardAndSeen(await second.evaluate(observe)));
  assert(report.ffmpeg.mimeType === "video/H264", `FFmpeg sends ${report.ffmpeg.mimeType}`);
  await ffmpeg.close();
  await until("FFmpeg is gone", 5_000, async () => {
    const { others } = await second.evaluate(observe);
    return { others, done: others === 0 };
  });
  console.log(JSON.stringify(report));
} finally {
  for (const other of others) other.child.kill();
  await browser.close();
  server.close();
}
