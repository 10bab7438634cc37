// livekit-server-sdk, unmodified, against our Twirp doors, with a real
// participant of rtc-node in the room.

import { AudioFrame, AudioSource, LocalAudioTrack, Room, RoomEvent, TrackPublishOptions, TrackSource, dispose } from "@livekit/rtc-node";
import { DataPacket_Kind, RoomServiceClient } from "livekit-server-sdk";
import { apiKey, apiSecret, assert, httpUrl, joinToken, until, url } from "./settings.mjs";

const api = new RoomServiceClient(httpUrl, apiKey, apiSecret);
const name = `server-sdk-${process.pid}`;

const created = await api.createRoom({ name, emptyTimeout: 60, maxParticipants: 5, metadata: "first" });
assert(created.name === name && created.maxParticipants === 5, "createRoom answers with the room");
assert((await api.createRoom({ name })).sid === created.sid, "createRoom again gives the same room");
assert((await api.listRooms([name])).length === 1, "listRooms finds it");
assert((await api.listRooms([`${name}-nowhere`])).length === 0, "listRooms leaves out what is not there");
assert((await api.updateRoomMetadata(name, "second")).metadata === "second", "metadata changes");

const room = new Room();
await room.connect(url, await joinToken(name, "carol"), { autoSubscribe: true, dynacast: false });
const source = new AudioSource(48_000, 1);
const track = LocalAudioTrack.createAudioTrack("tone", source);
const options = new TrackPublishOptions();
options.source = TrackSource.SOURCE_MICROPHONE;
await room.localParticipant.publishTrack(track, options);
let playing = true;
const tone = (async () => {
  const samples = Int16Array.from({ length: 480 }, (_, index) => Math.sin((index / 480) * Math.PI * 8) * 8000);
  while (playing) await source.captureFrame(new AudioFrame(samples, 48_000, 1, 480));
})();

const people = await until("the participant is listed with its track", 5000, async () => {
  const list = await api.listParticipants(name);
  return { done: list.length === 1 && list[0].tracks.length === 1, list };
});
const published = people.list[0].tracks[0];
assert(people.list[0].identity === "carol", "the identity is the token's");
await until("the room counts it", 10_000, async () => (await api.listRooms([name]))[0]?.numParticipants === 1);

const received = new Promise((resolve) => room.on(RoomEvent.DataReceived, (payload, _participant, _kind, topic) => resolve([Buffer.from(payload).toString(), topic])));
await api.sendData(name, Buffer.from("hello"), DataPacket_Kind.RELIABLE, { topic: "news" });
assert((await received).join() === "hello,news", "sendData arrives with its topic");

const muted = new Promise((resolve) => room.on(RoomEvent.TrackMuted, resolve));
const answer = await api.mutePublishedTrack(name, "carol", published.sid, true);
assert(answer.muted, "mutePublishedTrack answers muted");
await muted;

const updated = await api.updateParticipant(name, "carol", { metadata: "host", attributes: { seat: "7" }, name: "Carol" });
assert(updated.metadata === "host" && updated.attributes.seat === "7" && updated.name === "Carol", "updateParticipant answers with the new state");
await until("the participant sees its new name", 5000, () => room.localParticipant.name === "Carol");

const gone = new Promise((resolve) => room.on(RoomEvent.Disconnected, resolve));
await api.removeParticipant(name, "carol");
await gone;
playing = false;
await tone.catch(() => undefined);
await until("nobody is left", 5000, async () => (await api.listParticipants(name)).length === 0);
await assertFails("removing somebody who is not there", 404, () => api.removeParticipant(name, "carol"));

await api.deleteRoom(name);
assert((await api.listRooms([name])).length === 0, "the room is gone");
await assertFails("deleting it again", 404, () => api.deleteRoom(name));
await assertFails("a wrong secret", 401, () => new RoomServiceClient(httpUrl, apiKey, "not-the-secret").listRooms());
console.log("server SDK: everything as expected");
await dispose();
process.exit(0);

async function assertFails(what, status, call) {
  try {
    await call();
  } catch (error) {
    assert(error.status === status, `${what}: status ${error.status} (${error.message}), not ${status}`);
    return;
  }
  throw new Error(`${what}: was not refused`);
}
