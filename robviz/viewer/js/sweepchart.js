// @ts-check
// The chart of a sweep: SVG on the page, the same as a picture to keep, and the numbers as a file.

import { csvOf, lineStyle, MEASURES, outline, planeOf, shortened, spaced, spread } from "./curves.js";
import { blank, contextOf, make, percent } from "./dom.js";
import { draws } from "./svg.js";

/** @import { Measure, Plane } from "./curves.js" */
/** @import { LuckCurve, SmallestRadius, SweepCurve, SweepData } from "./payloads.js" */

const KEPT = { width: 900, height: 460, scale: 2 };
const NAME_GAP = 15; // between two names
const TICK_GAP = 20;

/**
 * @param {SweepData} data
 * @param {number} width
 * @param {number} height
 */
export function planeFor({ curves, eps, luck, smallest }, width, height) {
  const names = [...curves.map(({ name }) => name), ...luck.map(({ corruption }) => corruption)];
  const last = Math.max(eps[eps.length - 1], ...smallest.map((found) => found.eps ?? 0));
  return planeOf(width, height, last, names);
}

/**
 * Draw the curves. All colours are attributes, so that the chart looks the same outside of the page.
 * @param {SweepData} data
 * @param {Measure} measure
 * @param {Plane} plane
 */
export function chartOf({ curves, eps, luck, smallest }, measure, plane) {
  const { width, height } = plane;
  const frame = { width, height, viewBox: `0 0 ${width} ${height}`, "font-family": "system-ui, sans-serif" };
  const begun = curves.map((curve, i) => ({ curve, i })).filter(({ curve }) => curve.points.length > 0);
  const ends = [...begun.map(({ curve }) => curve), ...luck];
  const heights = ends.map(({ points }) => plane.y(points[points.length - 1][measure]));
  const places = spread(heights, NAME_GAP, plane.top, plane.bottom);
  return draws(
    "svg",
    { ...frame, "font-size": 12, "aria-hidden": "true" },
    ...sweepAxes(eps, measure, plane),
    ...luck.map((curve, n) => luckSeries(curve, n, measure, plane, places[begun.length + n])),
    ...smallest.map((found, n) => limit(found, modelsPlace(curves, found.model), n, plane)),
    ...begun.map(({ curve, i }, n) => series(curve, i, measure, plane, places[n])),
  );
}

/**
 * @param {number[]} eps
 * @param {Measure} measure
 * @param {Plane} plane
 */
function sweepAxes(eps, measure, { x, y, left, right, bottom, height }) {
  const lines = [0, 0.25, 0.5, 0.75, 1].flatMap((share) => [
    draws("line", { x1: left, x2: right, y1: y(share), y2: y(share), stroke: "currentColor", "stroke-opacity": 0.18 }),
    draws("text", { x: left - 8, y: y(share) + 4, "text-anchor": "end", fill: "currentColor" }, percent(share)),
  ]);
  const ticks = spaced(eps, x, TICK_GAP).map((value) =>
    draws("text", { x: x(value), y: bottom + 18, "text-anchor": "middle", fill: "currentColor" }, String(value)),
  );
  const title = { y: height - 4, fill: "currentColor", "fill-opacity": 0.8 };
  return [
    ...lines,
    ...ticks,
    draws("text", { ...title, x: right, "text-anchor": "end" }, "ε, in 1/255"),
    draws("text", { ...title, x: 0 }, MEASURES[measure]),
  ];
}

/**
 * One curve with its markers, and its name at its end.
 * @param {SweepCurve} curve
 * @param {number} i its place
 * @param {Measure} measure
 * @param {Plane} plane
 * @param {number} nameAt the height of its name
 */
function series({ name, points }, i, measure, { x, y, most }, nameAt) {
  const { light, dark, dash, shape } = lineStyle(i);
  const places = points.map((point) => [x(point.eps), y(point[measure])]);
  const line = { points: places.join(" "), fill: "none", stroke: "currentColor", "stroke-width": 2.5 };
  const mark = { d: outline(shape, 4), fill: "currentColor", stroke: "currentColor", "stroke-width": 2 };
  const end = places[places.length - 1];
  const label = { x: end[0] + 11, y: nameAt + 4, fill: "currentColor", "font-weight": 600 };
  return draws(
    "g",
    { class: "rv-series", color: light, style: `--dark: ${dark}` },
    draws("polyline", { ...line, "stroke-dasharray": dash, "stroke-linejoin": "round" }),
    ...places.map(([left, top]) => draws("path", { ...mark, transform: `translate(${left} ${top})` })),
    draws("text", label, shortened(name, most), draws("title", {}, name)),
  );
}

