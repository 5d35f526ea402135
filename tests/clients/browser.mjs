// Two agents in two tabs of a real browser, one on the plain protocol and one on Socket.IO, and one swap of the plugin
// under them. Then the latter loses its transport, and recovers.
//
// Usage: node browser.mjs <http url> <screenshot path>
//
// Prints {"ready":true} when both agents share a ticket, then reads a line {"expectVersion":"x.y.z"} from standard
// input; prints {"swapped":true} when both tabs show that version and have lost nothing, and {"ok":true,"checks":N} when
// all checks pass. Exit code 0 then, else 1 with the reason on standard error.

import { createInterface } from "node:readline";
import { STEP_MS, bounded, check, run } from "./checks.mjs";
import { Line } from "./line.mjs";
import { Agent, LIBRARY, LIBRARY_URL, openTab, withBrowser } from "./page.mjs";

/** How long a swap may take to show: it is compiled, taken into use, and polled for once a second. */
const SWAP_MS = 20_000;
/** How long whoever drives this may take to swap the plugin. */
const DRIVER_MS = 120_000;

function print(line) {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

/** The next line of standard input, as JSON. */
async function readLine() {
  const lines = createInterface({ input: process.stdin });
  const line = new Promise((resolve, reject) => {
    lines.once("line", resolve);
    lines.once("close", () => reject(new Error("standard input ended before a line came")));
  });
  try {
    return JSON.parse(await bounded(line, () => "a line on standard input", DRIVER_MS));
  } finally {
    lines.close();
  }
}

/** What the others see of one who types. */
const types = (who) => ({ severity, typing }) => severity === "typing" && typing.includes(who.name);

async function meet(ana, ben) {
  await ana.open("t-browser");
  await ana.seesViewers("ana viewing");
  await ben.open("t-browser");
  await ben.sees("the warning", (shown) => shown.severity === "viewing" && shown.banner.includes(ana.name));
  await ben.seesViewers("ana viewing", "ben viewing");
  const { severity } = await ana.seesViewers("ana viewing", "ben viewing");
  check("who was first is not warned of who comes", severity, "none");
  await ana.sees("ben's coming", ({ events }) => events.includes("agent:joined"));
  for (const [one, other] of [[ana, ben], [ben, ana]]) {
    await one.types("Hello, I am looking into it.");
    await other.sees(`${one.name} type`, types(one));
    await one.empties();
    for (const agent of [ana, ben]) await agent.seesViewers("ana viewing", "ben viewing");
  }
}

async function swap(ana, ben) {
  const before = { ana: await ana.shown(), ben: await ben.shown() };
  print({ ready: true });
  const { expectVersion } = await readLine();
  for (const agent of [ana, ben]) {
    const after = await agent.sees(`version ${expectVersion}`, ({ version }) => version === expectVersion, SWAP_MS);
    check(`${agent.name} is connected after the swap`, after.state, "connected");
    check(`${agent.name}'s connection after the swap`, after.connection, before[agent.id].connection);
    check(`${agent.name} lost a connection`, after.events.includes("closed"), false);
    await agent.seesViewers("ana viewing", "ben viewing");
  }
  // The lists above may be older: this one comes from the new build.
  await ben.types("And again");
  await ana.sees("ben type after the swap", types(ben));
  await ana.seesViewers("ana viewing", "ben typing");
  await ben.seesViewers("ana viewing", "ben typing");
  await ben.empties();
  for (const agent of [ana, ben]) {
    await agent.seesViewers("ana viewing", "ben viewing");
    const { error, connection } = await agent.shown();
    check(`the error that ${agent.name} is shown`, error, "");
    check(`${agent.name}'s connection`, connection, before[agent.id].connection);
  }
  print({ swapped: true });
}

/** A cable is pulled under ben's tab; what happens meanwhile is there when it is back, and ana notices nothing. */
async function recover(ana, ben, line) {
  const { connection } = await ben.shown();
  const goings = ({ events }) => events.filter((event) => event === "agent:left" || event === "agent:joined").length;
  const before = goings(await ana.shown());
  await line.cut();
  await ben.sees("the loss", ({ state, viewers }) => state === "waiting" && viewers.length === 0);
  await ana.types("Dear customer,");
  await ana.seesViewers("ana typing", "ben viewing");
  line.mend();
  const after = await ben.sees("its connection again", ({ events, state }) => state === "connected" && events.includes("recovered"));
  check("ben's connection after the loss", after.connection, connection);
  await ben.sees("what it missed", ({ events }) => events.slice(0, events.indexOf("closed")).includes("agent:typing"));
  await ben.sees("ana type", types(ana));
  await ben.seesViewers("ana typing", "ben viewing");
  await ben.types("Me too");
  await ana.sees("ben type", types(ben));
  check("who came and went in ana's eyes", goings(await ana.shown()), before);
  check("the error that ben is shown", after.error, "");
}

async function tabs(context, url, mistakes) {
  const line = await Line.to(url);
  let isCut = false;
  const ana = new Agent(await openTab(context, `${url}?agent=ana`, mistakes), "ana", "Ana Ruiz");
  const ben = new Agent(await openTab(context, `${line.url}/?agent=ben&protocol=socketio`, mistakes, () => isCut), "ben", "Ben Okafor");
  await meet(ana, ben);
  await swap(ana, ben);
  // The browser logs an error for each request that fails.
  isCut = true;
  await recover(ana, ben, line);
  isCut = false;

  await ben.page.close();
  await ana.seesViewers("ana typing");
  const { severity } = await ana.sees("ben's going", ({ events }) => events.includes("agent:left"));
  check("the banner after the collision", severity, "none");
  await ana.page.close();
}

async function bothInOnePage(context, url, mistakes, screenshot) {
  const page = await openTab(context, url, mistakes);
  const ana = new Agent(page, "ana", "Ana Ruiz");
  const ben = new Agent(page, "ben", "Ben Okafor");
  await ana.open("two words");
  await ana.sees("why that is no ticket", ({ error }) => error.startsWith("bad_request: "));
  await ben.open("t-panes");
  await ben.seesViewers("ben viewing");
  await ana.open("t-panes");
  await ana.sees("the warning", (shown) => shown.severity === "viewing" && shown.banner.includes(ben.name));
  await ana.types("Dear customer,");
  await ben.sees("ana type", types(ana));
  await ana.seesViewers("ben viewing", "ana typing");
  await page.screenshot({ path: screenshot, animations: "disabled", timeout: STEP_MS });

  // The button disconnects, and connects again.
  await ana.part("sign-in").click({ timeout: STEP_MS });
  await ana.sees("no connection", ({ state, viewers }) => state === "off" && viewers.length === 0);
  await ben.seesViewers("ben viewing");
  await ana.part("sign-in").click({ timeout: STEP_MS });
  await ana.open("t-panes");
  await ben.seesViewers("ana viewing", "ben viewing");
  await page.close();
}

/** Without the network the page asks for a copy of the library. */
async function withoutNetwork(context, url, mistakes) {
  const refuse = (route) => route.abort();
  await context.route(LIBRARY_URL, refuse);
  const page = await openTab(context, `${url}?agent=ana&protocol=socketio`, mistakes, (text) => text.includes("net::ERR_FAILED"));
  await page.getByRole("alert").filter({ hasText: "could not be loaded" }).locator("input").setInputFiles(LIBRARY, { timeout: STEP_MS });
  const ana = new Agent(page, "ana", "Ana Ruiz");
  await ana.open("t-copy");
  await ana.seesViewers("ana viewing");
  await page.close();
  await context.unroute(LIBRARY_URL, refuse);
}

async function main([address, screenshot]) {
  if (!screenshot) throw new Error("usage: node browser.mjs <http url> <screenshot path>");
  const url = new URL("/", address).href;
  const mistakes = [];
  const all = withBrowser(async (context) => {
    await tabs(context, url, mistakes);
    for (const query of ["?protocol=socketio", ""]) await bothInOnePage(context, url + query, mistakes, screenshot);
    await withoutNetwork(context, url, mistakes);
  });
  await all.catch((error) => {
    // The page's errors are often the reason.
    if (mistakes.length > 0) error.stack += `\nThe page complains: ${mistakes.join("; ")}`;
    throw error;
  });
  check("what the page complains of", mistakes, []);
}

await run(main);
