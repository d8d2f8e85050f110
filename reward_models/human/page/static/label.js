// The labelling page: shows one item, takes one answer, and goes on.

import { Unreachable, isPassing, newId, post } from "./api.js";
import { OVERALL, QUESTIONS, answerCards, key, namesOf, ratingSteps, verdictButton, verdictsOf } from "./controls.js";
import { Keys } from "./keys.js";
import { AnswerQueue, Keep } from "./queue.js";
import { Ranking, ordinal } from "./ranking.js";
import { element, writePrompt } from "./texts.js";
import { at, mode, showDifferences, showGuideline, showMode, showOut, showProgress, showRest, showSaved, tell } from "./view.js";

const keep = new Keep(document.querySelector('meta[name="keep"]').content);
const queue = new AnswerQueue(keep, { onChange: showState, onOutcome: afterSending });

const READY_AFTER_MS = 250; // a second press of the key that answered the item before is no answer to this one
const IDLE_AFTER_MS = 120000; // time without a touch that still counts as thinking
const RENEW_EVERY_MS = 240000; // well within the lease
const MOST_DRAFTS = 50;

let current = null; // what the server asked, while it is not answered
let verdicts = [];
let ranking = null;
let progress = { done: 0, left: 0, last_answer: null };
let ready = false;
let loading = null;
let retry = null;
const clock = { seconds: 0, from: performance.now(), touched: performance.now() };

// ---- what is shown

function showState(state) {
  if (state === "out") signOut();
  else showSaved(state, queue.entries().length, keep.lasts);
}

function signOut() {
  current = null;
  showOut(queue.entries().length);
}

function showItem(found) {
  current = found;
  const { kind, responses } = found;
  const names = namesOf(kind, responses.length);
  const draft = keep.get(`draft:${found.showing}`) ?? {};
  verdicts = verdictsOf(kind, responses.length);
  at("question").textContent = QUESTIONS[kind];
  showGuideline(found.guideline, keep);
  writePrompt(at("prompt"), found.prompt, found.conversation);
  at("answers").replaceChildren(...answerCards(kind, responses, names, (place) => ranking.press(place)));
  at("answers").dataset.count = Math.min(responses.length, 3);
  at("answers-title").textContent = responses.length > 1 ? "Answers" : "Answer";
  at("compare").hidden = responses.length < 2;
  showDifferences(responses, false);
  showControls(kind, responses.length, names, draft);
  at("comment").value = draft.comment ?? "";
  at("comment-need").hidden = kind === "critique";
  at("comment-title").textContent = kind === "critique" ? "Your critique" : "Comment";
  at("overall").hidden = !(kind in OVERALL);
  at("overall-title").textContent = OVERALL[kind] ?? "";
  setOverall(draft.overall ?? null);
  clock.seconds = draft.seconds ?? 0;
  clock.from = clock.touched = performance.now();
  showMode("asking");
  window.scrollTo(0, 0);
  at("work").focus({ preventScroll: true });
  ready = false;
  setTimeout(() => {
    ready = current === found;
    if (ready) document.body.dataset.ready = found.showing;
  }, READY_AFTER_MS);
}

function showControls(kind, count, names, draft) {
  const place = at("verdicts");
  place.dataset.kind = kind;
  place.replaceChildren(...verdicts.map((one) => verdictButton(one, () => judge(one.verdict))));
  at("ranking").hidden = kind !== "ranks";
  ranking = null;
  if (verdicts.length) return;
  const save = element("button", { type: "button", class: "verdict primary", id: "save" }, element("span", { id: "save-text", text: "Save" }), key(kind === "critique" ? "Ctrl+Enter" : "Enter"));
  save.addEventListener("click", saveWritten);
  if (kind === "value") {
    const input = element("input", { type: "number", step: "any", id: "number", "aria-label": "Your number", value: draft.number ?? null });
    input.addEventListener("input", keepDraft);
    input.addEventListener("keydown", (event) => event.key === "Enter" && saveWritten());
    place.append(input);
  }
  place.append(save);
  if (kind === "ranks") {
    ranking = new Ranking(at("ranking-list"), at("ranking-hint"), { count, names, onChange: showRanking });
    ranking.restore(draft.ranking);
  }
}

