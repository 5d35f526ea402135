// An agent that is away until the others see it leave, and comes back: the events of both pages.
//
// Usage: node socketio-away.mjs <http url> <newest|4.1> <polling|websocket|upgrade> <token of ana> <token of ben>
//
// Prints {"ok":true,"checks":N} and exits 0; or exits 1 with the first failed check. The host must
// remove absent agents after a second (`plugins.ticket-collision.settings.awaySeconds = 1`).

import { check, fresh, pick, run, subject } from "./checks.mjs";
import { Line } from "./line.mjs";
import { SocketIoClient, TRANSPORTS, VERSIONS } from "./socketio-client.mjs";

const agents = (viewers) => viewers.map(({ agentId, status }) => `${agentId} ${status}`);

async function main([url, versionName, transport, tokenOfAna, tokenOfBen]) {
  const { io, recovers } = VERSIONS[versionName];
  const options = { io, transports: TRANSPORTS[transport] };
  const users = { ana: subject(tokenOfAna), ben: subject(tokenOfBen) };
  const both = [`${users.ana} viewing`, `${users.ben} viewing`];
  const line = await Line.to(url);
  const ana = new SocketIoClient("ana", line.url, { ...options, auth: { token: tokenOfAna } });
  const ben = new SocketIoClient("ben", url, { ...options, auth: { token: tokenOfBen } });
  const id = await ana.connected();
  await ben.connected();
  await ana.isOn(options.transports.at(-1));
  const ticketId = fresh("t-away");
  await ana.call("ticket:view", { ticketId });
  await ana.events("viewers:updated");
  await ben.call("ticket:view", { ticketId });
  await ben.events("collision:warning", "viewers:updated");
  await ana.events("agent:joined", "viewers:updated");

  await line.cut();
  await ana.disconnected();
  const [left, rest] = await ben.events("agent:left", "viewers:updated");
  check("who left", pick(left, "ticketId", "agentId", "reason"), { ticketId, agentId: users.ana, reason: "disconnected" });
  check("the list without her", agents(rest.viewers), [`${users.ben} viewing`]);
  for (const event of ["ticket:typing", "ticket:stop_typing"]) {
    await ben.call(event, { ticketId });
    await ben.events("viewers:updated");
  }
  ben.checkQuiet();

  line.mend();
  check("the id is the same", (await ana.connected()) === id, recovers);
  if (recovers) {
    check("recovered", ana.socket.recovered, true);
    // The missed events, then one list; no event of her own leaving or joining.
    const [typing, , list] = await ana.events("agent:typing", "agent:stopped_typing", "viewers:updated");
    check("who typed", typing.agentId, users.ben);
    check("the list with her", agents(list.viewers), both);
  } else {
    // She opens the page again, and gets a newcomer's warning.
    check("who views it", agents((await ana.call("ticket:view", { ticketId })).viewers), both);
    await ana.events("collision:warning", "viewers:updated");
  }
  const [joined, whole] = await ben.events("agent:joined", "viewers:updated");
  check("who joined", pick(joined, "ticketId", "agentId"), { ticketId, agentId: users.ana });
  check("the list with her", agents(whole.viewers), both);

  // This is the next event of each: there was none before it.
  await ana.isOn(options.transports.at(-1));
  ana.tell("ticket:typing", { ticketId });
  await ben.events("agent:typing", "viewers:updated");
  await ana.events("viewers:updated");
  ana.socket.disconnect();
  await ana.disconnected();
  const [stopped, gone] = recovers
    ? await ben.events("agent:stopped_typing", "agent:left", "viewers:updated")
    : await ben.events("agent:stopped_typing", "viewers:updated", "agent:left", "viewers:updated").then((events) => [events[0], events[2]]);
  check("who stopped", stopped.agentId, users.ana);
  check("who left", pick(gone, "agentId", "reason"), { agentId: users.ana, reason: "disconnected" });
  for (const client of [ana, ben]) client.checkQuiet();
}

await run(main, () => SocketIoClient.endAll());
