// A browser without any SDK at the doors: it publishes by WHIP and watches by
// WHEP with the npm package whip-whep, beside people who use the LiveKit SDK.
// One viewer stays from the first to the last step and negotiates only once.

import { openPage, servePage, startBrowser } from "./browser.mjs";
import { assert, httpUrl, joinToken, until, url } from "./settings.mjs";

const room = `doors-${process.pid}`;

/** Runs in the page: publishes the fake camera, in three encodings, and microphone. */
async function publish({ url, token }) {
  const { WHIPClient } = await import("/whip.js");
  const media = await navigator.mediaDevices.getUserMedia({ audio: true, video: { width: 1280, height: 720 } });
  const peer = new RTCPeerConnection();
  peer.addTransceiver(media.getAudioTracks()[0], { direction: "sendonly", streams: [media] });
  peer.addTransceiver(media.getVideoTracks()[0], {
    direction: "sendonly", streams: [media],
    sendEncodings: [{ rid: "l", scaleResolutionDownBy: 4 }, { rid: "m", scaleResolutionDownBy: 2 }, { rid: "h" }],
  });
  window.peer = peer;
  window.client = new WHIPClient();
  await window.client.publish(peer, url, token);
  return { location: window.client.resourceURL.href, etag: window.client.etag };
}

/** Runs in the page: restarts ICE by PATCH and gives the new ETag. By hand, for
 * the package reads no answer with more than one candidate. */
async function restart({ token }) {
  const { peer, client } = window;
  client.restartIce = true; // Keeps the package from trickling under the old ETag.
  await peer.setLocalDescription(await peer.createOffer({ iceRestart: true }));
  const value = (sdp, name) => sdp.match(new RegExp(`a=${name}:(.*)\r\n`))[1];
  const own = peer.localDescription.sdp;
  const lines = ["ice-ufrag", "ice-pwd"].map((name) => `a=${name}:${value(own, name)}`);
  const body = [...lines, "m=audio 9 UDP/TLS/RTP/SAVPF 0", "a=mid:0", ""].join("\r\n");
  const answer = await fetch(client.resourceURL, {
    method: "PATCH", body,
    headers: { "Content-Type": "application/trickle-ice-sdpfrag", "If-Match": "*", Authorization: `Bearer ${token}` },
  });
  const fragment = await answer.text();
  if (answer.status !== 200 || !fragment.includes("a=mid:0")) throw new Error(`${answer.status}: ${fragment}`);
  let { sdp } = peer.remoteDescription;
  for (const name of ["ice-ufrag", "ice-pwd"]) sdp = sdp.replaceAll(`a=${name}:${value(sdp, name)}`, `a=${name}:${value(fragment, name)}`);
  await peer.setRemoteDescription({ type: "answer", sdp });
  return answer.headers.get("etag");
}

/** Runs in the page: one offer to receive sound and pictures. */
async function watch({ url, token }) {
  const { WHEPClient } = await import("/whep.js");
  const peer = new RTCPeerConnection();
  for (const kind of ["audio", "video"]) peer.addTransceiver(kind, { direction: "recvonly" });
  window.negotiations = 0;
  peer.onnegotiationneeded = () => { window.negotiations += 1; };
  peer.ontrack = ({ track }) => {
    const media = document.createElement(track.kind);
    media.autoplay = true;
    media.muted = track.kind === "video";
    media.srcObject = new MediaStream([track]);
    document.body.append(media);
  };
  window.peer = peer;
  window.client = new WHEPClient();
  await window.client.view(peer, url, token);
  return { location: window.client.resourceURL.href };
}

/** Runs in the page: what a WHEP viewer gets. */
async function received() {
  const entries = [...(await window.peer.getStats()).values()].filter(({ type }) => type === "inbound-rtp");
  const video = entries.find(({ kind }) => kind === "video");
  const audio = entries.find(({ kind }) => kind === "audio");
  return {
    state: window.peer.connectionState, frames: video?.framesDecoded ?? 0, width: video?.frameWidth ?? 0,
    audio: audio?.packetsReceived ?? 0, energy: audio?.totalAudioEnergy ?? 0, codec: video?.codecId ?? "",
  };
}

/** Runs in the page: joins by the LiveKit SDK. */
async function join({ url, token, publishes }) {
  const lobby = new window.LivekitClient.Room({ adaptiveStream: false, dynacast: false });
  window.lobby = lobby;
  window.tracks = {};
  lobby.on("trackSubscribed", (track, _publication, participant) => {
    const media = track.attach();
    media.muted = track.kind === "video";
    document.body.append(media);
    (window.tracks[participant.identity] ??= {})[track.kind] = track;
  });
  await lobby.connect(url, token);
  if (publishes) await lobby.localParticipant.enableCameraAndMicrophone();
}

/** Runs in the page: what the SDK's user gets from somebody. */
async function seen(identity) {
  const inbound = async (track) => [...((await track?.receiver?.getStats()) ?? new Map()).values()].find(({ type }) => type === "inbound-rtp");
  const tracks = window.tracks[identity] ?? {};
  const [video, audio] = [await inbound(tracks.video), await inbound(tracks.audio)];
  const participant = window.lobby.remoteParticipants.get(identity);
  return {
    here: Boolean(participant), kind: participant?.kind, frames: video?.framesDecoded ?? 0,
    width: video?.frameWidth ?? 0, energy: audio?.totalAudioEnergy ?? 0,
  };
}

