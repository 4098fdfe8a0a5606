// @ts-check
// Zoom and pan as arithmetic. x, y: a place in shares of the picture; u, v: a place in shares of the pane.

/**
 * What part of the picture is shown: its centre, and how many times it is enlarged.
 * @typedef {{ scale: number, x: number, y: number }} View
 */
/** @typedef {{ u: number, v: number }} InPane */
/** @typedef {{ u: number, v: number, x: number, y: number }} Place */
/** @typedef {{ column: number, row: number }} Pixel */
/** @typedef {{ width: number, height: number }} Size */

const MOST_ZOOM = 64;

/** The whole picture.
 * @type {Readonly<View>}
 */
export const WHOLE = { scale: 1, x: 0.5, y: 0.5 };

/**
 * @param {number} value
 * @param {number} low
 * @param {number} high
 */
export function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value));
}

/**
 * The nearest view that shows nothing beyond the picture.
 * @param {View} view
 * @returns {View}
 */
export function bounded({ scale, x, y }) {
  const held = clamp(scale, 1, MOST_ZOOM);
  const half = 0.5 / held;
  return { scale: held, x: clamp(x, half, 1 - half), y: clamp(y, half, 1 - half) };
}

/**
 * Find the place of the picture that is shown at a place of the pane.
 * @param {View} view
 * @param {InPane} at
 * @returns {Place}
 */
export function placeAt(view, { u, v }) {
  return { u, v, x: view.x + (u - 0.5) / view.scale, y: view.y + (v - 0.5) / view.scale };
}

/**
 * Enlarge around a place, which stays where it is on the pane.
 * @param {View} view
 * @param {number} factor
 * @param {Place} at
 * @returns {View}
 */
export function zoomed(view, factor, { u, v, x, y }) {
  const scale = clamp(view.scale * factor, 1, MOST_ZOOM);
  return bounded({ scale, x: x - (u - 0.5) / scale, y: y - (v - 0.5) / scale });
}

/**
 * Move the picture along with a pointer.
 * @param {View} view
 * @param {InPane} from
 * @param {InPane} to
 * @returns {View}
 */
export function dragged({ scale, x, y }, from, to) {
  return bounded({ scale, x: x - (to.u - from.u) / scale, y: y - (to.v - from.v) / scale });
}

/**
 * Zoom by two fingers, one of which moves while the other rests.
 * @param {View} view
 * @param {InPane} still
 * @param {InPane} from
 * @param {InPane} to
 * @returns {View}
 */
export function pinched(view, still, from, to) {
  /** @param {InPane} at */
  const distance = (at) => Math.hypot(at.u - still.u, at.v - still.v);
  const middle = placeAt(view, { u: (to.u + still.u) / 2, v: (to.v + still.v) / 2 });
  return zoomed(view, distance(to) / Math.max(distance(from), 1e-3), middle);
}

/**
 * Find the pixel at a place, or the nearest one for a place outside.
 * @param {{ x: number, y: number }} place
 * @param {Size} size
 * @returns {Pixel}
 */
export function nearestPixel({ x, y }, { width, height }) {
  const column = clamp(Math.floor(x * width), 0, width - 1);
  return { column, row: clamp(Math.floor(y * height), 0, height - 1) };
}

/**
 * Find the pixel at a place; null outside of the picture.
 * @param {{ x: number, y: number }} place
 * @param {Size} size
 * @returns {Pixel | null}
 */
export function pixelAt({ x, y }, size) {
  const isInside = x >= 0 && y >= 0 && x < 1 && y < 1;
  return isInside ? nearestPixel({ x, y }, size) : null;
}

/**
 * Find the pixel so many columns and rows away, within the picture.
 * @param {Pixel} from
 * @param {number} right
 * @param {number} down
 * @param {Size} size
 * @returns {Pixel}
 */
export function movedPixel({ column, row }, right, down, { width, height }) {
  return { column: clamp(column + right, 0, width - 1), row: clamp(row + down, 0, height - 1) };
}

/**
 * The box whose opposite corners are two pixels, both included: [left, top, right, bottom].
 * @param {Pixel} one
 * @param {Pixel} other
 * @returns {[number, number, number, number]}
 */
export function boxBetween(one, other) {
  return [
    Math.min(one.column, other.column),
    Math.min(one.row, other.row),
    Math.max(one.column, other.column) + 1,
    Math.max(one.row, other.row) + 1,
  ];
}

/**
 * Where the picture lies on a canvas: its corner, and how many canvas pixels one of its pixels covers.
 * @param {View} view
 * @param {Size} canvas
 * @param {Size} image
 */
export function layOut({ scale, x, y }, canvas, image) {
  return {
    left: canvas.width * (0.5 - x * scale),
    top: canvas.height * (0.5 - y * scale),
    width: canvas.width * scale,
    height: canvas.height * scale,
    across: (canvas.width / image.width) * scale,
    down: (canvas.height / image.height) * scale,
  };
}
