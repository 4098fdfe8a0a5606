// @ts-check
// What a pane draws: a layer or two, and over them the divider, the region and the crosshair.

import { contextOf } from "./dom.js";
import { LAYERS, paintable } from "./layers.js";
import { layOut } from "./viewport.js";

/** @import { Decoded } from "./layers.js" */
/** @import { Pixel, View } from "./viewport.js" */
/** @typedef {ReturnType<typeof layOut>} Layout */

/**
 * @typedef {object} Scene
 * @property {View} view
 * @property {Decoded} pictures
 * @property {(layer: string) => HTMLCanvasElement} canvasOf
 * @property {number[] | null} region
 * @property {Pixel | null} point
 */

/**
 * @param {HTMLCanvasElement} canvas
 * @param {{ layer: string, wipe: number | null }} pane
 * @param {Scene} scene
 */
export function drawPane(canvas, { layer, wipe }, { view, pictures, canvasOf, region, point }) {
  const context = contextOf(canvas);
  const layout = layOut(view, canvas, pictures.image);
  context.imageSmoothingEnabled = layout.across < 3;
  context.imageSmoothingQuality = "high";
  /** @type {(name: string, from: number, to: number) => void} */
  const put = (name, from, to) => drawLayer(context, canvasOf(paintable(name, pictures)), layout, from, to);
  if (wipe === null) put(layer, 0, 1);
  else {
    const [before, after] = LAYERS[layer].wipe;
    put(before, 0, wipe);
    put(after, wipe, 1);
    drawDivider(context, wipe * canvas.width);
  }
  if (region) drawRegion(context, region, layout);
  if (point) drawCrosshair(context, point, layout);
}

/**
 * Draw what is seen of a layer between two shares of the pane's width.
 * @param {CanvasRenderingContext2D} context
 * @param {HTMLCanvasElement} painted
 * @param {Layout} layout
 * @param {number} from
 * @param {number} to
 */
function drawLayer(context, painted, { left, top, width, height }, from, to) {
  const { canvas } = context;
  context.save();
  context.beginPath();
  context.rect(from * canvas.width, 0, (to - from) * canvas.width, canvas.height);
  context.clip();
  context.drawImage(painted, left, top, width, height);
  context.restore();
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {number} x
 */
function drawDivider(context, x) {
  const { height } = context.canvas;
  const pixel = devicePixelRatio;
  context.fillStyle = "#fff";
  context.shadowColor = "rgba(0, 0, 0, 0.6)";
  context.shadowBlur = 4 * pixel;
  context.fillRect(x - pixel, 0, 2 * pixel, height);
  context.beginPath();
  context.arc(x, height / 2, 11 * pixel, 0, 2 * Math.PI);
  context.fill();
  context.shadowBlur = 0;
  context.fillStyle = "#333";
  for (const side of [-1, 1]) {
    context.beginPath();
    context.moveTo(x + side * 7 * pixel, height / 2);
    context.lineTo(x + side * 3 * pixel, height / 2 - 4 * pixel);
    context.lineTo(x + side * 3 * pixel, height / 2 + 4 * pixel);
    context.fill();
  }
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {number[]} region
 * @param {Layout} layout
 */
function drawRegion(context, [x1, y1, x2, y2], { left, top, across, down }) {
  for (const { colour, dash } of [
    { colour: "#000", dash: [] },
    { colour: "#fff", dash: [6 * devicePixelRatio] },
  ]) {
    context.strokeStyle = colour;
    context.lineWidth = 2 * devicePixelRatio;
    context.setLineDash(dash);
    context.strokeRect(left + x1 * across, top + y1 * down, (x2 - x1) * across, (y2 - y1) * down);
  }
  context.setLineDash([]);
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Pixel} point
 * @param {Layout} layout
 */
function drawCrosshair(context, { column, row }, { left, top, across, down }) {
  const { width, height } = context.canvas;
  const x = left + (column + 0.5) * across;
  const y = top + (row + 0.5) * down;
  const gap = Math.max(6 * devicePixelRatio, across / 2);
  for (const { colour, thickness } of [
    { colour: "rgba(0, 0, 0, 0.6)", thickness: 3 },
    { colour: "rgba(255, 255, 255, 0.9)", thickness: 1 },
  ]) {
    context.strokeStyle = colour;
    context.lineWidth = thickness * devicePixelRatio;
    context.beginPath();
    for (const [x1, y1, x2, y2] of [
      [0, y, x - gap, y],
      [x + gap, y, width, y],
      [x, 0, x, y - gap],
      [x, y + gap, x, height],
    ]) {
      context.moveTo(x1, y1);
      context.lineTo(x2, y2);
    }
    if (across > 8) context.rect(x - across / 2, y - across / 2, across, across);
    context.stroke();
  }
}
