// The overview: asks for the numbers every other second and writes them as text.

import { Unreachable, get } from "./api.js";
import { curve } from "./curve.js";
import { element } from "./texts.js";

const EVERY_MS = 2000;
const at = (id) => document.getElementById(id);

const count = (number) => number.toLocaleString("en");
const percent = (share) => (share == null ? "–" : `${Math.round(100 * share)} %`);
const decimal = (number) => (number == null ? "–" : number.toFixed(2).replace("-", "−"));
const seconds = (number) => (number == null ? "–" : `${number < 10 ? number.toFixed(1) : Math.round(number)} s`);
const outOf = (some, all) => (all ? `${some} of ${all}` : "–");
const between = (value, low, high, written) => (value == null ? "–" : low == null ? written(value) : `${written(value)} (${written(low)} to ${written(high)})`);

function ago(now, then) {
  const passed = Math.max(0, now - then);
  if (passed < 60) return `${Math.round(passed)} s ago`;
  if (passed < 3600) return `${Math.round(passed / 60)} min ago`;
  if (passed < 86400) return `${Math.round(passed / 3600)} h ago`;
  return `${Math.round(passed / 86400)} d ago`;
}

function tiles({ counts, statistics }) {
  const tile = (name, value, beside = "") => element("div", {}, element("dt", { text: name }), element("dd", { text: value }, ...(beside ? [element("small", { text: ` ${beside}` })] : [])));
  const middle = statistics?.seconds?.[1];
  at("tiles").replaceChildren(
    tile("labels", count(counts.labels), counts.recent ? `${count(counts.recent)} in 10 min` : ""),
    tile("questions settled", count(counts.settled), `of ${count(counts.items)}`),
    tile("people", count(counts.annotators)),
    tile("median time", seconds(middle)),
    tile("skipped", count(counts.skips), counts.taken_back ? `${count(counts.taken_back)} taken back` : ""),
  );
}

function facts(statistics, lacking) {
  const rows = [];
  const row = (name, value) => rows.push(element("dt", { text: name }), element("dd", { text: value }));
  if (!statistics) {
    at("agreement").replaceChildren(element("dt", { text: lacking ?? "No labels yet." }));
    return;
  }
  for (const [kind, one] of Object.entries(statistics.agreement)) {
    if (!one.items) row(`${kind}: no question has two labels yet`, "");
    else {
      row(`${kind}: two people say the same (${count(one.items)} questions)`, percent(one.share));
      row(`${kind}: beyond chance, Krippendorff's α (95 %)`, between(one.alpha, one.low, one.high, decimal));
    }
  }
  const { bias, consistency, drift, seconds: quartiles } = statistics;
  row(`what stood first won (${count(bias.decided)} decided, 95 %)`, between(bias.first_share, bias.low, bias.high, percent));
  row(`same again with sides swapped (${outOf(consistency.same, consistency.pairs)}, 95 %)`, between(consistency.share, consistency.low, consistency.high, percent));
  if (drift != null) row("ratings of what was shown again moved by", decimal(drift));
  if (quartiles) row("middle half of the times", `${seconds(quartiles[0])} to ${seconds(quartiles[2])}`);
  at("agreement").replaceChildren(...rows);
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
  const number = (name) => ({ name, kind: "number" });
  const heads = [{ name: "Name" }, number("Labels"), number("Skipped"), number("Median time"), number("As others"), number("Checks passed"), number("Same again"), number("Last answer")];
  const rows = annotators.map((one) => [
    one.name,
    count(one.labels),
    count(one.skipped),
    seconds(one.seconds),
    percent(one.with_others),
    outOf(one.checks_passed, one.checks),
    outOf(one.repeats_same, one.repeats),
    ago(now, one.last),
  ]);
  table(at("people"), heads, rows, "Nobody has answered yet.");
}

function stream({ now, stream: labels }) {
  const heads = [{ name: "When", kind: "short" }, { name: "Who", kind: "short" }, { name: "Kind", kind: "short" }, { name: "Prompt", kind: "wide" }, { name: "Time", kind: "number" }];
  const rows = labels.map((one) => [ago(now, one.at), one.name, one.kind, one.prompt, seconds(one.seconds)]);
  table(at("stream"), heads, rows, "No labels yet.");
}

function disputed(statistics) {
  const found = statistics?.disputed ?? [];
  const rows = found.map(({ prompt, responses, votes }) => {
    const said = Object.entries(votes).map(([name, number]) => `${name.replaceAll("_", " ")} ${number}`).join(" · ");
    const texts = responses.map((text, place) => element("p", { class: "muted" }, element("b", { text: responses.length > 1 ? `${"ab"[place] ?? place + 1}  ` : "" }), text));
    return element("li", {}, element("p", {}, prompt, element("span", { class: "votes", text: said })), ...texts);
  });
  at("disputed").replaceChildren(...(rows.length ? rows : [element("li", { class: "muted plain", text: "No question has labels that differ." })]));
}

function show(numbers) {
  tiles(numbers);
  facts(numbers.statistics, numbers.lacking);
  curve(at("curve"), numbers.reward_models);
  people(numbers);
  disputed(numbers.statistics);
  stream(numbers);
}

function state(kind, text) {
  at("saved").dataset.state = kind;
  if (at("saved-text").textContent !== text) at("saved-text").textContent = text;
}

let shown = "";

async function look() {
  try {
    const { status, body } = document.visibilityState === "visible" ? await get("/api/overview") : {};
    if (status === 200) {
      const text = JSON.stringify(body.numbers);
      if (text !== shown) show(body.numbers); // a selection of text stays while nothing changes
      shown = text;
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
