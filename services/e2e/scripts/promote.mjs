// People of one room, who join one after the other and only watch. The platform lets
// the last of them speak: it publishes sound and pictures at once, and every other one
// hears and sees it, while nobody has left or reconnected. Argument: number of people.

import { AudioFrame, AudioSource, AudioStream, LocalAudioTrack, LocalVideoTrack, Room, RoomEvent, TrackKind, TrackPublishOptions, TrackSource, VideoBufferType, VideoFrame, VideoSource, VideoStream } from "@livekit/rtc-node";
import { RoomServiceClient } from "livekit-server-sdk";
import { apiKey, apiSecret, assert, httpUrl, joinToken, until, url } from "./settings.mjs";

const people = Number(process.argv[2] ?? "6");
const name = `promote-${process.pid}`;
const samples = Int16Array.from({ length: 480 }, (_, index) => Math.sin((index / 480) * Math.PI * 8) * 8000);
const [width, height] = [320, 180];

/** Joins as a viewer, and counts what it hears and sees. */
async function join(identity) {
  const person = { identity, room: new Room(), loud: 0, bright: 0, interruptions: [] };
  const listen = async (track) => {
    for await (const frame of new AudioStream(track, 48_000, 1)) {
      if (frame.data.some((sample) => Math.abs(sample) > 1000)) person.loud += 1;
    }
  };
  const look = async (track) => {
    for await (const event of new VideoStream(track)) {
      const rgba = event.frame.convert(VideoBufferType.RGBA);
      if (rgba.data[4 * 10] > 100) person.bright += 1;
    }
  };
  for (const event of [RoomEvent.Reconnecting, RoomEvent.Reconnected, RoomEvent.Disconnected]) {
    person.room.on(event, () => person.interruptions.push(event));
  }
  person.room.on(RoomEvent.TrackSubscribed, (track) => void (track.kind === TrackKind.KIND_AUDIO ? listen(track) : look(track)));
  await person.room.connect(url, await joinToken(name, identity, { canPublish: false }), { autoSubscribe: true, dynacast: false });
  return person;
}

/** Publishes a tone and a light picture until the process ends. */
async function publish(person) {
  const publishAs = async (track, source) => {
    const options = new TrackPublishOptions();
    options.source = source;
    await person.room.localParticipant.publishTrack(track, options);
  };
  const audio = new AudioSource(48_000, 1);
  await publishAs(LocalAudioTrack.createAudioTrack("tone", audio), TrackSource.SOURCE_MICROPHONE);
  void (async () => { for (;;) await audio.captureFrame(new AudioFrame(samples, 48_000, 1, 480)); })().catch(() => undefined);
  const video = new VideoSource(width, height);
  await publishAs(LocalVideoTrack.createVideoTrack("light", video), TrackSource.SOURCE_CAMERA);
  const frame = new VideoFrame(new Uint8Array(width * height * 4).fill(200), width, height, VideoBufferType.RGBA);
  setInterval(() => { video.captureFrame(frame); }, 66);
}

const everybody = [];
for (let number = 0; number < people; number += 1) everybody.push(await join(`viewer-${number}`));
const promoted = everybody.at(-1);
const others = everybody.slice(0, -1);
await until("everybody knows of everybody", 15_000, () => everybody.every((one) => one.room.remoteParticipants.size === people - 1));
const stays = () => JSON.stringify(everybody.map((one) => one.room.localParticipant.sid));
const before = stays();

const begun = performance.now();
await new RoomServiceClient(httpUrl, apiKey, apiSecret).updateParticipant(name, promoted.identity, {
  permission: { canPublish: true, canSubscribe: true, canPublishData: true },
});
// The API answers when the node has taken it; the SDK hears of it a moment later.
await until("it may publish", 10_000, async () => {
  try {
    await publish(promoted);
    return true;
  } catch (error) {
    return { done: false, error: String(error) };
  }
});
await until("all others hear and see it", 20_000, () => {
  const seen = others.map(({ identity, loud, bright }) => ({ identity, loud, bright }));
  return { done: seen.every(({ loud, bright }) => loud >= 50 && bright >= 10), seen };
});
console.log(`${others.length} others heard and saw it ${Math.round(performance.now() - begun)} ms after the order`);
assert(stays() === before, `somebody is another participant now: ${before} ${stays()}`);
const interruptions = everybody.filter((one) => one.interruptions.length > 0).map((one) => `${one.identity}: ${one.interruptions}`);
assert(interruptions.length === 0, `interrupted: ${interruptions}`);
process.exit(0);