function showRanking() {
  if (!ranking) return;
  const verdict = ranking.verdict;
  at("save").disabled = !verdict;
  at("save-text").textContent = verdict?.kind === "best_of" ? `Save: ${ranking.names[verdict.best]} is the best` : "Save the ranking";
  for (const button of at("answers").querySelectorAll(".rank-button")) {
    const answer = Number(button.dataset.place);
    const place = ranking.placeOf(answer);
    button.replaceChildren(element("span", { text: place ? ordinal(place) : "Rank next" }), key(String(answer + 1)));
    button.setAttribute("aria-pressed", String(Boolean(place)));
    button.setAttribute("aria-label", `${ranking.names[answer]}: ${place ? `${ordinal(place)}, take it out` : "rank next"}`);
  }
  keepDraft();
}

// ---- what is kept

function overall() {
  const checked = document.querySelector('input[name="overall"]:checked');
  return checked && !at("overall").hidden ? Number(checked.value) : null;
}

function setOverall(stars) {
  for (const input of document.querySelectorAll('input[name="overall"]')) input.checked = Number(input.value) === stars;
  if (current) keepDraft();
}

function keepDraft() {
  if (!current) return;
  keep.set(`draft:${current.showing}`, {
    at: Date.now(),
    comment: at("comment").value,
    overall: overall(),
    ranking: ranking ? { order: ranking.order, tied: [...ranking.tied] } : undefined,
    number: at("number")?.value,
    seconds: clock.seconds,
  });
}

function forgetOldDrafts() {
  const drafts = keep.names("draft:").map((name) => [keep.get(name)?.at ?? 0, name]);
  for (const [, name] of drafts.sort((a, b) => b[0] - a[0]).slice(MOST_DRAFTS)) keep.remove(name);
}

function tick() {
  const now = performance.now();
  const counts = mode() === "asking" && document.visibilityState === "visible" && now - clock.touched < IDLE_AFTER_MS;
  if (counts) clock.seconds += (now - clock.from) / 1000;
  clock.from = now;
}

// ---- what is done

function judge(verdict) {
  if (!ready || !current || !verdict) return;
  const comment = at("comment").value.trim();
  submit({ kind: "judged", verdict, comment: comment || null, overall_rating: verdict.kind === "rating" ? null : overall() });
}

function saveWritten() {
  if (!current) return;
  if (current.kind === "critique") {
    if (!at("comment").value.trim()) {
      tell("A critique needs some words.");
      at("comment").focus();
      return;
    }
    judge({ kind: "critique" });
  } else if (current.kind === "value") {
    const number = at("number").valueAsNumber;
    if (Number.isFinite(number)) judge({ kind: "value", reward: number });
    else at("number").focus();
  } else if (current.kind === "ranks") {
    if (ranking.verdict) judge(ranking.verdict);
    else tell("Give every answer a place, or only the best one.");
  }
}

function skip() {
  if (!ready || !current) return;
  submit({ kind: "skipped", verdict: null, comment: at("comment").value.trim() || null, overall_rating: null });
}

function submit(said) {
  tick();
  keepDraft();
  const showing = current.showing;
  current = null; // before anything else: a second click finds nothing to answer
  ready = false;
  delete document.body.dataset.ready;
  queue.add("/api/answers", { id: newId(), showing, ...said, seconds: Math.round(clock.seconds * 1000) / 1000 });
  tell(said.kind === "skipped" ? "Skipped." : "");
  goOn();
}

function undo() {
  if (mode() === "out" || mode() === "loading") return;
  const waiting = queue.entries();
  const undone = new Set(waiting.filter((one) => one.path === "/api/undo").map((one) => one.body.target));
  const mine = waiting.filter((one) => one.path === "/api/answers").map((one) => one.body.id);
  const target = [...mine.reverse(), progress.last_answer].find((id) => id && !undone.has(id));
  if (!target) {
    tell("Nothing to undo.");
    return;
  }
  if (current) keepDraft();
  current = null;
  ready = false;
  queue.add("/api/undo", { id: newId(), target });
  tell("Taken back.");
  goOn();
}

async function goOn() {
  if (!(await queue.flush())) {
    if (mode() !== "out") showRest("loading", "Waiting for the connection", "Your answer is kept in this browser, and sent as soon as the server can be reached.");
    return;
  }
  await load();
}

function afterSending({ path }, { status, body }) {
  if (body?.progress) progress = body.progress;
  if (status === 409) tell(path === "/api/undo" ? "That answer was taken back already." : "Answered already, in another tab.");
  else if (status !== 200) tell("The server refused an answer; it is kept in this browser.");
  showProgress(progress);
  if (mode() === "loading" && !current && queue.entries().length === 0) load();
}

// One load at a time; asked again meanwhile, it is the same one.
function load() {
  clearTimeout(retry);
  loading ??= loadNext().finally(() => (loading = null));
  return loading;
}

