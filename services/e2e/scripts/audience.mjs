// Pairs of rtc-node participants in many rooms. Each says a number over the
// lossy channel every 50 ms and plays a tone; each notes what it hears of the
// other: beats, those of another room and those that came twice, how long it heard
// neither beat nor tone, and how many others it knows of. Speaks JSON lines on
// standard output, one report a second, until its standard input closes. Arguments:
// number of rooms, prefix of their names, milliseconds between the first's join and
// the next one's in each room (0), who joins in this order (ada,bob), who of them
// leaves again when all are there (nobody).

import { AudioFrame, AudioSource, AudioStream, LocalAudioTrack, Room, RoomEvent, TrackKind, TrackPublishOptions, TrackSource } from "@livekit/rtc-node";
import { joinToken, url } from "./settings.mjs";

const [rooms = "1", prefix = "audience", pause = "0", people = "ada,bob", leaver = ""] = process.argv.slice(2);
// Beats that are remembered of each sender, to notice one that comes twice.
const remembered = 200;
const samples = Int16Array.from({ length: 480 }, (_, index) => Math.sin((index / 480) * Math.PI * 8) * 8000);
let running = true;

/** One participant and what it noticed since the last report. */
class Member {
  constructor(room, identity) {
    Object.assign(this, { room, identity, heard: 0, strays: 0, twice: 0, beats: new Map(), gapMs: 0, loud: 0, quietMs: 0, reconnects: 0, disconnected: "", last: performance.now(), lastLoud: performance.now() });
  }

  async join() {
    this.client = new Room();
    this.client
      .on(RoomEvent.DataReceived, (payload, from, _kind, topic) => { if (topic === "beat") this.hear(payload, from?.identity); })
      .on(RoomEvent.Reconnected, () => { this.reconnects += 1; })
      .on(RoomEvent.Disconnected, (reason) => { this.disconnected = String(reason); })
      .on(RoomEvent.TrackSubscribed, (track) => { if (track.kind === TrackKind.KIND_AUDIO) void this.listen(track); });
    const begun = performance.now();
    await this.client.connect(url, await joinToken(this.room, this.identity), { autoSubscribe: true, dynacast: false });
    this.joinMs = performance.now() - begun;
    const source = new AudioSource(48_000, 1);
    const options = new TrackPublishOptions();
    options.source = TrackSource.SOURCE_MICROPHONE;
    await this.client.localParticipant.publishTrack(LocalAudioTrack.createAudioTrack("tone", source), options);
    void this.play(source);
    void this.beat();
  }

  hear(payload, from) {
    const { room, number } = JSON.parse(new TextDecoder().decode(payload));
    if (room !== this.room) this.strays += 1;
    const beats = this.beats.get(from) ?? [];
    if (beats.includes(number)) this.twice += 1;
    this.beats.set(from, [...beats, number].slice(-remembered));
    const now = performance.now();
    this.gapMs = Math.max(this.gapMs, now - this.last);
    this.last = now;
    this.heard += 1;
  }

  async listen(track) {
    for await (const frame of new AudioStream(track, 48_000, 1)) {
      if (!frame.data.some((sample) => Math.abs(sample) > 1000)) continue;
      const now = performance.now();
      this.quietMs = Math.max(this.quietMs, now - this.lastLoud);
      this.lastLoud = now;
      this.loud += 1;
    }
  }

  async play(source) {
    while (running && !this.left) await source.captureFrame(new AudioFrame(samples, 48_000, 1, 480)).catch(() => undefined);
  }

  async beat() {
    for (let number = 0; running && !this.left; number += 1) {
      const payload = new TextEncoder().encode(JSON.stringify({ room: this.room, number }));
      await this.client.localParticipant?.publishData(payload, { reliable: false, topic: "beat" }).catch(() => undefined);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  report() {
    const silence = performance.now() - this.last;
    const quiet = performance.now() - this.lastLoud;
    const report = {
      room: this.room, identity: this.identity, joinMs: Math.round(this.joinMs ?? -1), heard: this.heard, strays: this.strays, twice: this.twice,
      gapMs: Math.round(Math.max(this.gapMs, silence)), loud: this.loud,
      quietMs: Math.round(Math.max(this.quietMs, quiet)), reconnects: this.reconnects, disconnected: this.disconnected,
      others: this.client.remoteParticipants.size,
    };
    this.heard = 0;
    this.gapMs = 0;
    this.loud = 0;
    this.quietMs = 0;
    return report;
  }
}

const identities = people.split(",");
const members = [];
for (let index = 0; index < Number(rooms); index += 1) {
  for (const identity of identities) members.push(new Member(`${prefix}-${index}`, identity));
}
const place = (member) => identities.indexOf(member.identity);
// With a pause, all the first ones come before all the second ones.
const order = Number(pause) > 0 ? [...members].sort((one, other) => place(one) - place(other)) : members;
for (let index = 0; index < order.length; index += 4) {
  if (Number(pause) > 0 && index > 0 && order[index].identity !== order[index - 1].identity) await new Promise((resolve) => setTimeout(resolve, Number(pause)));
  await Promise.all(order.slice(index, index + 4).map((member) => member.join()));
}
for (const member of members.filter((one) => one.identity === leaver)) {
  member.left = true;
  await member.client.disconnect();
}
const reporting = members.filter((member) => !member.left);
setInterval(() => { console.log(JSON.stringify(reporting.map((member) => member.report()))); }, 1000);
process.stdin.resume();
process.stdin.on("end", () => { running = false; process.exit(0); });
