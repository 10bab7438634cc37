// One simulcast publisher and three viewers in real Chromium, one of them behind a bad
// link: each gets the layer that fits, the others notice nothing, and what the link loses
// is repaired. Prints what was measured as one line of JSON for each part.

import { openPage, servePage, startBrowser } from "./browser.mjs";
import { HERE, makeLink, startBrowserBehind } from "./link.mjs";
import { assert, joinToken, until, url } from "./settings.mjs";

const roomName = `limited-${process.pid}`;
const farUrl = url.replace("127.0.0.1", HERE);

/** Runs in the publisher's page: three layers, so small that this machine keeps up. */
async function publish({ url, token }) {
  const LK = window.LivekitClient;
  const room = new LK.Room({
    dynacast: false,
    videoCaptureDefaults: { resolution: { width: 640, height: 360, frameRate: 20 } },
    publishDefaults: {
      videoCodec: "vp8",
      videoEncoding: { maxBitrate: 900_000, maxFramerate: 20 },
      videoSimulcastLayers: [new LK.VideoPreset(160, 90, 60_000, 20), new LK.VideoPreset(320, 180, 200_000, 20)],
    },
  });
  window.room = room;
  await room.connect(url, token);
  await room.localParticipant.setCameraEnabled(true);
  await room.localParticipant.setMicrophoneEnabled(true);
}

/** Runs in a viewer's page. */
async function watch({ url, token }) {
  const LK = window.LivekitClient;
  const room = new LK.Room({ adaptiveStream: false });
  window.room = room;
  window.gap = 0;
  window.states = [];
  room.on("trackStreamStateChanged", (publication, state) => { window.states.push([publication.kind, state]); });
  room.on("trackSubscribed", (track) => {
    const media = track.attach();
    media.muted = track.kind === "video";
    document.body.append(media);
    window[track.kind] = { track, media };
    if (track.kind !== "video") return;
    let last;
    const seen = (now) => {
      if (last) window.gap = Math.max(window.gap, now - last);
      last = now;
      media.requestVideoFrameCallback(seen);
    };
    media.requestVideoFrameCallback(seen);
  });
  await room.connect(url, token);
}

/** Runs in a viewer's page: what it receives at this moment. */
async function observe() {
  if (!window.video || !window.audio) return null;
  const inbound = async (track) => {
    const report = await track.receiver.getStats();
    return [...report.values()].find((entry) => entry.type === "inbound-rtp");
  };
  const video = await inbound(window.video.track);
  const audio = await inbound(window.audio.track);
  return {
    frames: video?.framesDecoded ?? 0,
    width: video?.frameWidth ?? 0,
    freezes: video?.freezeCount ?? 0,
    lost: video?.packetsLost ?? 0,
    received: video?.packetsReceived ?? 0,
    repaired: video?.retransmittedPacketsReceived ?? 0,
    nacks: video?.nackCount ?? 0,
    plis: video?.pliCount ?? 0,
    samples: audio?.totalSamplesReceived ?? 0,
    concealed: (audio?.concealedSamples ?? 0) - (audio?.silentConcealedSamples ?? 0),
    gap: Math.round(window.gap),
    states: window.states,
  };
}

const since = (before, after) => Object.fromEntries(
  Object.entries(after).map(([key, value]) => [key, typeof value === "number" && key !== "width" && key !== "gap" ? value - before[key] : value]),
);
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const show = (part, figures) => console.log(JSON.stringify({ part, ...figures }));

/** Lets a time pass and tells what came in it. */
async function during(page, milliseconds) {
  await page.evaluate(() => { window.gap = 0; });
  const before = await page.evaluate(observe);
  await pause(milliseconds);
  return since(before, await page.evaluate(observe));
}

/** How long it takes until a viewer decodes pictures of a width that fits. */
async function widthOf(name, page, fits, limit) {
  const begun = Date.now();
  const seen = await until(name, limit, async () => {
    const now = await page.evaluate(observe);
    return { ...now, done: now !== null && now.frames > 0 && fits(now.width) };
  });
  return { width: seen.width, milliseconds: Date.now() - begun, states: seen.states };
}

const link = await makeLink();
const server = await servePage();
const far = await servePage(HERE);
const browser = await startBrowser();
const behind = await startBrowserBehind(link, far.address);
try {
  const { page: ada } = await openPage(browser, server.address, "ada");
  await ada.evaluate(publish, { url, token: await joinToken(roomName, "ada") });
  const { page: bob } = await openPage(browser, server.address, "bob");
  const { page: cyd } = await openPage(browser, server.address, "cyd");
  const { page: dan } = await openPage(behind, far.address, "dan");
  const viewer = { canPublish: false };
  for (const [page, name, at] of [[bob, "bob", url], [cyd, "cyd", url], [dan, "dan", farUrl]]) {
    await page.evaluate(watch, { url: at, token: await joinToken(roomName, name, viewer) });
  }
  for (const [page, name] of [[bob, "bob"], [cyd, "cyd"], [dan, "dan"]]) {
    show(`${name} gets the largest layer`, await widthOf(`${name} gets the largest layer`, page, (width) => width === 640, 30_000));
  }

  link.set({ down: { delay: 100, loss: 0.02 }, up: { delay: 0 } });
  await pause(2_000);
  const lossy = await during(dan, 15_000);
  show("2 % loss and 100 ms", lossy);
  assert(lossy.frames > 150, "pictures go on at 2 % loss");
  assert(lossy.width === 640, "2 % loss is no reason for a smaller layer");

  link.set({ down: { loss: 0.05 } });
  await pause(1_000);
  const noisy = await during(dan, 15_000);
  const residual = noisy.concealed / noisy.samples;
  show("5 % loss", { ...noisy, residual });
  assert(residual < 0.03, `${(residual * 100).toFixed(1)} % of the sound was concealed at 5 % loss`);

  link.set({});
  await widthOf("dan recovers", dan, (width) => width === 640, 20_000);
  link.set({ down: { rate: 300 } });
  const down = await widthOf("dan gets a layer that fits 300 kbit/s", dan, (width) => width > 0 && width < 640, 20_000);
  show("300 kbit/s", down);
  await pause(3_000);
  const [limited, others] = await Promise.all([during(dan, 10_000), Promise.all([during(bob, 10_000), during(cyd, 10_000)])]);
  show("dan on 300 kbit/s", limited);
  show("bob meanwhile", others[0]);
  show("cyd meanwhile", others[1]);
  assert(limited.frames > 80, "pictures go on at 300 kbit/s");
  for (const other of others) {
    assert(other.width === 640, "the others keep their layer");
    assert(other.frames > 100, "the others keep their pictures");
  }

  link.set({});
  show("link restored", await widthOf("dan gets the largest layer again", dan, (width) => width === 640, 30_000));
} finally {
  await Promise.all([browser.close(), behind.close()]);
  server.close();
  far.close();
  await link.close();
}
