// The tiles: one for each camera or shared screen, or a face made of initials.

import { type LocalParticipant, type Participant, type RemoteParticipant, type Room, RoomEvent, Track, type TrackPublication } from "livekit-client";
import { element, icon, icons } from "./dom";

type Shown = Track.Source.Camera | Track.Source.ScreenShare;

/** One tile. */
class Tile {
  readonly node: HTMLElement;
  private readonly label = element("span", { class: "name" });
  private readonly muted = element("span", { class: "muted", title: "Microphone off" }, icon(icons.microphoneOff));
  private readonly face = element("div", { class: "face" });
  private video: HTMLMediaElement | undefined;

  constructor(private readonly participant: Participant, private readonly source: Shown) {
    this.node = element("figure", { class: "tile", "data-identity": participant.identity, "data-source": source },
      this.face, element("figcaption", {}, this.muted, this.label));
  }

  refresh(): void {
    const own = this.participant.isLocal;
    const name = this.participant.name || this.participant.identity;
    const screen = this.source === Track.Source.ScreenShare;
    this.label.textContent = screen ? `${name} shares` : own ? `${name} (you)` : name;
    this.face.textContent = initials(name);
    this.face.style.setProperty("--hue", String(hue(this.participant.identity)));
    this.muted.hidden = screen || this.participant.isMicrophoneEnabled;
    this.node.classList.toggle("speaking", !screen && this.participant.isSpeaking);
    this.node.classList.toggle("screen", screen);
    this.node.classList.toggle("mirrored", own && !screen);
    this.showVideo(this.participant.getTrackPublication(this.source));
  }

  private showVideo(publication: TrackPublication | undefined): void {
    const track = publication && !publication.isMuted ? publication.videoTrack : undefined;
    if (this.video && (!track || !track.attachedElements.includes(this.video))) {
      this.video.remove();
      this.video = undefined;
    }
    if (track && !this.video) {
      this.video = track.attach();
      this.node.prepend(this.video);
    }
  }

  remove(): void {
    this.participant.getTrackPublication(this.source)?.videoTrack?.detach();
    this.node.remove();
  }
}

/** All the tiles of a room. */
export class Stage {
  readonly node = element("section", { class: "stage", "aria-label": "People" });
  private readonly tiles = new Map<string, Tile>();

  constructor(private readonly room: Room) {
    const refresh = () => { this.refresh(); };
    for (const event of [
      RoomEvent.Connected, RoomEvent.ParticipantConnected, RoomEvent.ParticipantDisconnected,
      RoomEvent.TrackUnpublished, RoomEvent.TrackMuted, RoomEvent.TrackUnmuted,
      RoomEvent.LocalTrackPublished, RoomEvent.LocalTrackUnpublished, RoomEvent.ActiveSpeakersChanged,
      RoomEvent.ParticipantNameChanged, RoomEvent.Reconnected,
    ] as const) {
      room.on(event, refresh);
    }
    room.on(RoomEvent.TrackSubscribed, (track) => {
      if (track.kind === Track.Kind.Audio) document.body.append(track.attach());
      refresh();
    });
    room.on(RoomEvent.TrackUnsubscribed, (track) => {
      track.detach().forEach((media) => { media.remove(); });
      refresh();
    });
  }

  private refresh(): void {
    const wanted = new Map<string, [Participant, Shown]>();
    const everybody: (LocalParticipant | RemoteParticipant)[] = [this.room.localParticipant, ...this.room.remoteParticipants.values()];
    for (const participant of everybody) {
      if (!participant.identity) continue;
      if (participant.getTrackPublication(Track.Source.ScreenShare)) {
        wanted.set(`${participant.sid} screen`, [participant, Track.Source.ScreenShare]);
      }
      wanted.set(participant.sid, [participant, Track.Source.Camera]);
    }
    for (const [key, tile] of this.tiles) {
      if (wanted.has(key)) continue;
      tile.remove();
      this.tiles.delete(key);
    }
    for (const [key, [participant, source]] of wanted) {
      let tile = this.tiles.get(key);
      if (!tile) {
        tile = new Tile(participant, source);
        this.tiles.set(key, tile);
        if (source === Track.Source.ScreenShare) this.node.prepend(tile.node);
        else this.node.append(tile.node);
      }
      tile.refresh();
    }
    this.node.dataset["tiles"] = String(Math.min(wanted.size, 10));
    this.node.classList.toggle("has-screen", [...wanted.values()].some(([, source]) => source === Track.Source.ScreenShare));
  }
}

function initials(name: string): string {
  const words = name.split(/[\s._-]+/).filter(Boolean);
  return words.slice(0, 2).map((word) => word.charAt(0).toUpperCase()).join("");
}

function hue(text: string): number {
  let sum = 0;
  for (const character of text) sum = (sum * 31 + (character.codePointAt(0) ?? 0)) % 360;
  return sum;
}
