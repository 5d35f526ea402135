// A page that logs in at its back-end, and whose socket.io-client then connects with nothing but the cookie.
//
// Usage: node cookie-session.mjs <http url> <back-end's url> <polling|websocket|upgrade>
//
// Prints {"ok":true,"checks":N} and exits 0; or exits 1 with the first failed check. The host must ask the back-end about
// the cookie `connect.sid`, and again every second.

import { check, fresh, run } from "./checks.mjs";
import { SocketIoClient, TRANSPORTS } from "./socketio-client.mjs";

async function main([url, backend, transport]) {
  let cookie;
  const post = async (path, body = {}) => {
    const headers = { "content-type": "application/json", ...(cookie && { cookie }) };
    const answer = await fetch(backend + path, { method: "POST", headers, body: JSON.stringify(body) });
    check(`${path} is answered`, answer.status, 200);
    cookie = answer.headers.get("set-cookie")?.split(";")[0] ?? cookie;
  };
  const page = (name) =>
    // As a browser sends it for the page.
    new SocketIoClient(name, url, {
      transports: TRANSPORTS[transport],
      withCredentials: true,
      extraHeaders: { cookie, origin: backend },
    });

  // A visitor has a session, too, in which nobody is logged in.
  cookie = (await fetch(backend)).headers.get("set-cookie").split(";")[0];
  const visitor = page("visitor");
  const refusal = await visitor.turnedAway();
  check("the visitor's refusal", refusal.data.code, "unauthorized");
  visitor.socket.disconnect();

  const ticketId = fresh("t-cookie");
  await post("/login", { user: { id: "ana", name: "Ana", roles: ["agent"] } });
  const ana = page("ana");
  await ana.connected();
  await ana.isOn(TRANSPORTS[transport].at(-1));
  const view = await ana.call("ticket:view", { ticketId });
  check("who views it", view.viewers.map(({ agentId, agentName }) => `${agentId} ${agentName}`), ["ana Ana"]);
  await ana.events("viewers:updated");

  // The second tab has the same cookie.
  const second = page("second");
  await second.connected();
  await second.call("ticket:view", { ticketId });

  await post("/logout");
  for (const tab of [ana, second]) {
    const [error] = await tab.eventsNamed("error", 1);
    check("why the tab is disconnected", error.code, "unauthorized");
    check("the tab stays away", await tab.disconnected(), "io server disconnect");
  }
  const late = page("late");
  check("the cookie is worth nothing any more", (await late.turnedAway()).data.code, "unauthorized");
}

await run(main, SocketIoClient.endAll);