async function loadNext() {
  let status, body;
  try {
    ({ status, body } = await post("/api/next", {}));
  } catch (error) {
    if (!(error instanceof Unreachable)) throw error;
    status = 503;
  }
  if (status === 401 || status === 403) return signOut();
  if (isPassing(status) || !body?.progress) {
    showState("waiting");
    if (mode() !== "paused" && !current) showRest("loading", "Waiting for the connection", "The page goes on by itself.");
    retry = setTimeout(load, 2000);
    return;
  }
  progress = body.progress;
  showProgress(progress);
  showState(queue.entries().length ? "waiting" : "saved");
  if (mode() === "paused") return;
  if (body.item === null) {
    current = null;
    const undoable = Boolean(progress.last_answer);
    if (mode() !== "resting") showRest("resting", "Nothing to answer at the moment", "The page looks for new questions by itself.", { undo: undoable });
    retry = setTimeout(load, 3000);
  } else if (body.showing !== current?.showing) {
    forgetOldDrafts();
    showItem(body);
  }
}

async function pause() {
  if (mode() === "paused") return resume();
  if (mode() === "out") return;
  tick();
  keepDraft();
  clearTimeout(retry);
  current = null;
  showRest("paused", "Paused", "The clock stands still, and what you wrote is kept.", { resume: "Go on" });
  post("/api/release", {}).catch(() => {}); // its lease ends by itself
}

function resume() {
  showMode("loading");
  tell("");
  goOn();
}

function overallAt(target) {
  if (!target.closest?.("#overall")) return [];
  return [0, 1, 2, 3, 4, 5].map((stars) => ({ keys: [String(stars)], label: `Rate ${stars}`, act: () => setOverall(stars) }));
}

function bindings(target) {
  const rests = mode() === "resting" || mode() === "paused";
  const always = [
    { keys: ["p"], label: mode() === "paused" ? "Go on" : "Pause", act: pause },
    { keys: ["?"], label: "These keys", act: () => keys.show() },
  ];
  if (rests) return [{ keys: ["u"], label: "Undo the last answer", act: mode() === "resting" ? undo : () => {} }, ...always];
  if (mode() !== "asking") return always;
  const ranks = ranking
    ? [
        ...ranking.names.slice(0, 9).map((name, place) => ({ keys: [String(place + 1)], label: `${name} next, or out again`, act: () => ranking.press(place) })),
        { keys: ["="], label: "The last one ties with the one above", act: () => ranking.tieLast() },
      ]
    : [];
  const judged = verdicts.map(({ label, keys: names, verdict }) => ({ keys: names, label, act: () => judge(verdict) }));
  const saves = verdicts.length ? [] : [{ keys: current?.kind === "critique" ? ["Ctrl+Enter"] : ["Enter", "Ctrl+Enter"], label: "Save", act: saveWritten }];
  return [
    ...overallAt(target),
    ...judged,
    ...ranks,
    ...saves,
    { keys: ["s"], label: "Skip", act: skip },
    { keys: ["u"], label: "Undo the last answer", act: undo },
    { keys: ["c"], label: "Write a comment (Esc leaves it)", act: () => at("comment").focus() },
    { keys: ["r"], label: "Overall rating, then 0 to 5", act: () => document.querySelector('input[name="overall"]')?.focus() },
    { keys: ["d"], label: "Show or hide differences", act: () => at("compare").hidden || at("compare").click() },
    { keys: ["g"], label: "Open or close the guideline", act: () => (at("guideline").open = !at("guideline").open) },
    ...always,
  ];
}

// ---- start

const keys = new Keys(keep, bindings);
ratingSteps(at("overall-steps"), keepDraft);
at("comment").addEventListener("input", keepDraft);
at("compare").addEventListener("click", () => current && showDifferences(current.responses, at("compare").getAttribute("aria-pressed") !== "true"));
at("pause").addEventListener("click", pause);
at("resume").addEventListener("click", resume);
at("skip").addEventListener("click", skip);
at("undo").addEventListener("click", undo);
at("rest-undo").addEventListener("click", undo);
for (const kind of ["pointerdown", "keydown", "wheel", "touchmove"]) {
  document.addEventListener(kind, () => (clock.touched = performance.now()), { passive: true });
}
document.addEventListener("visibilitychange", () => {
  tick();
  keepDraft();
});
window.addEventListener("pageshow", (event) => event.persisted && load());
setInterval(tick, 1000);
setInterval(() => mode() === "asking" && document.visibilityState === "visible" && performance.now() - clock.touched < RENEW_EVERY_MS && load(), RENEW_EVERY_MS);
showState(queue.entries().length ? "sending" : "saved");
goOn();
