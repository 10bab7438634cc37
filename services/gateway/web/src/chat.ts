// Chat by data messages: short texts on the topic `chat`, shown as they come.

import { type Participant, type Room, RoomEvent } from "livekit-client";
import { element, icon, icons } from "./dom";

const TOPIC = "chat";
const MESSAGES_MAX = 500;

interface Message { text: string }

/** The panel beside the stage. */
export class Chat {
  readonly node: HTMLElement;
  private readonly list = element("ol", { "aria-live": "polite" });
  private readonly input = element("input", { placeholder: "Write to everybody", maxlength: "2000", "aria-label": "Message" });
  /** Called with the number of messages that nobody has looked at. */
  onUnread: (count: number) => void = () => undefined;
  private unread = 0;

  constructor(private readonly room: Room) {
    const close = element("button", { class: "icon", type: "button", "aria-label": "Close the chat" }, icon(icons.close));
    const form = element("form", {}, this.input, element("button", { class: "icon", "aria-label": "Send" }, icon(icons.send)));
    this.node = element("aside", { class: "chat", "aria-label": "Chat" }, element("div", { class: "title" }, element("h2", {}, "Chat"), close), this.list, form);
    close.addEventListener("click", () => { this.toggle(false); });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.send();
    });
    room.on(RoomEvent.DataReceived, (payload, participant, _kind, topic) => {
      if (topic === TOPIC) this.receive(payload, participant);
    });
  }

  /** Opens or closes the panel. */
  toggle(open = !this.isOpen): void {
    this.node.classList.toggle("open", open);
    if (!open) return;
    this.unread = 0;
    this.onUnread(0);
    this.input.focus();
  }

  get isOpen(): boolean { return this.node.classList.contains("open"); }

  private async send(): Promise<void> {
    const text = this.input.value.trim();
    if (!text) return;
    const message: Message = { text };
    this.input.value = "";
    try {
      await this.room.localParticipant.publishData(new TextEncoder().encode(JSON.stringify(message)), { reliable: true, topic: TOPIC });
      this.show("you", text, true);
    } catch (error) {
      this.input.value = text;
      this.show("", `Not sent: ${error instanceof Error ? error.message : String(error)}`, true);
    }
  }

  private receive(payload: Uint8Array, participant: Participant | undefined): void {
    try {
      const message = JSON.parse(new TextDecoder().decode(payload)) as Message;
      if (typeof message.text !== "string") return;
      this.show(participant?.name || participant?.identity || "the server", message.text.slice(0, 2000), false);
    } catch {
      return; // not one of our messages
    }
    if (this.isOpen) return;
    this.unread += 1;
    this.onUnread(this.unread);
  }

  private show(from: string, text: string, own: boolean): void {
    const time = new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    this.list.append(element("li", { class: own ? "own" : undefined }, element("span", { class: "from" }, `${from} · ${time}`), element("p", {}, text)));
    while (this.list.children.length > MESSAGES_MAX) this.list.firstElementChild?.remove();
    this.list.scrollTop = this.list.scrollHeight;
  }
}
