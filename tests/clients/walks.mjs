// Two users use the features, each over either protocol: the same events come in the same order.
//
// A client here has a name, `tell`, `call`, `refused`, `events`, `eventsNamed` and `checkQuiet`.

import { check, pick } from "./checks.mjs";

const agents = (viewers) => viewers.map(({ agentId, status }) => `${agentId} ${status}`);

/** Two agents on one ticket, and a second tab of one of them. Afterwards only ana has it open. */
export async function walkTicket({ ana, ben, second }, users, ticketId) {
  const view = async (client) => {
    const reply = await client.call("ticket:view", { ticketId });
    check("the acknowledgement names the ticket", reply.ticketId, ticketId);
    return reply.viewers;
  };
  const viewers = await view(ana);
  check("who views it", agents(viewers), [`${users.ana} viewing`]);
  check("since is in milliseconds", Math.abs(Date.now() - viewers[0].since) < 60_000, true);
  await ana.events("viewers:updated");

  const both = [`${users.ana} viewing`, `${users.ben} viewing`];
  check("who views it", agents(await view(ben)), both);
  const [warning, shown] = await ben.events("collision:warning", "viewers:updated");
  check("the warning", pick(warning, "ticketId", "severity"), { ticketId, severity: "viewing" });
  check("who is in the way", agents(warning.viewers), [`${users.ana} viewing`]);
  check("the warning has a text", typeof warning.message, "string");
  check("the list", agents(shown.viewers), both);
  const [joined] = await ana.events("agent:joined", "viewers:updated");
  check("who joined", pick(joined, "ticketId", "agentId"), { ticketId, agentId: users.ben });

  // A second tab is no collision, and changes nothing for others.
  check("who views it", agents(await view(second)), both);
  await second.events("viewers:updated");
  await second.call("ticket:leave", { ticketId });

  // Without an id a successful event has no answer.
  ben.tell("ticket:typing", { ticketId });
  const [typing, list] = await ana.events("agent:typing", "viewers:updated");
  check("who types", pick(typing, "ticketId", "agentId", "warning"), { ticketId, agentId: users.ben, warning: "COLLISION_RISK" });
  check("the list", agents(list.viewers), [`${users.ana} viewing`, `${users.ben} typing`]);
  await ben.events("viewers:updated");
  await ana.call("ticket:typing", { ticketId });
  const [risk] = await ana.events("collision:warning", "viewers:updated");
  check("the warning", pick(risk, "ticketId", "severity"), { ticketId, severity: "typing" });
  await ben.events("agent:typing", "viewers:updated");
  await ana.call("ticket:stop_typing", { ticketId });
  await ana.events("viewers:updated");
  const [stopped] = await ben.events("agent:stopped_typing", "viewers:updated");
  check("who stopped", stopped.agentId, users.ana);

  // A typing agent leaves, and may not type after that.
  await ben.call("ticket:leave", { ticketId });
  const [, left, rest] = await ana.events("agent:stopped_typing", "agent:left", "viewers:updated");
  check("who left", pick(left, "ticketId", "agentId", "reason"), { ticketId, agentId: users.ben, reason: "left" });
  check("the list", agents(rest.viewers), [`${users.ana} viewing`]);
  check("typing where one is not", (await ben.refused("ticket:typing", { ticketId })).code, "conflict");
  for (const client of [ana, ben, second]) client.checkQuiet();
}

/** What ben may not do, while ana has the ticket open. Afterwards both have. */
export async function walkMistakes({ ana, ben }, ticketId) {
  const events = [
    ["unknown_event", "no:such"],
    ["bad_request", "ticket:view"],
    ["bad_request", "ticket:view", "t-1"],
    ["bad_request", "ticket:view", { ticketId: "two words" }],
    ["forbidden", "ticket:view", { ticketId, agentId: "mallory" }],
  ];
  for (const [code, event, data] of events) {
    const what = `${event} ${JSON.stringify(data)}`;
    const error = await ben.refused(event, data);
    check(`${what} with an acknowledgement`, error.code, code);
    check("the error says why", typeof error.message === "string" && error.message !== "", true);
    ben.tell(event, data);
    const [told] = await ben.events("error");
    check(`${what} without one`, pick(told, "code", "event"), { code, event });
    check("the error says why", told.message, error.message);
  }
  // The connection stays usable, and other clients got nothing: ana's next event is ben's joining.
  await ben.call("ticket:view", { ticketId });
  await ben.events("collision:warning", "viewers:updated");
  await ana.events("agent:joined", "viewers:updated");
  for (const client of [ana, ben]) client.checkQuiet();
}

/** One message from ana to ben: seen at once, then confirmed. Afterwards both are in the room. */
export async function walkChat({ ana, ben, second }, users, roomId) {
  check("who is there", await ana.call("joinRoom", { roomId }), { roomId, connectedUsers: 1 });
  check("not in the room", (await ben.refused("roomMessage", { roomId, body: "hello" })).code, "forbidden");
  check("who is there", await ben.call("joinRoom", { roomId }), { roomId, connectedUsers: 2 });
  const body = "Grüße, “Ana” 😀";
  const { tempId } = await ana.call("roomMessage", { roomId, body, clientId: "c-1" });
  const [seen, sent, confirmed] = await ana.events("roomMessageRecieved", "roomMessageSent", "roomMessageConfirmed");
  check("it is sent", sent, { tempId, clientId: "c-1" });
  check("the sender's other tab knows", await second.events("roomMessageSent"), [sent]);
  check("what is seen", pick(seen, "_id", "tempId", "body", "roomId", "isOptimistic"), { _id: tempId, tempId, body, roomId, isOptimistic: true });
  check("who sent it", seen.senderId._id, users.ana);
  check("what is confirmed", pick(confirmed, "tempId", "body", "roomId", "isConfirmed"), { tempId, body, roomId, isConfirmed: true });
  check("it is stored under another id", confirmed._id !== tempId && confirmed._id !== "", true);
  check("the other sees the same", await ben.events("roomMessageRecieved", "roomMessageConfirmed"), [seen, confirmed]);
  check("a repetition", await ana.call("roomMessage", { roomId, body, clientId: "c-1" }), { tempId });
  const { messages } = await ben.call("roomHistory", { roomId });
  check("the history", messages.map(({ _id }) => _id), [confirmed._id]);
  for (const client of [ana, ben, second]) client.checkQuiet();
}
