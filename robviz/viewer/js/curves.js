// @ts-check
// Numbers of models over the radius: where they lie in a chart, how they look, and how they read as words and as CSV.

import { percent } from "./dom.js";

/** @import { SmallestRadius, SweepCurve, SweepData, SweepPoint } from "./payloads.js" */
/** @typedef {"accuracy" | "miou"} Measure */
/** @typedef {{ light: string, dark: string, dash: string, shape: string }} LineStyle */
/** @typedef {ReturnType<typeof planeOf>} Plane */

/** @type {Record<Measure, string>} */
export const MEASURES = { accuracy: "pixel accuracy", miou: "mIoU" };

/**
 * Colours, dashes and markers, each enough to tell curves apart.
 * @type {LineStyle[]}
 */
const LINE_STYLES = [
  { light: "#0072b2", dark: "#5ab4f0", dash: "none", shape: "circle" },
  { light: "#b84a00", dark: "#ff8a3d", dash: "7 4", shape: "square" },
  { light: "#00704f", dark: "#2fc49a", dash: "2 4", shape: "triangle" },
  { light: "#9c3d78", dark: "#e597c4", dash: "10 3 2 3", shape: "diamond" },
  { light: "#555555", dark: "#cfcfcf", dash: "5 2", shape: "cross" },
];

/** @param {number} i the place of a curve */
export function lineStyle(i) {
  return LINE_STYLES[i % LINE_STYLES.length];
}

/** @type {Record<string, (r: number) => string>} the outline of a marker around 0, 0 */
const SHAPES = {
  circle: (r) => `M ${-r} 0 a ${r} ${r} 0 1 0 ${2 * r} 0 a ${r} ${r} 0 1 0 ${-2 * r} 0 Z`,
  square: (r) => `M ${-r} ${-r} H ${r} V ${r} H ${-r} Z`,
  triangle: (r) => `M 0 ${-1.2 * r} L ${1.2 * r} ${r} H ${-1.2 * r} Z`,
  diamond: (r) => `M 0 ${-1.4 * r} L ${1.4 * r} 0 L 0 ${1.4 * r} L ${-1.4 * r} 0 Z`,
  cross: (r) => `M ${-r} ${-r} L ${r} ${r} M ${r} ${-r} L ${-r} ${r}`,
};

/**
 * @param {string} shape
 * @param {number} radius
 */
export function outline(shape, radius) {
  return SHAPES[shape](radius);
}

const CHARACTER = 7; // the mean width of a letter of 12 px
const AROUND = { left: 46, top: 12, bottom: 40 };

/**
 * Lay out a chart: its names end at the right, in at most a third of the width.
 * @param {number} width
 * @param {number} height
 * @param {number} last the largest radius
 * @param {string[]} names
 */
export function planeOf(width, height, last, names) {
  const longest = Math.max(...names.map((name) => name.length));
  const most = Math.floor(width / 3 / CHARACTER);
  const right = width - 16 - CHARACTER * Math.min(longest, most);
  const { left, top } = AROUND;
  const bottom = height - AROUND.bottom;
  return {
    width,
    height,
    left,
    right,
    top,
    bottom,
    most,
    /** @param {number} eps */
    x: (eps) => left + (eps / (last || 1)) * (right - left),
    /** @param {number} share */
    y: (share) => bottom - share * (bottom - top),
  };
}

/**
 * Leave out numbers of an axis that would touch; the last one stays.
 * @param {number[]} values ascending
 * @param {(value: number) => number} at
 * @param {number} gap
 */
export function spaced(values, at, gap) {
  /** @type {number[]} */
  const kept = [];
  const last = values[values.length - 1];
  for (const value of values) {
    const isFree = kept.length === 0 || at(value) - at(kept[kept.length - 1]) >= gap;
    if (value === last || (isFree && at(last) - at(value) >= gap)) kept.push(value);
  }
  return kept;
}

/**
 * Move heights apart that are closer than a gap, in the same order, and keep them within limits where there is room.
 * @param {number[]} heights
 * @param {number} gap
 * @param {number} low
 * @param {number} high
 */
