// @ts-check
// A training seen through one attacked picture: what the model saw in it before, and sees now, round by round.

import { make } from "./dom.js";

/** @import { TrainingData, TrainingRound } from "./payloads.js" */

/**
 * Fill an element. The handle's `update(data)` shows more rounds.
 * @param {HTMLElement} element
 * @param {TrainingData} data
 */
export function training(element, data) {
  const panes = make("div", { className: "rv-two" });
  const strip = make("div", { className: "rv-rounds", role: "group", "aria-label": "rounds" });
  const bar = make("progress", { max: 1, "aria-label": "share of the training done" });
  const note = make("p", { className: "rv-note" });
  const root = make("div", { className: "rv rv-healing" }, panes, bar, strip, note);
  let shown = data;
  /** @type {number | null} a round that was clicked; else the latest */
  let chosen = null;

  /**
   * @param {string} title
   * @param {TrainingRound} round
   */
  function figure(title, { url, caption }) {
    const stage = make("div", { className: "rv-stage" }, make("img", { src: url, alt: `${title}: ${caption}` }));
    stage.style.setProperty("--ratio", String(shown.size[0] / shown.size[1]));
    return make("figure", {}, make("figcaption", {}, make("strong", {}, title), make("span", {}, caption)), stage);
  }

  function show() {
    const { rounds } = shown;
    const last = rounds.length - 1;
    const index = Math.min(chosen ?? last, last);
    const title = index === last ? "now" : `round ${index}`;
    panes.replaceChildren(figure("before training", rounds[0]), figure(title, rounds[index]));
    [...strip.children].forEach((thumb, i) => {
      thumb.setAttribute("aria-pressed", String(i === index));
    });
  }

  /**
   * @param {TrainingRound} round
   * @param {number} i
   */
  function thumb({ url, caption }, i) {
    const label = `round ${i}: ${caption}`;
    const onclick = () => {
      chosen = i === shown.rounds.length - 1 ? null : i;
      show();
    };
    const named = { type: "button", title: label, "aria-label": label, onclick };
    return make("button", named, make("img", { src: url, alt: "" }), make("small", {}, caption));
  }

  /** @param {TrainingData} next */
  function update(next) {
    if (next.rounds.length < shown.rounds.length) chosen = null;
    shown = next;
    strip.replaceChildren(...next.rounds.map(thumb));
    strip.hidden = next.rounds.length < 2;
    bar.hidden = next.done === null || next.done === 1;
    bar.value = next.done ?? 0;
    note.textContent = next.note;
    root.dataset.rounds = String(next.rounds.length);
    show();
  }

  element.replaceChildren(root);
  update(data);
  return { update, destroy: () => root.remove() };
}
