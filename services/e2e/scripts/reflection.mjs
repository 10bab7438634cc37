// Calls the public API as a stranger with nothing but its address would: by
// gRPC reflection. Argument: the address, such as http://127.0.0.1:7890.

import { spawnSync } from "node:child_process";
import { createRequire } from "node:module";
import { AccessToken } from "livekit-server-sdk";
import { apiKey, apiSecret, assert } from "./settings.mjs";

const [address] = process.argv.slice(2);
const require = createRequire(import.meta.url);
const buf = require.resolve(`@bufbuild/buf-${process.platform}-${process.arch}/bin/buf`);
const token = new AccessToken(apiKey, apiSecret, { identity: "operator", ttl: "10m" });
token.addGrant({ roomCreate: true, roomList: true, roomAdmin: true, room: `reflection-${process.pid}` });
const bearer = await token.toJwt();

function curl(method, body, { authorized = true, protocol = "grpc" } = {}) {
  const headers = authorized ? ["--header", `authorization: Bearer ${bearer}`] : [];
  const run = spawnSync(buf, ["curl", "--http2-prior-knowledge", "--protocol", protocol, ...headers, "--data", JSON.stringify(body), `${address}/${method}`], { encoding: "utf8" });
  return { ok: run.status === 0, out: run.stdout, error: run.stderr };
}

const methods = spawnSync(buf, ["curl", "--http2-prior-knowledge", "--protocol", "grpc", "--list-methods", address], { encoding: "utf8" });
for (const method of ["headwater.v1.RoomService/CreateRoom", "headwater.v1.RoomService/IssueToken", "headwater.v1.ClusterService/ListNodes", "grpc.health.v1.Health/Check"]) {
  assert(methods.stdout.includes(method), `reflection lists ${method}: ${methods.stdout} ${methods.stderr}`);
}
const health = curl("grpc.health.v1.Health/Check", { service: "" }, { authorized: false });
assert(health.out.includes("SERVING"), `health: ${health.out} ${health.error}`);

const room = `reflection-${process.pid}`;
const created = curl("headwater.v1.RoomService/CreateRoom", { roomId: room, room: { maxParticipants: 3, metadata: "hi" } });
assert(created.ok && JSON.parse(created.out).room.name === `rooms/${room}`, `CreateRoom: ${created.out} ${created.error}`);
const twice = curl("headwater.v1.RoomService/CreateRoom", { roomId: room });
assert(!twice.ok && twice.error.includes("already_exists"), `CreateRoom again: ${twice.error}`);
const updated = curl("headwater.v1.RoomService/UpdateRoom", { room: { name: `rooms/${room}`, metadata: "new" }, updateMask: "metadata" });
assert(updated.ok && JSON.parse(updated.out).room.metadata === "new" && JSON.parse(updated.out).room.maxParticipants === 3, `UpdateRoom: ${updated.out} ${updated.error}`);
const listed = curl("headwater.v1.RoomService/ListRooms", { pageSize: 1000 });
assert(listed.ok && JSON.parse(listed.out).rooms.some((entry) => entry.name === `rooms/${room}`), `ListRooms: ${listed.out} ${listed.error}`);
const issued = curl("headwater.v1.RoomService/IssueToken", { room: `rooms/${room}`, identity: "ada" });
assert(issued.ok && JSON.parse(issued.out).token.split(".").length === 3, `IssueToken: ${issued.out} ${issued.error}`);
const nodes = curl("headwater.v1.ClusterService/ListNodes", {});
assert(nodes.ok && JSON.parse(nodes.out).nodes.length >= 1, `ListNodes: ${nodes.out} ${nodes.error}`);
const web = curl("headwater.v1.RoomService/GetRoom", { name: `rooms/${room}` }, { protocol: "grpcweb" });
assert(web.ok, `GetRoom by gRPC-Web: ${web.error}`);
const stranger = curl("headwater.v1.RoomService/ListRooms", {}, { authorized: false });
assert(!stranger.ok && stranger.error.includes("unauthenticated"), `a stranger is refused: ${stranger.error}`);
const wrong = curl("headwater.v1.RoomService/CreateRoom", { roomId: "a/b" });
assert(!wrong.ok && wrong.error.includes("invalid_argument") && wrong.error.includes("room_id"), `a bad name is named: ${wrong.error}`);
const deleted = curl("headwater.v1.RoomService/DeleteRoom", { name: `rooms/${room}` });
assert(deleted.ok, `DeleteRoom: ${deleted.error}`);
const missing = curl("headwater.v1.RoomService/GetRoom", { name: `rooms/${room}` });
assert(!missing.ok && missing.error.includes("not_found"), `GetRoom after deletion: ${missing.error}`);
console.log("reflection: everything as expected");