/**
 * @param {SweepCurve[]} curves
 * @param {string} model
 */
function modelsPlace(curves, model) {
  return curves.findIndex(({ name }) => name === model);
}

const LUCK_DASHES = ["none", "6 3", "2 3", "8 3 2 3"];

/**
 * One corruption: thinner than an attack and without colour or markers, as it is a yardstick.
 * @param {LuckCurve} curve
 * @param {number} n its place
 * @param {Measure} measure
 * @param {Plane} plane
 * @param {number} nameAt the height of its name
 */
function luckSeries({ model, corruption, points }, n, measure, { x, y, most }, nameAt) {
  const places = points.map((point) => [x(point.eps), y(point[measure])]);
  const end = places[places.length - 1];
  const line = { points: places.join(" "), fill: "none", stroke: "currentColor", "stroke-width": 1.25 };
  const dash = LUCK_DASHES[n % LUCK_DASHES.length];
  const label = { x: end[0] + 11, y: nameAt + 4, fill: "currentColor", "fill-opacity": 0.75 };
  return draws(
    "g",
    { class: "rv-luck" },
    draws("polyline", { ...line, "stroke-dasharray": dash, "stroke-opacity": 0.6 }),
    draws("text", label, shortened(corruption, most), draws("title", {}, `${model} under ${corruption}`)),
  );
}

/**
 * The smallest radius that breaks a model's picture, as a line across the chart.
 * @param {SmallestRadius} found
 * @param {number} i the place of the model
 * @param {number} n its place among the radii
 * @param {Plane} plane
 */
function limit(found, i, n, { x, top, bottom, left, right }) {
  if (found.eps === null) return draws("g", {});
  const { light, dark, dash } = lineStyle(i);
  const at = x(found.eps);
  const isRight = at > (left + right) / 2;
  const line = { x1: at, x2: at, y1: top, y2: bottom, stroke: "currentColor", "stroke-width": 1.5 };
  const text = { x: at + (isRight ? -6 : 6), y: top + (bottom - top) * 0.4 + NAME_GAP * n, fill: "currentColor" };
  const label = `${percent(found.share)} break: ${Number(found.eps.toPrecision(3))}/255`;
  return draws(
    "g",
    { class: "rv-series rv-limit", color: light, style: `--dark: ${dark}` },
    draws("line", { ...line, "stroke-dasharray": dash, "stroke-opacity": 0.7 }),
    draws("path", { d: outline("triangle", 5), fill: "currentColor", transform: `translate(${at} ${bottom})` }),
    draws("text", { ...text, "text-anchor": isRight ? "end" : "start", "font-weight": 600 }, label),
  );
}

/** @param {Blob} blob */
function blobUrl(blob) {
  const url = URL.createObjectURL(blob);
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
  return url;
}

/** @param {SweepData} data */
export function saveNumbers(data) {
  saveAs("robviz-sweep.csv", blobUrl(new Blob([csvOf(data)], { type: "text/csv" })));
}

/**
 * Save the chart with what it shows above it, dark on white.
 * @param {SweepData} data
 * @param {Measure} measure
 */
export async function saveChart(data, measure) {
  const { width, height, scale } = KEPT;
  const svg = chartOf(data, measure, planeFor(data, width, height));
  svg.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  svg.setAttribute("color", "#222");
  const picture = make("img", { width, height });
  picture.src = `data:image/svg+xml,${encodeURIComponent(new XMLSerializer().serializeToString(svg))}`;
  await picture.decode();
  const above = data.note ? 30 : 0;
  const canvas = blank(scale * (width + 20), scale * (height + above + 20));
  const context = contextOf(canvas);
  context.scale(scale, scale);
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width + 20, height + above + 20);
  context.fillStyle = "#222";
  context.font = "14px system-ui, sans-serif";
  context.fillText(data.note, 10, 26, width);
  context.drawImage(picture, 10, above + 10, width, height);
  const blob = await new Promise((done) => canvas.toBlob(done));
  if (blob) saveAs("robviz-sweep.png", blobUrl(blob));
}

/**
 * Let the browser save what lies at an address.
 * @param {string} download the name of the file
 * @param {string} href
 */
function saveAs(download, href) {
  make("a", { href, download }).click();
}
