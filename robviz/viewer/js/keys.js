// @ts-check
// What the keys do, and the help that lists them.

import { button, isTaken, make } from "./dom.js";
import { LAYERS } from "./layers.js";
import { FILLS } from "./pixels.js";
import { movedPixel, nearestPixel, placeAt, WHOLE, zoomed } from "./viewport.js";

/** @import { LinkedViewer } from "./viewer.js" */

const HELP = [
  ["1 … 9", "layer of the pane in use"],
  ["w", "wipe between before and after"],
  ["+  −", "zoom"],
  ["← ↑ → ↓", "move about"],
  ["Shift + arrows", "move the crosshair"],
  ["0", "whole picture"],
  ["f", "plain, hatched, outlines"],
  ["e", "save the pane as PNG"],
  ["b", "a region: drag a box, or b at two corners of the crosshair; b again: whole picture"],
  ["?", "this help; Esc closes it"],
  ["wheel, pinch, drag", "zoom and move; a double click shows the whole picture"],
  ["click on a class", "hide or show it; double click or Alt + click: it alone"],
];

/** @type {Record<string, [number, number]>} */
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** @type {Record<string, (viewer: LinkedViewer) => void>} */
const COMMANDS = {
  "+": (viewer) => zoom(viewer, 1.5),
  "=": (viewer) => zoom(viewer, 1.5),
  "-": (viewer) => zoom(viewer, 1 / 1.5),
  0: (viewer) => viewer.look(WHOLE),
  w: (viewer) => viewer.pane.toggleWipe(),
  f: (viewer) => viewer.restyle({ fill: FILLS[(FILLS.indexOf(viewer.state.fill) + 1) % FILLS.length] }),
  e: (viewer) => viewer.pane.save(),
  b: boxByKey,
  "?": (viewer) => viewer.toggleHelp(),
};
Object.keys(LAYERS).forEach((layer, i) => {
  COMMANDS[i + 1] = (viewer) => viewer.pane.setLayer(layer);
});

/**
 * @param {LinkedViewer} viewer
 * @param {number} factor
 */
function zoom(viewer, factor) {
  viewer.look(zoomed(viewer.state, factor, placeAt(viewer.state, { u: 0.5, v: 0.5 })));
}

/** @param {LinkedViewer} viewer */
function crosshair({ state, shown }) {
  if (!shown) return null;
  return state.point ?? nearestPixel(state, shown.pictures.image);
}

/**
 * Begin a region, and set its corners where the crosshair is.
 * @param {LinkedViewer} viewer
 */
function boxByKey(viewer) {
  const { state, shown } = viewer;
  if (!state.isBoxing && viewer.canBox) viewer.startBox();
  const pixel = crosshair(viewer);
  if (!state.isBoxing || !shown || !pixel) return;
  const { width, height } = shown.pictures.image;
  viewer.boxTo({ x: (pixel.column + 0.5) / width, y: (pixel.row + 0.5) / height }, state.corner !== null);
}

/**
 * @param {LinkedViewer} viewer
 * @param {string} key
 * @param {boolean} isCrosshair
 */
function move(viewer, key, isCrosshair) {
  const { state, shown } = viewer;
  const [right, down] = ARROWS[key];
  const far = 0.1 / state.scale;
  const pixel = crosshair(viewer);
  if (!isCrosshair) viewer.look({ scale: state.scale, x: state.x + right * far, y: state.y + down * far });
  else if (shown && pixel) viewer.pointAt(movedPixel(pixel, right, down, shown.pictures.image));
}

/**
 * Carry out what a key stands for.
 * @param {KeyboardEvent} event
 * @param {LinkedViewer} viewer
 */
export function onKey(event, viewer) {
  const { key, shiftKey, target } = event;
  if (!viewer.shown || isTaken(event) || (viewer.help.open && key !== "?")) return;
  if (key in ARROWS && target instanceof HTMLCanvasElement) move(viewer, key, shiftKey);
  else if (key in COMMANDS) COMMANDS[key](viewer);
  else return;
  event.preventDefault();
  event.stopPropagation();
}

/** The list of keys. */
export function helpDialog() {
  const root = make("dialog", { className: "rv-help", "aria-label": "keys" });
  const rows = HELP.flatMap(([key, what]) => [make("dt", {}, key), make("dd", {}, what)]);
  root.append(
    make("h3", {}, "Keys"),
    make("dl", {}, ...rows),
    button("Close", "close", () => root.close()),
  );
  return root;
}