const browser = await startBrowser();
const server = await servePage();
const begun = performance.now();
const took = {};
const step = (name) => { took[name] = Math.round(performance.now() - begun); };
try {
  const open = async (name) => (await openPage(browser, server.address, name)).page;
  const [encoder, viewer, guest] = [await open("encoder"), await open("viewer"), await open("guest")];

  // Nobody publishes yet: the viewer gets its answer all the same.
  await viewer.evaluate(watch, { url: `${httpUrl}/whep`, token: await joinToken(room, "viewer", { canPublish: false }) });
  await until("the viewer is connected", 10_000, async () => {
    const now = await viewer.evaluate(received);
    return { ...now, done: now.state === "connected" };
  });
  step("viewer connected");
  await guest.evaluate(join, { url, token: await joinToken(room, "guest") });

  const encoderToken = await joinToken(room, "encoder");
  const session = await encoder.evaluate(publish, { url: `${httpUrl}/whip`, token: encoderToken });
  assert(session.etag, "the answer has no ETag");
  const byGuest = await until("the SDK's user sees and hears the encoder", 15_000, async () => {
    const now = await guest.evaluate(seen, "encoder");
    return { ...now, done: now.frames > 30 && now.energy > 0.0001 };
  });
  const byViewer = await until("the viewer sees and hears the encoder", 15_000, async () => {
    const now = await viewer.evaluate(received);
    return { ...now, done: now.frames > 30 && now.energy > 0.0001 };
  });
  step("encoder seen");
  assert(byGuest.width >= 640, `the SDK's user gets a small picture: ${JSON.stringify(byGuest)}`);

  // ICE restart by PATCH: other credentials, same media.
  const etag = await encoder.evaluate(restart, { token: encoderToken });
  assert(etag && etag !== session.etag, `the restart has the old ETag ${etag}`);
  await until("media goes on after the restart", 10_000, async () => {
    const now = await guest.evaluate(seen, "encoder");
    const used = await encoder.evaluate(async () => {
      const entries = [...(await window.peer.getStats()).values()];
      return entries.find(({ type }) => type === "transport")?.iceState;
    });
    return { ...now, used, done: now.frames > byGuest.frames + 40 && used === "connected" };
  });
  step("ICE restarted");

  // The wrong words get the right answers.
  const ask = (page, method, address, headers, body) => page.evaluate(async ([method, address, headers, body]) => {
    const answer = await fetch(address, { method, headers, body });
    return { status: answer.status, type: answer.headers.get("content-type"), detail: await answer.text() };
  }, [method, address, headers, body]);
  const bearer = (token) => ({ Authorization: `Bearer ${token}` });
  const sdp = { "Content-Type": "application/sdp" };
  const fragment = { "Content-Type": "application/trickle-ice-sdpfrag" };
  const other = await joinToken(room, "other");
  const mute = await joinToken(room, "mute", { canPublish: false });
  for (const [wanted, method, address, headers, body] of [
    [401, "POST", `${httpUrl}/whip`, sdp, "v=0\r\n"],
    [401, "POST", `${httpUrl}/whip`, { ...sdp, ...bearer("not.a.token") }, "v=0\r\n"],
    [403, "POST", `${httpUrl}/whip`, { ...sdp, ...bearer(mute) }, "v=0\r\n"],
    [415, "POST", `${httpUrl}/whip`, { "Content-Type": "text/plain", ...bearer(other) }, "v=0\r\n"],
    [400, "POST", `${httpUrl}/whip`, { ...sdp, ...bearer(other) }, "this is no SDP"],
    [413, "POST", `${httpUrl}/whip`, { ...sdp, ...bearer(other) }, "x".repeat(100_000)],
    [405, "GET", `${httpUrl}/whip`, bearer(other)],
    [405, "GET", session.location, bearer(encoderToken)],
    [404, "DELETE", `${httpUrl}/whip/PA_nobody.00`, bearer(other)],
    [403, "DELETE", session.location, bearer(other)],
    [412, "PATCH", session.location, { ...fragment, ...bearer(encoderToken), "If-Match": session.etag }, "m=audio 9 X 0\r\na=mid:0\r\n"],
    [428, "PATCH", session.location, { ...fragment, ...bearer(encoderToken) }, "m=audio 9 X 0\r\na=mid:0\r\n"],
    [415, "PATCH", session.location, { "Content-Type": "text/plain", ...bearer(encoderToken), "If-Match": "*" }, "a"],
    [204, "PATCH", session.location, { ...fragment, ...bearer(encoderToken), "If-Match": etag }, "m=audio 9 X 0\r\na=mid:0\r\n"],
  ]) {
    const answer = await ask(encoder, method, address, headers, body);
    assert(answer.status === wanted, `${method} ${address}: ${JSON.stringify(answer)}, not ${wanted}`);
    if (wanted >= 400) assert(answer.type === "application/problem+json", `${method} ${address}: ${answer.type}`);
  }
  step("wrong words answered");

  // DELETE ends it at once, for those with the SDK too.
  const before = await viewer.evaluate(received);
  await encoder.evaluate(() => window.client.stop());
  await until("the encoder is gone", 3_000, async () => {
    const now = await guest.evaluate(seen, "encoder");
    return { ...now, done: !now.here };
  });
  const gone = await ask(guest, "DELETE", session.location, bearer(encoderToken));
  assert(gone.status === 404, `a session that is over answers ${JSON.stringify(gone)}`);
  step("encoder gone");

  // The viewer's connection goes on with whoever publishes next.
  await guest.evaluate(() => window.lobby.localParticipant.enableCameraAndMicrophone());
  const after = await until("the viewer sees and hears the SDK's user", 15_000, async () => {
    const now = await viewer.evaluate(received);
    return { ...now, done: now.frames > before.frames + 30 && now.energy > before.energy };
  });
  assert((await viewer.evaluate(() => window.negotiations)) <= 1, "the viewer negotiated again");
  step("guest seen");
  await viewer.evaluate(() => window.client.stop());
  console.log(JSON.stringify({ byGuest, byViewer, after, took }));
} finally {
  await browser.close();
  server.close();
}
