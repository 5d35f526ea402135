// The demo page in a real browser: the actions of an agent, and the content that it sees.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { STEP_MS } from "./checks.mjs";

/** Where the page gets the Socket.IO client from; this machine's copy is as good, or the page refuses it. */
export const LIBRARY_URL = "https://cdn.jsdelivr.net/npm/socket.io-client@*/dist/socket.io.min.js";
export const LIBRARY = fileURLToPath(new URL("node_modules/socket.io-client/dist/socket.io.min.js", import.meta.url));

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
export class Agent {
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
      // The page redraws when an event arrives; this is the polling interval of the check.
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

/** A browser for the time of `use`. */
export async function withBrowser(use) {
  const profile = await mkdtemp(join(tmpdir(), "roundhouse-browser-"));
  let context;
  try {
    // A browser starts slowly while other tests use the machine.
    context = await chromium.launchPersistentContext(profile, { ...LAUNCH, timeout: 120_000 });
    const headers = { "access-control-allow-origin": "*", "content-type": "text/javascript" };
    await context.route(LIBRARY_URL, (route) => route.fulfill({ path: LIBRARY, headers }));
    await use(context);
  } finally {
    await context?.close();
    await rm(profile, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** A tab, whose mistakes are this test's failures, but for `isExcused` ones. */
export async function openTab(context, url, mistakes, isExcused = () => false) {
  const page = await context.newPage();
  page.on("pageerror", (error) => mistakes.push(`${url}: ${error.message}`));
  page.on("console", (message) => {
    if (message.type() === "error" && !isExcused(message.text())) mistakes.push(`${url}: ${message.text()}`);
  });
  await page.goto(url, { timeout: STEP_MS });
  return page;
}
