// The bar at the bottom: microphone, camera, screen, chat, link, leave.

import { type Room, RoomEvent } from "livekit-client";
import type { Chat } from "./chat";
import { element, icon, icons } from "./dom";

/** The bar of buttons. */
export class Controls {
  readonly node: HTMLElement;
  private readonly microphone = button("Microphone", icons.microphone);
  private readonly camera = button("Camera", icons.camera);
  private readonly screen = button("Share the screen", icons.screen);
  private readonly chat = button("Chat", icons.chat);
  private readonly badge = element("span", { class: "badge", hidden: true });

  constructor(private readonly room: Room, chat: Chat, private readonly tell: (message: string) => void) {
    const link = button("Copy the link", icons.link);
    const leave = button("Leave", icons.leave);
    leave.classList.add("leave");
    this.chat.append(this.badge);
    this.node = element("nav", { class: "controls", "aria-label": "Controls" }, this.microphone, this.camera, this.screen, this.chat, link, leave);
    const own = room.localParticipant;
    this.on(this.microphone, () => own.setMicrophoneEnabled(!own.isMicrophoneEnabled));
    this.on(this.camera, () => own.setCameraEnabled(!own.isCameraEnabled));
    this.on(this.screen, () => own.setScreenShareEnabled(!own.isScreenShareEnabled, { audio: true }));
    this.on(link, async () => {
      await navigator.clipboard.writeText(`${location.origin}/room/${encodeURIComponent(room.name)}`);
      this.tell("Link copied.");
    });
    this.on(leave, () => room.disconnect());
    this.chat.addEventListener("click", () => { chat.toggle(); });
    chat.onUnread = (count) => {
      this.badge.hidden = count === 0;
      this.badge.textContent = String(Math.min(count, 99));
    };
    if (!("getDisplayMedia" in (navigator.mediaDevices ?? {}))) this.screen.hidden = true;
    for (const event of [RoomEvent.LocalTrackPublished, RoomEvent.LocalTrackUnpublished, RoomEvent.TrackMuted, RoomEvent.TrackUnmuted] as const) {
      room.on(event, () => { this.refresh(); });
    }
  }

  /** Switches microphone and camera on; a missing device is told, not fatal. */
  async begin(): Promise<void> {
    const own = this.room.localParticipant;
    const permissions = own.permissions;
    if (permissions && !permissions.canPublish) {
      for (const node of [this.microphone, this.camera, this.screen]) node.hidden = true;
      return;
    }
    const failures: string[] = [];
    await own.setMicrophoneEnabled(true).catch(() => failures.push("microphone"));
    await own.setCameraEnabled(true).catch(() => failures.push("camera"));
    if (failures.length > 0) this.tell(`No ${failures.join(" and ")}: you can still listen and write.`);
    this.refresh();
  }

  private on(target: HTMLButtonElement, action: () => Promise<unknown>): void {
    target.addEventListener("click", () => {
      target.disabled = true;
      action()
        .catch((error: unknown) => {
          // Choosing no screen is no failure.
          if (!(error instanceof DOMException && error.name === "NotAllowedError")) this.tell(error instanceof Error ? error.message : String(error));
        })
        .finally(() => {
          target.disabled = false;
          this.refresh();
        });
    });
  }

  private refresh(): void {
    const own = this.room.localParticipant;
    set(this.microphone, own.isMicrophoneEnabled, own.isMicrophoneEnabled ? icons.microphone : icons.microphoneOff);
    set(this.camera, own.isCameraEnabled, own.isCameraEnabled ? icons.camera : icons.cameraOff);
    set(this.screen, own.isScreenShareEnabled, icons.screen);
  }
}

function button(label: string, path: string): HTMLButtonElement {
  return element("button", { type: "button", class: "control", title: label, "aria-label": label }, icon(path));
}

function set(target: HTMLButtonElement, on: boolean, path: string): void {
  target.setAttribute("aria-pressed", String(on));
  target.querySelector("path")?.setAttribute("d", path);
}
