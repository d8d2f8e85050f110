// The overview: asks for the numbers every other second and writes them as text.

import { Unreachable, get } from "./api.js";
import { element } from "./texts.js";

const EVERY_MS = 2000;
const at = (id) => document.getElementById(id);

const count = (number) => number.toLocaleString("en");
const seconds = (number) => (number == null ? "–" : `${number < 10 ? number.toFixed(1) : Math.round(number)} s`);

function ago(now, then) {
  const passed = Math.max(0, now - then);
  if (passed < 60) return `${Math.round(passed)} s ago`;
  if (passed < 3600) return `${Math.round(passed / 60)} min ago`;
  if (passed < 86400) return `${Math.round(passed / 3600)} h ago`;
  return `${Math.round(passed / 86400)} d ago`;
}

function tiles({ counts }) {
  const tile = (name, value, beside = "") => element("div", {}, element("dt", { text: name }), element("dd", { text: value }, ...(beside ? [element("small", { text: ` ${beside}` })] : [])));
  at("tiles").replaceChildren(
    tile("labels", count(counts.labels)),
    tile("items settled", count(counts.settled), `of ${count(counts.items)}`),
    tile("people", count(counts.annotators)),
    tile("skipped", count(counts.skips)),
    tile("taken back", count(counts.undone + counts.retracted)),
  );
}

function table(node, heads, rows, none) {
  if (!rows.length) {
    node.replaceChildren(element("tbody", {}, element("tr", {}, element("td", { class: "muted", text: none }))));
    return;
  }
  const cell = (tag) => (text, place) => element(tag, { class: heads[place].kind, scope: tag === "th" ? "col" : null, text });
  const head = element("tr", {}, ...heads.map(({ name }, place) => cell("th")(name, place)));
  node.replaceChildren(element("thead", {}, head), element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map(cell("td"))))));
}

function people({ now, annotators }) {
  const heads = [{ name: "Name" }, { name: "Labels", kind: "number" }, { name: "Skipped", kind: "number" }, { name: "Median time", kind: "number" }, { name: "Last answer", kind: "number" }];
  const rows = annotators.map((one) => [one.name, count(one.labels), count(one.skips), seconds(one.seconds), ago(now, one.last)]);
  table(at("people"), heads, rows, "Nobody has answered yet.");
}

function stream({ now, stream: labels }) {
  const heads = [{ name: "When" }, { name: "Who" }, { name: "Kind" }, { name: "Prompt", kind: "wide" }, { name: "Time", kind: "number" }];
  const rows = labels.map((one) => [ago(now, one.at), one.name, one.kind, one.prompt, seconds(one.seconds)]);
  table(at("stream"), heads, rows, "No labels yet.");
}

function show(numbers) {
  tiles(numbers);
  people(numbers);
  stream(numbers);
}

function state(kind, text) {
  at("saved").dataset.state = kind;
  if (at("saved-text").textContent !== text) at("saved-text").textContent = text;
}

async function look() {
  try {
    const { status, body } = document.visibilityState === "visible" ? await get("/api/overview") : {};
    if (status === 200) {
      show(body.numbers);
      state("saved", "Live");
    } else if (status === 401 || status === 403) {
      state("waiting", "Your link is no longer good");
      return;
    } else if (status) state("waiting", "Waiting for the server");
  } catch (error) {
    if (!(error instanceof Unreachable)) throw error;
    state("waiting", "Waiting for the connection");
  }
  setTimeout(look, EVERY_MS);
}

look();
