// Authentication over Socket.IO: the places of a token, and the errors of refused clients.
//
// Usage: node socketio-doors.mjs <http url> <polling|websocket> <token of ana> <token of ben> <ana's, expired> <another host's>
//
// The host has the namespace /custom (`socketio.namespaces`) and takes tokens from the cookie jwt (`auth.jwt.cookie`).
// Prints {"ok":true,"checks":N} and exits 0; or exits 1 with the first failed check.

import { check, fresh, run } from "./checks.mjs";
import { SocketIoClient, TRANSPORTS } from "./socketio-client.mjs";

/** Each way in which a token may come. */
const WAYS = {
  "auth, an object": (token) => ({ auth: { token } }),
  "auth, a function": (token) => ({ auth: (tell) => setTimeout(() => tell({ token }), 10) }),
  "the header": (token) => ({ extraHeaders: { Authorization: `Bearer ${token}` } }),
  "the query": (token) => ({ query: { token } }),
  "the cookie": (token) => ({ extraHeaders: { Cookie: `theme=dark; jwt=${token}` } }),
};

/** Whose connection this is, as a feature sees it. */
async function checkUser(client, user) {
  const { viewers } = await client.call("ticket:view", { ticketId: fresh(`t-${client.socket.id}`) });
  check(`who ${client.name} is`, viewers.map(({ agentId }) => agentId), [user]);
  await client.events("viewers:updated");
}

async function letsIn(connect, token) {
  for (const [way, options] of Object.entries(WAYS)) {
    const client = connect(`a token in ${way}`, options(token));
    await client.connected();
    await checkUser(client, "ana");
    client.checkQuiet();
  }
}

/** Who is not let in is told why, in words and by a code, and asks no more by itself. */
async function turnsAway(connect, tokens) {
  const refused = async (client, said) => {
    const { message, data } = await client.turnedAway();
    check(`the code for ${client.name}`, data?.code, "unauthorized");
    check(`"${message}" says why ${client.name} is refused`, said.test(message), true);
    check(`${client.name} goes on trying`, client.socket.active, false);
    client.checkQuiet();
    return client;
  };
  await refused(connect("who has no token", {}), /token/i);
  for (const [way, options] of Object.entries(WAYS)) {
    await refused(connect(`nonsense in ${way}`, options("no.good.token")), /token/i);
  }
  await refused(connect("who is late", { auth: { token: tokens.expired } }), /expired/i);
  await refused(connect("who comes from another host", { auth: { token: tokens.foreign } }), /./);

  // A page connects again with a valid token on the same socket.
  const client = await refused(connect("who tries again", { auth: { token: tokens.expired } }), /expired/i);
  client.socket.auth = { token: tokens.ana };
  client.socket.connect();
  await client.connected();
  await checkUser(client, "ana");
  client.checkQuiet();
}

/** A browser sends cookies along whoever made the page: from a stranger's they do not count. */
async function distrustsStrangers(connect, token) {
  const extraHeaders = { Cookie: `jwt=${token}`, Origin: "https://evil.example" };
  const client = connect("a stranger's page", { extraHeaders, reconnection: false });
  const { message } = await client.turnedAway();
  check("why", typeof message === "string" && message !== "", true);
  client.checkQuiet();
}

/** A connection may be given a newer token of the same user. */
async function renews(connect, tokens) {
  const client = connect("who renews", { auth: { token: tokens.ana } });
  const id = await client.connected();
  await client.call("authenticate", { token: tokens.ana });
  check("another's token", (await client.refused("authenticate", { token: tokens.ben })).code, "forbidden");
  check("nonsense", (await client.refused("authenticate", { token: "no.good.token" })).code, "unauthorized");
  check("no token", (await client.refused("authenticate", {})).code, "bad_request");
  await checkUser(client, "ana");
  check("it is the same connection", client.socket.id, id);
  client.checkQuiet();
}

/** Namespaces that are configured are as good as the first, on the same transport, and others do not exist. */
async function separatesNamespaces(connect, token) {
  const main = connect("in /", { auth: { token } });
  await main.connected();
  const { io } = main.socket;
  const inNamespace = (namespace) => new SocketIoClient(`in ${namespace}`, namespace, { io: () => io.socket(namespace, { auth: { token } }) });
  const custom = inNamespace("/custom");
  await custom.connected();
  check("ids differ", custom.socket.id === main.socket.id, false);
  for (const client of [main, custom]) await checkUser(client, "ana");
  check("a refusal", (await custom.refused("ticket:view", {})).code, "bad_request");
  custom.tell("ticket:view", {});
  check("a refusal", (await custom.events("error"))[0].code, "bad_request");

  const nowhere = inNamespace("/nowhere");
  check("what is said of it", (await nowhere.turnedAway()).message, "Invalid namespace");

  custom.socket.disconnect();
  await custom.disconnected();
  await checkUser(main, "ana");
  for (const client of [main, custom, nowhere]) client.checkQuiet();
}

async function main([url, transport, ana, ben, expired, foreign]) {
  const transports = TRANSPORTS[transport];
  if (!transports || !foreign) {
    throw new Error("usage: node socketio-doors.mjs <http url> <polling|websocket> <token of ana> <token of ben> <ana's, expired> <another host's>");
  }
  const tokens = { ana, ben, expired, foreign };
  const connect = (name, options) => new SocketIoClient(name, url, { transports, ...options });
  await letsIn(connect, ana);
  await turnsAway(connect, tokens);
  await distrustsStrangers(connect, ana);
  await renews(connect, tokens);
  await separatesNamespaces(connect, ana);
}

await run(main, SocketIoClient.endAll);