export function spread(heights, gap, low, high) {
  const order = heights.map((_, i) => i).sort((a, b) => heights[a] - heights[b] || a - b);
  const moved = [...heights];
  let least = low;
  for (const i of order) {
    moved[i] = Math.max(moved[i], least);
    least = moved[i] + gap;
  }
  let most = high;
  for (const i of order.reverse()) {
    moved[i] = Math.min(moved[i], most);
    most = moved[i] - gap;
  }
  return moved;
}

/**
 * @param {string} name
 * @param {number} most characters
 */
export function shortened(name, most) {
  return name.length <= most ? name : `${name.slice(0, Math.max(1, most - 1))}…`;
}

/**
 * Say what a point shows: "photos-robust at 4/255: 63.1 % pixel accuracy".
 * @param {SweepCurve} curve
 * @param {SweepPoint} point
 * @param {Measure} measure
 */
export function inWords({ name }, point, measure) {
  return `${name} at ${point.eps}/255: ${percent(point[measure], 1)} ${MEASURES[measure]}`;
}

/** @param {string | number} value */
function field(value) {
  const text = String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/**
 * Say at which radius a model's picture is broken, or that none was found.
 * @param {SmallestRadius} found
 */
export function smallestInWords({ model, eps, flipped, share, steps }) {
  const wanted = percent(share);
  if (eps !== null) return `${model}: ${wanted} of the pixels break within ${Number(eps.toPrecision(3))}/255`;
  return `${model}: ${steps} steps broke ${percent(flipped, 1)} of the pixels, not ${wanted}`;
}

/**
 * Say what the most harmful corruption leaves at the largest radius, beside what the attack leaves there.
 * @param {SweepData} data
 * @param {Measure} measure
 */
export function luckInWords({ curves, luck }, measure) {
  if (luck.length === 0) return "";
  const last = luck.map(({ corruption, points }) => ({ corruption, point: points[points.length - 1] }));
  const { corruption, point } = last.reduce((a, b) => (b.point[measure] < a.point[measure] ? b : a));
  const { model } = luck[0];
  const attacked = curves.find(({ name }) => name === model)?.points.find(({ eps }) => eps === point.eps);
  const beside = attacked ? `, an attack ${percent(attacked[measure], 1)}` : "";
  const left = `${percent(point[measure], 1)} ${MEASURES[measure]}`;
  return `Bad luck of the same size, ${point.eps}/255, on ${model}: ${corruption} leaves ${left}${beside}.`;
}

/**
 * Write every point as a line of CSV, with the same columns as `sweep_table`.
 * @param {SweepData} data
 */
export function csvOf({ curves, luck, smallest }) {
  const attacks = curves.flatMap(({ name, points }) =>
    points.map(({ eps, accuracy, miou, change, steps }) => [name, eps, accuracy, miou, change, steps, "attack"]),
  );
  const corrupted = luck.flatMap(({ model, corruption, points }) =>
    points.map(({ eps, accuracy, miou, change }) => [model, eps, accuracy, miou, change, 0, corruption]),
  );
  const radii = smallest.flatMap(({ model, eps, flipped, share, steps }) =>
    eps === null ? [] : [[model, eps, 1 - flipped, "", "", steps, `smallest for ${percent(share)}`]],
  );
  const head = ["model", "eps_255", "accuracy", "miou", "largest_change", "steps", "by"];
  return `${[head, ...attacks, ...corrupted, ...radii].map((line) => line.map(field).join(",")).join("\r\n")}\r\n`;
}

/** @typedef {{ curve: SweepCurve, point: SweepPoint }} Found */

/**
 * List the points of all curves by radius, in the order in which they are found.
 * @param {SweepData} data
 * @returns {Found[]}
 */
export function pointsOf({ curves }) {
  const all = curves.flatMap((curve) => curve.points.map((point) => ({ curve, point })));
  return all.sort((a, b) => a.point.eps - b.point.eps);
}

/** @param {Found[]} found */
export function latestOf(found) {
  return found.length > 0 ? found[found.length - 1] : null;
}

/**
 * Say whether a sweep is another one than that before it, not what that has grown to.
 * @param {SweepData} before
 * @param {SweepData} next
 */
export function isAnother(before, next) {
  const [old, now] = [before, next].map((data) => pointsOf(data).map(({ point }) => point.name));
  const models = [before, next].map(({ curves }) => String(curves.map(({ name }) => name)));
  return models[0] !== models[1] || String(before.eps) !== String(next.eps) || now.length < old.length;
}
