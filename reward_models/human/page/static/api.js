// Calls of this server. A call that gets no answer throws Unreachable; every other outcome is {status, body}.

export class Unreachable extends Error {}

const TIMEOUT_MS = 15000;
const TOKEN = document.querySelector('meta[name="csrf-token"]')?.content ?? "";

export function post(path, body) {
  return call(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRF-Token": TOKEN },
    body: JSON.stringify(body),
  });
}

export function get(path) {
  return call(path, { method: "GET" });
}

async function call(path, options) {
  const stop = new AbortController();
  const timer = setTimeout(() => stop.abort(), TIMEOUT_MS);
  try {
    const response = await fetch(path, { ...options, signal: stop.signal, credentials: "same-origin", cache: "no-store" });
    const text = await response.text();
    return { status: response.status, body: parsed(text) };
  } catch (error) {
    throw new Unreachable(String(error));
  } finally {
    clearTimeout(timer);
  }
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

// True for an outcome that another try may better: a busy, restarting or full server.
export function isPassing(status) {
  return status === 408 || status === 429 || status >= 500;
}

// crypto.randomUUID exists on secure origins only, and http://192.168... is none.
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}
