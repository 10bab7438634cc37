// Two Chromium pages with the unmodified SDK in one room: each must see the
// other move and hear it, and gets its message. Arguments: signalling version
// (v0|v1), protocol (udp|tcp|any), milliseconds between the joins (0).

import { openPage, servePage, startBrowser } from "./browser.mjs";
import { assert, joinToken, until, url } from "./settings.mjs";

const [version = "v1", protocol = "udp", pause = "0"] = process.argv.slice(2);
const roomName = `two-pages-${version}-${protocol}-${process.pid}`;

/** Runs in the page: joins, publishes, and shows what arrives. */
async function join({ url, token, version }) {
  const LK = window.LivekitClient;
  if (version === "debug") LK.setLogLevel("debug");
  const room = new LK.Room({ adaptiveStream: false, dynacast: false, singlePeerConnection: version === "v1" });
  window.room = room;
  const begun = performance.now();
  room.on("trackSubscribed", (track) => {
    const media = track.attach();
    media.muted = track.kind === "video";
    document.body.append(media);
    if (track.kind === "video") {
      window.video = { track, media };
      media.requestVideoFrameCallback(() => { window.firstFrameMs = performance.now() - begun; });
    } else window.audio = { track, media };
  });
  window.messages = [];
  room.on("dataReceived", (payload, from) => { window.messages.push(`${from?.identity}: ${new TextDecoder().decode(payload)}`); });
  await room.connect(url, token);
  window.connectedMs = performance.now() - begun;
  await room.localParticipant.enableCameraAndMicrophone();
}

/** Runs in the page: what it receives at this moment. */
async function observe() {
  if (!window.video || !window.audio) return { waiting: "for tracks" };
  const inbound = async (track) => {
    const report = await track.receiver.getStats();
    return [...report.values()].find((entry) => entry.type === "inbound-rtp");
  };
  const sample = () => {
    const canvas = document.createElement("canvas");
    canvas.width = 64;
    canvas.height = 36;
    const context = canvas.getContext("2d");
    context.drawImage(window.video.media, 0, 0, 64, 36);
    return [...context.getImageData(0, 0, 64, 36).data];
  };
  const first = sample();
  await new Promise((resolve) => setTimeout(resolve, 700));
  const second = sample();
  const brightness = second.reduce((sum, value, index) => sum + (index % 4 === 3 ? 0 : value), 0) / (64 * 36 * 3);
  const moved = second.filter((value, index) => Math.abs(value - first[index]) > 12).length;
  const video = await inbound(window.video.track);
  const audio = await inbound(window.audio.track);
  return {
    frames: video?.framesDecoded ?? 0,
    width: video?.frameWidth ?? 0,
    brightness,
    moved,
    audioPackets: audio?.packetsReceived ?? 0,
    audioEnergy: audio?.totalAudioEnergy ?? 0,
    // What comes a second time inside the next packet (RED) is thrown away where nothing was lost.
    audioRedundant: audio?.packetsDiscarded ?? 0,
    freezes: video?.freezeCount ?? 0,
    firstFrameMs: window.firstFrameMs,
    connectedMs: window.connectedMs,
  };
}

/** Runs in the page: the protocol of the pair that carries media. */
async function pairProtocol() {
  const report = await window.video.track.receiver.getStats();
  const entries = [...report.values()];
  const transport = entries.find((entry) => entry.type === "transport" && entry.selectedCandidatePairId);
  const pair = entries.find((entry) => entry.id === transport?.selectedCandidatePairId);
  return entries.find((entry) => entry.id === pair?.localCandidateId)?.protocol;
}

/** Runs in the page: how its microphone was agreed to be sent, best first. */
function agreedSound() {
  const [microphone] = window.room.localParticipant.audioTrackPublications.values();
  return microphone.track.sender.getParameters().codecs.map((codec) => codec.mimeType);
}

const browser = await startBrowser({ tcpOnly: protocol === "tcp" });
const server = await servePage();
try {
  const people = await Promise.all(["ada", "bob"].map(async (name) => ({ name, ...(await openPage(browser, server.address, name)) })));
  await Promise.all(people.map(async ({ name, page }, index) => {
    await new Promise((resolve) => setTimeout(resolve, index * Number(pause)));
    await page.evaluate(join, { url, token: await joinToken(roomName, name), version });
  }));
  for (const { name, page, sockets } of people) {
    const seen = await until(`${name} sees and hears the other`, 20_000, async () => {
      const now = await page.evaluate(observe);
      return { ...now, done: now.frames > 40 && now.brightness > 8 && now.moved > 20 && now.audioPackets > 50 && now.audioEnergy > 0.0001 && now.audioRedundant > now.audioPackets / 2 };
    });
    // The browser's statistics name the codec inside, so this is asked of the sender.
    const agreed = await page.evaluate(agreedSound);
    assert(agreed.join() === "audio/red,audio/opus", `${name} sends ${agreed}`);
    assert(sockets.some((socket) => socket.endsWith(version === "v1" ? "/rtc/v1" : "/rtc")), `${name} did not use ${version}: ${sockets}`);
    if (version === "v0") assert(!sockets.some((socket) => socket.endsWith("/rtc/v1")) , `${name} used v1: ${sockets}`);
    const used = await page.evaluate(pairProtocol);
    assert(protocol === "any" || used === protocol, `${name} is connected by ${used}, not ${protocol}`);
    console.log(JSON.stringify({ name, version, protocol, ...seen }));
  }
  for (const { name, page } of people) {
    const other = people.find((one) => one.name !== name);
    await page.evaluate(() => window.room.localParticipant.publishData(new TextEncoder().encode("hello"), { reliable: true }));
    await until(`${other.name} gets the message of ${name}`, 5_000, async () => {
      const messages = await other.page.evaluate(() => window.messages);
      return { messages, done: messages.length === 1 && messages[0] === `${name}: hello` };
    });
  }
} finally {
  await browser.close();
  server.close();
}
