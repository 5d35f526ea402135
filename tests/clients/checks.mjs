// Shared by the client scripts: counted checks, bounded waits, and received events that no check has read.

import assert from "node:assert/strict";

/** How long the host may take for anything. */
export const STEP_MS = 10_000;

/** How much of what was heard is shown to who reads why a script failed. */
const SHOWN_FRAMES = 20;
const SHOWN_CHARACTERS = 200;

let checks = 0;

/** Like `assert.deepEqual`, and counted. */
export function check(what, actual, expected) {
  assert.deepEqual(actual, expected, what);
  checks += 1;
}

/** An object of these fields alone. */
export function pick(object, ...fields) {
  return Object.fromEntries(fields.map((field) => [field, object?.[field]]));
}

/** The user whom a JSON Web Token is for. */
export function subject(token) {
  return JSON.parse(Buffer.from(token.split(".")[1], "base64url")).sub;
}

/** An id that no run before this one has used, so that a run finds nothing of another. */
export function fresh(kind) {
  return `${kind}-${process.pid}-${Date.now()}`;
}

/** Fails if `promise` takes too long. */
export function bounded(promise, what, timeout = STEP_MS) {
  let timer;
  // Made here: an error made in the timer would not have the caller's stack.
  const error = new Error();
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => {
      error.message = `waited ${timeout} ms in vain for ${what()}`;
      error.stack = error.stack.replace("Error", `Error: ${error.message}`);
      reject(error);
    }, timeout);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** What a client was told, in order, until somebody asks for it. */
export class Inbox {
  #name;
  #waiting = [];
  #sleepers = [];
  #failed;

  constructor(name) {
    this.#name = name;
  }

  push(frame) {
    this.#waiting.push(frame);
    this.wake();
  }

  /** Nothing more will come: who waits fails with this. */
  fail(error) {
    this.#failed ??= error;
    this.wake();
  }

  /** Something else has changed that somebody may wait for. */
  wake() {
    for (const wake of this.#sleepers.splice(0)) wake();
  }

  /** What `find` gives, as soon as it gives something; it is handed the list, and may take from it. */
  async until(what, find, timeout) {
    const found = async () => {
      for (;;) {
        const result = find(this.#waiting);
        if (result !== undefined) return result;
        if (this.#failed) throw this.#failed;
        await new Promise((resolve) => this.#sleepers.push(resolve));
      }
    };
    return bounded(found(), () => `${this.#name} to get ${what}; what there is: ${this.#shown()}`, timeout);
  }

  /** Takes the first frame for which `wanted` holds, whatever stands before it. */
  take(what, wanted, timeout) {
    const find = (frames) => {
      const at = frames.findIndex(wanted);
      return at < 0 ? undefined : frames.splice(at, 1)[0];
    };
    return this.until(what, find, timeout);
  }

  /** Takes all `n` frames for which `wanted` holds, in their order. */
  takeAll(n, what, wanted, timeout) {
    const find = (frames) => {
      if (frames.filter(wanted).length < n) return undefined;
      const taken = frames.filter(wanted);
      frames.splice(0, frames.length, ...frames.filter((frame) => !wanted(frame)));
      return taken;
    };
    return this.until(`${n} ${what}`, find, timeout);
  }

  /** Nothing may be left that nobody asked for. */
  checkEmpty() {
    check(`${this.#name} gets nothing else`, this.#waiting, []);
  }

  #shown() {
    const shown = this.#waiting.map((frame) => `\n  ${JSON.stringify(frame).slice(0, SHOWN_CHARACTERS)}`);
    const hidden = shown.length - SHOWN_FRAMES;
    if (hidden > 0) shown.splice(SHOWN_FRAMES, hidden, `\n  … and ${hidden} more`);
    return shown.join("") || "nothing";
  }
}

/** Runs a script: prints {"ok":true,"checks":N}, or the first thing that was not as promised; and ends the process. */
export async function run(main, atTheEnd = () => {}) {
  let code = 0;
  try {
    await main(process.argv.slice(2));
    process.stdout.write(`${JSON.stringify({ ok: true, checks })}\n`);
  } catch (error) {
    process.stderr.write(`${error.stack}\n`);
    code = 1;
  } finally {
    atTheEnd();
  }
  // Exits even with open sockets: a host that keeps one open must not keep this process.
  process.exit(code);
}
