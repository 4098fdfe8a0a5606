// @ts-check
// The controls below and beside the panes.

import { button, choice, make, percent, slider } from "./dom.js";
import { BLENDS, FILLS } from "./pixels.js";
import { WHOLE } from "./viewport.js";

/** @import { Trail } from "./payloads.js" */
/** @import { Blend } from "./pixels.js" */
/** @import { LinkedViewer } from "./viewer.js" */

/**
 * How masks look, how many panes there are, and the region.
 * @param {LinkedViewer} viewer
 */
export function toolbar(viewer) {
  const { state } = viewer;
  const opacity = slider("mask", { min: 0, max: 1, step: 0.05, value: state.opacity }, (value) =>
    viewer.restyle({ opacity: value }),
  );
  const blend = choice("blend", Object.keys(BLENDS), (value) =>
    viewer.restyle({ blend: /** @type {Blend} */ (value) }),
  );
  const fill = choice("fill", FILLS, (value) => viewer.restyle({ fill: value }));
  const gain = slider("× 1", { min: 1, max: 128, step: 1, value: 1 }, (value) => viewer.setGain(value));
  const boxer = button("▭", "draw a region", () => viewer.startBox(), {
    "aria-pressed": "false",
    dataset: { tool: "region" },
  });
  const buttons = make(
    "div",
    { className: "rv-buttons" },
    button("−", "one pane less", () => viewer.setPanes(state.panes.length - 1), { dataset: { tool: "less" } }),
    button("+", "one pane more", () => viewer.setPanes(state.panes.length + 1), { dataset: { tool: "more" } }),
    button("1 : 1", "1 : 1, the whole picture", () => viewer.look(WHOLE), { dataset: { tool: "whole" } }),
    boxer,
    button("?", "keys", () => viewer.toggleHelp(), { dataset: { tool: "help" } }),
  );
  const root = make("div", { className: "rv-tools" }, opacity.root, blend.root, fill.root, gain.root, buttons);

  /** Let the menus say what the keys have changed. */
  function follow() {
    blend.select.value = state.blend;
    fill.select.value = state.fill;
    gain.input.value = String(state.gain);
    gain.caption.textContent = `× ${state.gain}`;
    boxer.setAttribute("aria-pressed", String(state.isBoxing || state.region !== null));
  }

  return { root, gain: gain.root, boxer, follow };
}

/**
 * A slider over the steps of a finished attack.
 * @param {(step: number) => void} scrub
 */
export function timeline(scrub) {
  const moment = make("output");
  const input = make("input", { type: "range", min: 0, step: 1, "aria-label": "step of the attack" });
  input.oninput = () => scrub(Number(input.value));
  const caption = make("span", {}, "over the attack’s steps");
  const root = make("label", { className: "rv-time", hidden: true }, caption, input, moment);

  /** @param {Trail | null} trail */
  function show(trail) {
    root.hidden = !trail;
    if (!trail) return;
    input.max = String(trail.steps.length - 1);
    input.value = input.max;
    moment.textContent = "the result";
  }

  /**
   * @param {Trail} trail
   * @param {number} i
   */
  function describe({ steps, accuracy }, i) {
    moment.textContent = `step ${steps[i]}, ${percent(accuracy[i], 1)} pixel accuracy`;
    input.setAttribute("aria-valuetext", moment.textContent);
  }

  return { root, show, describe };
}
