// Answers on their way to the server. One goes into the browser's storage first and leaves it after the server's
// acknowledgement, so that a reload, a lost connection or a restarted server loses none.

import { Unreachable, isPassing, newId, post } from "./api.js";

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10000;

// A storage that works where the browser's is switched off or full; what it holds ends with the page.
export class Keep {
  constructor(prefix) {
    this.prefix = prefix;
    this.memory = new Map();
    this.lasts = true;
    this.set("probe", true);
    this.remove("probe");
  }

  get(name) {
    const key = this.prefix + name;
    try {
      return JSON.parse(this.memory.get(key) ?? localStorage.getItem(key));
    } catch {
      return null;
    }
  }

  set(name, value) {
    const key = this.prefix + name;
    const text = JSON.stringify(value);
    try {
      localStorage.setItem(key, text);
      this.memory.delete(key);
    } catch {
      this.memory.set(key, text);
      this.lasts = false;
    }
  }

  remove(name) {
    this.memory.delete(this.prefix + name);
    try {
      localStorage.removeItem(this.prefix + name);
    } catch {
      this.lasts = false;
    }
  }

  names(begin) {
    let stored = [];
    try {
      stored = Object.keys(localStorage);
    } catch {
      this.lasts = false;
    }
    const all = new Set([...stored, ...this.memory.keys()]);
    return [...all].filter((key) => key.startsWith(this.prefix + begin)).map((key) => key.slice(this.prefix.length)).sort();
  }
}

export class AnswerQueue {
  // onChange(state): "saved", "sending", "waiting" or "out"; onOutcome(entry, outcome) after each entry that leaves.
  constructor(keep, { onChange, onOutcome }) {
    this.keep = keep;
    this.onChange = onChange;
    this.onOutcome = onOutcome;
    this.wait = FIRST_WAIT_MS;
    this.timer = null;
    this.sending = null;
    this.made = 0;
    window.addEventListener("online", () => this.flush());
    document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && this.flush());
  }

  // Each entry has a key of its own, so that two tabs never overwrite each other's list.
  add(path, body) {
    const order = String(Date.now()).padStart(15, "0") + String(this.made++).padStart(6, "0");
    const id = body.id ?? newId();
    this.keep.set(`queue:${order}:${id}`, { path, body: { ...body, id } });
    return id;
  }

  entries() {
    return this.keep.names("queue:").map((name) => ({ name, ...this.keep.get(name) })).filter((entry) => entry.path);
  }

  // Sends everything in order. Resolves to true when nothing waits any more.
  flush() {
    clearTimeout(this.timer);
    this.sending ??= this.locked(() => this.send()).finally(() => (this.sending = null));
    return this.sending;
  }

  // One tab sends at a time where the browser can arrange it; without, the server still stores every answer once.
  locked(work) {
    return navigator.locks ? navigator.locks.request(this.keep.prefix + "queue", work) : work();
  }

  async send() {
    for (let entry = this.entries()[0]; entry; entry = this.entries()[0]) {
      this.onChange("sending");
      let status, body;
      try {
        ({ status, body } = await post(entry.path, entry.body));
      } catch (error) {
        if (!(error instanceof Unreachable)) throw error;
        return this.later();
      }
      if (isPassing(status)) return this.later();
      if (status === 401 || status === 403) {
        this.onChange("out");
        return false;
      }
      this.wait = FIRST_WAIT_MS;
      if (status !== 200 && status !== 409) this.keep.set(`refused:${entry.body.id}`, entry);
      this.keep.remove(entry.name);
      this.onOutcome(entry, { status, body });
    }
    this.onChange("saved");
    return true;
  }

  later() {
    this.onChange("waiting");
    this.timer = setTimeout(() => this.flush(), this.wait * (0.75 + Math.random() / 2));
    this.wait = Math.min(LONGEST_WAIT_MS, this.wait * 2);
    return false;
  }
}
