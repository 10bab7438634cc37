// The community page: asks who and where, then shows the room. Which room comes
// from the path (`/room/{name}`), the token from the query or the dev gateway.

import "./style.css";
import { askToJoin } from "./join";
import { showRoom } from "./room";

const app = document.querySelector<HTMLDivElement>("#app");
if (!app) throw new Error("the page has no #app");

async function run(root: HTMLElement): Promise<void> {
  let notice = "";
  for (;;) {
    const ticket = await askToJoin(root, notice);
    notice = await showRoom(root, ticket);
  }
}

void run(app);
