// @ts-check
// Pixel accuracy over the radius: one curve for each of several models, with a marker at one radius.

import { percent } from "./dom.js";
import { draws } from "./svg.js";
import { clamp } from "./viewport.js";

/** @import { LandingModel } from "./payloads.js" */

const MARGIN = { left: 44, right: 16, top: 10, bottom: 34 };
const HEIGHT = 170;

/**
 * @param {LandingModel[]} models
 * @param {number[]} grid radii at which the accuracy is known, in 1/255, from 0 on
 */
export function accuracyChart(models, grid) {
  const last = grid[grid.length - 1];
  const root = draws("svg", { class: "rv-chart", height: HEIGHT, "aria-hidden": "true" });
  const marker = draws("g", { class: "rv-marker" });
  let width = 600;

  /** @param {number} eps */
  const xOf = (eps) => MARGIN.left + (eps / last) * (width - MARGIN.left - MARGIN.right);
  /** @param {number} share */
  const yOf = (share) => MARGIN.top + (1 - share) * (HEIGHT - MARGIN.top - MARGIN.bottom);

  function axes() {
    const lines = [0, 0.5, 1].flatMap((share) => [
      draws("line", { class: "rv-line", x1: MARGIN.left, x2: width - MARGIN.right, y1: yOf(share), y2: yOf(share) }),
      draws("text", { x: MARGIN.left - 8, y: yOf(share) + 4, "text-anchor": "end" }, percent(share)),
    ]);
    const ticks = [0, 2, 4, 6, 8, 10, 12]
      .filter((eps) => eps <= last)
      .map((eps) =>
        draws("text", { x: xOf(eps), y: HEIGHT - MARGIN.bottom + 18, "text-anchor": "middle" }, String(eps)),
      );
    return [
      ...lines,
      ...ticks,
      draws("text", { x: width - MARGIN.right, y: HEIGHT - 2, "text-anchor": "end", class: "rv-axis" }, "ε, in 1/255"),
      draws("text", { x: MARGIN.left, y: HEIGHT - 2, class: "rv-axis" }, "pixel accuracy"),
    ];
  }

  /**
   * @param {string} accent
   * @param {number[]} accuracy
   */
  function curve(accent, accuracy) {
    const colour = `var(--${accent})`;
    const points = grid.map((eps, i) => `${xOf(eps)},${yOf(accuracy[i])}`).join(" ");
    const area = `${xOf(0)},${yOf(0)} ${points} ${xOf(last)},${yOf(0)}`;
    return [
      draws("polygon", { points: area, style: `fill: ${colour}`, opacity: 0.1 }),
      draws("polyline", { class: "rv-curve", points, style: `stroke: ${colour}` }),
      ...grid.map((eps, i) => draws("circle", { cx: xOf(eps), cy: yOf(accuracy[i]), r: 3, style: `fill: ${colour}` })),
    ];
  }

  return {
    root,
    marginLeft: MARGIN.left,
    marginRight: MARGIN.right,

    /** @param {number} available width in CSS pixels */
    resize(available) {
      width = Math.max(240, Math.round(available));
    },

    /** @param {Record<string, number[]>} accuracy at every radius, by model */
    plot(accuracy) {
      root.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
      root.setAttribute("width", String(width));
      root.replaceChildren(...axes(), ...models.flatMap(({ name, accent }) => curve(accent, accuracy[name])), marker);
    },

    /**
     * @param {number} eps
     * @param {number[]} heights accuracy there, model by model
     */
    mark(eps, heights) {
      const line = { x1: xOf(eps), x2: xOf(eps), y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom };
      const dots = models.map(({ accent }, i) =>
        draws("circle", { cx: xOf(eps), cy: yOf(heights[i]), r: 6, style: `fill: var(--${accent})` }),
      );
      marker.replaceChildren(draws("line", line), ...dots);
    },

    /**
     * The radius under a pointer.
     * @param {PointerEvent} event
     */
    epsAt({ clientX }) {
      const inside = clientX - root.getBoundingClientRect().left - MARGIN.left;
      return last * clamp(inside / (width - MARGIN.left - MARGIN.right), 0, 1);
    },
  };
}
