// Two agents in two tabs of a real browser, and one swap of the plugin under them.
//
// Usage: node browser.mjs <http url of the page> <screenshot path>
//
// Prints {"ready":true} when both agents share a ticket, then reads a line {"expectVersion":"x.y.z"} from standard
// input; prints {"swapped":true} when both tabs show that version and have lost nothing. Exit code 0 if all is as it
// should be, else 1 with the reason on standard error.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

/** How long anything in a page may take: a slow machine starts a browser and a host at once. */
const STEP_MS = 10_000;
/** How long a swap may take to show: it is compiled, taken into use, and polled for once a second. */
const SWAP_MS = 20_000;
/** How long whoever drives this may take to swap the plugin. */
const DRIVER_MS = 120_000;

const LAUNCH = {
  executablePath: "/usr/bin/chromium",
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
  viewport: { width: 1280, height: 960 },
  colorScheme: "light",
};

/** One agent's pane, in whichever page it is. */
class Agent {
  constructor(page, id, name) {
    this.page = page;
    this.id = id;
    this.name = name;
    this.pane = page.getByTestId(`pane-${id}`);
  }

  part(testId) {
    return this.pane.getByTestId(testId);
  }

  /** Waits until `holds` does of what the pane shows. */
  async sees(what, holds, timeout = STEP_MS) {
    const deadline = Date.now() + timeout;
    for (;;) {
      const shown = await this.shown();
      if (holds(shown)) return shown;
      if (Date.now() > deadline) throw new Error(`${this.name} does not see ${what}, but ${JSON.stringify(shown)}`);
      // The page redraws when an event arrives; this is only how often it is looked at.
      await this.page.waitForTimeout(50);
    }
  }

  async shown() {
    await this.pane.waitFor({ timeout: STEP_MS });
    return this.pane.evaluate((pane) => {
      const part = (id) => pane.querySelector(`[data-testid="${id}"]`);
      return {
        state: part("state").dataset.state,
        connection: part("connection-id").textContent,
        error: part("error").textContent,
        severity: part("banner").dataset.severity,
        banner: part("banner").textContent,
        typing: part("typing").textContent,
        viewers: [...pane.querySelectorAll('[data-testid="viewer"]')].map(({ dataset }) => `${dataset.agent} ${dataset.status}`),
        events: [...pane.querySelectorAll('[data-testid="log-entry"]')].map(({ dataset }) => dataset.event),
        version: document.querySelector('[data-testid="plugin-version"]').textContent,
      };
    });
  }

  async open(ticket) {
    await this.sees("a connection", ({ state, connection }) => state === "connected" && connection !== "");
    await this.part("ticket-id").fill(ticket, { timeout: STEP_MS });
    await this.part("open").click({ timeout: STEP_MS });
  }

  async seesViewers(...expected) {
    const wanted = JSON.stringify(expected.sort());
    return this.sees(`the viewers ${wanted}`, ({ viewers }) => JSON.stringify(viewers.sort()) === wanted);
  }

  async types(text) {
    await this.part("reply").pressSequentially(text, { timeout: STEP_MS });
  }

  async empties() {
    await this.part("reply").fill("", { timeout: STEP_MS });
  }
}

function print(line) {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

function check(holds, message) {
  if (!holds) throw new Error(message);
}

/** The next line of standard input, as JSON. */
async function readLine() {
  const lines = createInterface({ input: process.stdin });
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("no line came on standard input")), DRIVER_MS);
  });
  const line = new Promise((resolve, reject) => {
    lines.once("line", resolve);
    lines.once("close", () => reject(new Error("standard input ended before a line came")));
  });
  try {
    return JSON.parse(await Promise.race([line, late]));
  } finally {
    clearTimeout(timer);
    lines.close();
  }
}

/** A tab, whose mistakes are this test's failures. */
async function openTab(context, url, mistakes) {
  const page = await context.newPage();
  page.on("pageerror", (error) => mistakes.push(`${url}: ${error.message}`));
  page.on("console", (message) => message.type() === "error" && mistakes.push(`${url}: ${message.text()}`));
  await page.goto(url, { timeout: STEP_MS });
  return page;
}

