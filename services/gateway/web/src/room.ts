// The room: connects, keeps the stage in step with who is there, and ends with
// a word on why it ended.

import { ConnectionState, DisconnectReason, Room, RoomEvent, VideoPresets } from "livekit-client";
import { Chat } from "./chat";
import { Controls } from "./controls";
import { element } from "./dom";
import type { Ticket } from "./join";
import { Stage } from "./stage";

/** Shows the room until it ends; answers with what to tell the person then. */
export async function showRoom(root: HTMLElement, ticket: Ticket): Promise<string> {
  const room = new Room({
    adaptiveStream: true,
    dynacast: true,
    videoCaptureDefaults: { resolution: VideoPresets.h720.resolution },
  });
  const stage = new Stage(room);
  const chat = new Chat(room);
  const banner = element("div", { class: "banner", role: "status" });
  const count = element("span", { class: "count" });
  const controls = new Controls(room, chat, (message) => { banner.textContent = message; });

  root.replaceChildren(
    element("div", { class: "room" },
      element("header", {}, element("span", { class: "wave" }, "≈"), element("h1", {}, ticket.room), count, banner),
      element("div", { class: "middle" }, stage.node, chat.node),
      controls.node),
  );

  const ended = new Promise<string>((resolve) => {
    room.on(RoomEvent.Disconnected, (reason) => { resolve(farewell(reason)); });
  });
  const refresh = () => {
    // In large rooms most viewers are counted by the server and not announced.
    const shown = room.remoteParticipants.size + 1;
    const people = shown > 100 ? Math.max(shown, room.numParticipants) : shown;
    count.textContent = people === 1 ? "only you" : `${people} people`;
    document.title = `${ticket.room} · Headwater`;
  };
  room.on(RoomEvent.ConnectionStateChanged, (state) => { banner.textContent = wordFor(state); });
  room.on(RoomEvent.AudioPlaybackStatusChanged, () => {
    if (!room.canPlaybackAudio) banner.textContent = "Tap anywhere to hear the others.";
    else if (room.state === ConnectionState.Connected) banner.textContent = "";
  });
  root.addEventListener("click", () => { if (!room.canPlaybackAudio) void room.startAudio(); });
  room.on(RoomEvent.ParticipantConnected, refresh).on(RoomEvent.ParticipantDisconnected, refresh);
  addEventListener("pagehide", () => { void room.disconnect(); }, { once: true });

  try {
    await room.connect(location.origin.replace(/^http/, "ws"), ticket.token);
    refresh();
    await controls.begin();
  } catch (error) {
    await room.disconnect();
    return error instanceof Error ? error.message : String(error);
  }
  return ended;
}

function wordFor(state: ConnectionState): string {
  switch (state) {
    case ConnectionState.Connecting: return "Connecting…";
    case ConnectionState.Reconnecting:
    case ConnectionState.SignalReconnecting: return "Connection lost, reconnecting…";
    case ConnectionState.Connected:
    case ConnectionState.Disconnected: return "";
  }
}

function farewell(reason: DisconnectReason | undefined): string {
  switch (reason) {
    case DisconnectReason.DUPLICATE_IDENTITY: return "You joined from somewhere else.";
    case DisconnectReason.PARTICIPANT_REMOVED: return "You were removed from the room.";
    case DisconnectReason.ROOM_DELETED: return "The room was closed.";
    case DisconnectReason.CLIENT_INITIATED: return "";
    default: return "The connection was lost.";
  }
}
