// Parts of the labelling page that only show: no request is made here, and nothing is decided.

import { differences } from "./comparing.js";
import { write } from "./texts.js";

export const at = (id) => document.getElementById(id);

// "asking", "paused", "loading", "resting" or "out".
export const mode = () => document.body.dataset.mode ?? "loading";

export function showMode(next) {
  document.body.dataset.mode = next;
  const asking = next === "asking";
  at("work").hidden = !asking;
  at("actions").hidden = !asking;
  at("rest").hidden = asking;
  at("pause").disabled = next === "out";
  if (!asking) delete document.body.dataset.ready;
}

export function showRest(next, title, text, { resume = "", undo = false } = {}) {
  showMode(next);
  at("rest-title").textContent = title;
  at("rest-text").textContent = text;
  at("resume").hidden = !resume;
  at("resume").textContent = resume;
  at("rest-undo").hidden = !undo;
  at(resume ? "resume" : "rest-title").focus();
}

// state: "saved", "sending", "waiting"; waiting: number of unsent answers; lasts: whether the browser keeps them.
export function showSaved(state, waiting, lasts) {
  const texts = {
    saved: "All answers saved",
    sending: "Saving…",
    waiting: waiting ? `${waiting} answer${waiting > 1 ? "s" : ""} kept here, waiting for the connection` : "Waiting for the connection",
  };
  at("saved").dataset.state = state;
  at("saved-text").textContent = texts[state] + (lasts ? "" : " (this browser keeps nothing: leave the page open)");
}

export function showOut(waiting) {
  const kept = waiting ? ` ${waiting} unsent answer${waiting > 1 ? "s are" : " is"} kept in this browser.` : "";
  at("saved").dataset.state = "waiting";
  at("saved-text").textContent = "Signed out";
  showRest("out", "Your link is no longer good", `Ask whoever sent it for a new one.${kept}`);
}

export function showProgress({ done, left }) {
  at("progress").max = Math.max(1, done + left);
  at("progress").value = done;
  at("progress-text").textContent = `${done} done · ${left} left`;
}

export function tell(text) {
  at("told").textContent = text;
}

// A guideline that changed since this person last saw it opens by itself.
export function showGuideline(guideline, keep) {
  const panel = at("guideline");
  panel.hidden = !guideline;
  if (!guideline || panel.dataset.version === guideline.version) return;
  const seen = keep.get("guideline");
  write(at("guideline-text"), guideline.text);
  panel.dataset.version = guideline.version;
  panel.open = seen !== guideline.version;
  at("guideline-news").hidden = !seen || seen === guideline.version;
  keep.set("guideline", guideline.version);
}

// Two answers are marked against each other, more against the first.
export function showDifferences(responses, on) {
  at("compare").setAttribute("aria-pressed", String(on));
  at("compare").firstChild.data = on ? "Hide differences " : "Show differences ";
  const bodies = [...at("answers").querySelectorAll(".text")];
  const texts = responses.map((text) => text.replaceAll("\r\n", "\n"));
  const found = on ? texts.slice(1).map((text) => differences(texts[0], text)) : [];
  bodies.forEach((body, place) => {
    const pair = found[Math.max(0, place - 1)];
    const marked = place === 0 ? texts.length === 2 && pair?.[0] : pair?.[1];
    write(body, marked || texts[place]);
  });
  const several = texts.length > 2 ? "Marked: what differs from answer 1." : "Marked: words that the other answer does not have there.";
  at("compare-note").hidden = !on;
  at("compare-note").textContent = on ? (found.includes(null) ? "Too long to compare." : several) : "";
}