async function tabs(context, url, mistakes) {
  const ana = new Agent(await openTab(context, new URL("/?agent=ana", url).href, mistakes), "ana", "Ana Ruiz");
  const ben = new Agent(await openTab(context, new URL("/?agent=ben", url).href, mistakes), "ben", "Ben Okafor");

  await ana.open("t-browser");
  await ana.seesViewers("ana viewing");
  await ben.open("t-browser");
  await ben.sees("the warning", (shown) => shown.severity === "viewing" && shown.banner.includes(ana.name));
  await ben.seesViewers("ana viewing", "ben viewing");
  const { severity } = await ana.seesViewers("ana viewing", "ben viewing");
  check(severity === "none", "who was first is warned of who comes");
  await ana.sees("ben's coming", ({ events }) => events.includes("agent:joined"));

  const typing = ({ severity, typing }) => severity === "typing" && typing.includes(ben.name);
  await ben.types("Hello, I am looking into it.");
  await ana.sees("ben type", typing);
  await ana.seesViewers("ana viewing", "ben typing");
  await ben.empties();
  await ana.seesViewers("ana viewing", "ben viewing");

  const before = { ana: await ana.shown(), ben: await ben.shown() };
  print({ ready: true });
  const { expectVersion } = await readLine();
  for (const agent of [ana, ben]) {
    const after = await agent.sees(`version ${expectVersion}`, ({ version }) => version === expectVersion, SWAP_MS);
    check(after.state === "connected", `${agent.name} is not connected after the swap`);
    check(after.connection === before[agent.id].connection, `${agent.name} has another connection after the swap`);
    check(!after.events.includes("closed"), `${agent.name} lost a connection`);
    await agent.seesViewers("ana viewing", "ben viewing");
  }
  // The lists above may date from before: this one comes from the build that runs now.
  await ben.types("And again");
  await ana.sees("ben type after the swap", typing);
  await ana.seesViewers("ana viewing", "ben typing");
  await ben.seesViewers("ana viewing", "ben typing");
  for (const agent of [ana, ben]) {
    const { error, connection } = await agent.shown();
    check(error === "", `${agent.name} is shown an error: ${error}`);
    check(connection === before[agent.id].connection, `${agent.name} has another connection`);
  }
  print({ swapped: true });

  await ben.page.close();
  await ana.seesViewers("ana viewing");
  const { severity: calm } = await ana.sees("ben's going", ({ events }) => events.includes("agent:left"));
  check(calm === "none", "the banner outlives the collision");
  await ana.page.close();
}

async function bothInOnePage(context, url, mistakes, screenshot) {
  const page = await openTab(context, new URL("/", url).href, mistakes);
  const ana = new Agent(page, "ana", "Ana Ruiz");
  const ben = new Agent(page, "ben", "Ben Okafor");
  await ben.open("t-panes");
  await ben.seesViewers("ben viewing");
  await ana.open("t-panes");
  await ana.sees("the warning", (shown) => shown.severity === "viewing" && shown.banner.includes(ben.name));
  await ana.types("Dear customer,");
  await ben.sees("ana type", (shown) => shown.severity === "typing" && shown.typing.includes(ana.name));
  await ana.seesViewers("ben viewing", "ana typing");
  await page.screenshot({ path: screenshot, animations: "disabled", timeout: STEP_MS });
  await page.close();
}

async function main() {
  const [url, screenshot] = process.argv.slice(2);
  if (!url || !screenshot) throw new Error("usage: node browser.mjs <http url of the page> <screenshot path>");
  const profile = await mkdtemp(join(tmpdir(), "roundhouse-browser-"));
  const mistakes = [];
  let context;
  try {
    context = await chromium.launchPersistentContext(profile, { ...LAUNCH, timeout: 30_000 });
    await tabs(context, url, mistakes);
    await bothInOnePage(context, url, mistakes, screenshot);
    check(mistakes.length === 0, `the page complains: ${mistakes.join("; ")}`);
  } finally {
    await context?.close();
    await rm(profile, { recursive: true, force: true, maxRetries: 5 });
  }
}

try {
  await main();
  process.exit(0);
} catch (error) {
  process.stderr.write(`${error.stack}\n`);
  process.exit(1);
}
