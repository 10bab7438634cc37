// The first screen: a name, a room, a button. Ends with a token to join with.

import { element } from "./dom";

/** What is needed to join. */
export interface Ticket {
  room: string;
  token: string;
}

const NAME_KEY = "headwater.name";

function roomOfPath(): string {
  const match = /^\/room\/([^/]+)/.exec(location.pathname);
  return match?.[1] ? decodeURIComponent(match[1]) : "";
}

function randomRoom(): string {
  const words = ["amber", "brook", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "maple"];
  const pick = () => words[Math.floor(Math.random() * words.length)];
  return `${pick()}-${pick()}-${Math.floor(Math.random() * 900 + 100)}`;
}

/** Reads what the token says of its room; the server is the one who checks it. */
function roomOfToken(token: string): string {
  try {
    const payload = token.split(".")[1] ?? "";
    const claims = JSON.parse(atob(payload.replace(/-/g, "+").replace(/_/g, "/"))) as { video?: { room?: string } };
    return claims.video?.room ?? "";
  } catch {
    return "";
  }
}

/** Asks the gateway for a token; only one in development mode gives it. */
async function developmentToken(room: string, name: string): Promise<string> {
  const identity = `${name.toLowerCase().replace(/[^a-z0-9]+/g, "-").slice(0, 24) || "guest"}-${crypto.randomUUID().slice(0, 6)}`;
  const query = new URLSearchParams({ room, identity, name });
  const response = await fetch(`/dev/token?${query.toString()}`);
  if (response.status === 404) throw new Error("This server asks for an invitation: open the link you were sent.");
  if (!response.ok) throw new Error((await response.text()) || `The server answered ${response.status}.`);
  return ((await response.json()) as { token: string }).token;
}

/** Shows the first screen and waits until the person may join. */
export function askToJoin(root: HTMLElement, notice: string): Promise<Ticket> {
  const query = new URLSearchParams(location.search);
  const invitation = query.get("token") ?? "";
  const name = element("input", { id: "name", autocomplete: "name", maxlength: "60", placeholder: "Ada", required: true });
  const room = element("input", { id: "room", maxlength: "100", required: true, spellcheck: "false", autocapitalize: "none" });
  const problem = element("p", { class: "problem", role: "alert" }, notice);
  const button = element("button", { class: "primary", type: "submit" }, "Join");
  name.value = localStorage.getItem(NAME_KEY) ?? "";
  room.value = roomOfPath() || roomOfToken(invitation) || randomRoom();

  const fields = invitation
    ? [element("p", { class: "hint" }, "You are invited to ", element("strong", {}, roomOfToken(invitation) || room.value), ".")]
    : [
        element("label", { for: "name" }, "Your name"), name,
        element("label", { for: "room" }, "Room"), room,
        element("p", { class: "hint" }, "Anyone who opens the same room is there with you."),
      ];
  const form = element("form", {}, ...fields, button, problem);
  root.replaceChildren(
    element("main", { class: "welcome" },
      element("section", { class: "card" },
        element("h1", {}, element("span", { class: "wave" }, "≈"), " Headwater"),
        element("p", { class: "lead" }, "Live rooms for communities."),
        form)),
  );
  (name.value || invitation ? button : name).focus();

  return new Promise((resolve) => {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      problem.textContent = "";
      button.disabled = true;
      void ticketFor(invitation, room.value.trim(), name.value.trim())
        .then(resolve)
        .catch((error: unknown) => {
          problem.textContent = error instanceof Error ? error.message : String(error);
          button.disabled = false;
        });
    });
  });
}

async function ticketFor(invitation: string, room: string, name: string): Promise<Ticket> {
  if (invitation) return { room: roomOfToken(invitation) || room, token: invitation };
  localStorage.setItem(NAME_KEY, name);
  const token = await developmentToken(room, name);
  history.replaceState(null, "", `/room/${encodeURIComponent(room)}`);
  return { room, token };
}
