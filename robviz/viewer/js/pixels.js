// @ts-check
// Pictures as arrays: what is read from a PNG, and how masks, errors, perturbations and confidence are coloured.

/**
 * A picture: RGBA bytes, row by row.
 * @typedef {{ width: number, height: number, data: Uint8ClampedArray<ArrayBuffer> }} Raster
 */

/**
 * How masks are painted. hidden: class numbers that are left out.
 * @typedef {object} Style
 * @property {number[][]} palette
 * @property {number} [opacity] in [0, 1]
 * @property {Blend} [blend]
 * @property {string} [fill] one of `FILLS`
 * @property {Set<number>} [hidden]
 */

/** The class number of pixels without a label. */
export const VOID = 255;

/**
 * Read the RGBA bytes of a data URL, untouched by colour management.
 * @param {string} url
 * @returns {Promise<Raster>}
 */
export async function decode(url) {
  const comma = url.indexOf(",");
  const letters = atob(url.slice(comma + 1));
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = letters.charCodeAt(i);
  const blob = new Blob([bytes], { type: url.slice(5, url.indexOf(";")) });
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const { width, height } = bitmap;
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = context.getImageData(0, 0, width, height);
  return { width, height, data: /** @type {Uint8ClampedArray<ArrayBuffer>} */ (data) };
}

/**
 * Take the first channel: class numbers, or confidence.
 * @param {Raster} picture
 */
export function numbers({ width, height, data }) {
  const values = new Uint8Array(width * height);
  for (let i = 0; i < values.length; i++) values[i] = data[4 * i];
  return values;
}

/**
 * Add a change to a picture: three bytes a pixel, 128 for none. Sums beyond a byte wrap around, as in Python.
 * @param {Raster} image
 * @param {Uint8Array} change
 * @returns {Raster}
 */
export function changed({ width, height, data }, change) {
  const sums = new Uint8Array(data);
  for (let i = 0; i < change.length; i++) sums[i + Math.floor(i / 3)] += change[i] - 128;
  return { width, height, data: new Uint8ClampedArray(sums.buffer) };
}

/**
 * @param {number} width
 * @param {number} height
 * @returns {Raster}
 */
function opaque(width, height) {
  const data = new Uint8ClampedArray(4 * width * height);
  for (let at = 3; at < data.length; at += 4) data[at] = 255;
  return { width, height, data };
}

/** @typedef {"over grey" | "over the picture" | "multiply"} Blend */

/**
 * How a class colour meets the picture below it, in one channel.
 * @type {Record<Blend, (picture: number, grey: number, colour: number, opacity: number) => number>}
 */
export const BLENDS = {
  "over grey": (_, grey, colour, opacity) => (1 - opacity) * grey + opacity * colour,
  "over the picture": (picture, _, colour, opacity) => (1 - opacity) * picture + opacity * colour,
  multiply: (picture, _, colour, opacity) => (1 - opacity) * picture + (opacity * picture * colour) / 255,
};

const BLACK = [0, 0, 0];

export const FILLS = ["plain", "hatched", "outlines"];

/** @type {((x: number, y: number) => number)[]} */
const STRIPES = [(x, y) => x + y, (x, y) => x - y + 4096, (x) => x, (_, y) => y];

/**
 * Say whether a pixel of a class lies on its pattern, by which classes can be told apart without colours.
 * @param {number} label
 * @param {number} x
 * @param {number} y
 */
export function hatch(label, x, y) {
  return label > 0 && STRIPES[(label - 1) % 4](x, y) % (5 + 3 * ((label - 1) >> 2)) < 2;
}

/**
 * Say whether a neighbour of pixel i, at column x, has another label.
 * @param {Uint8Array} labels
 * @param {number} width
 * @param {number} i
 * @param {number} x
 */
function isEdge(labels, width, i, x) {
  const label = labels[i];
  return (
    (x > 0 && labels[i - 1] !== label) ||
    (x + 1 < width && labels[i + 1] !== label) ||
    (i >= width && labels[i - width] !== label) ||
    (i + width < labels.length && labels[i + width] !== label)
  );
}

/**
 * Paint class colours over a picture.
 * @param {Raster} image
 * @param {Uint8Array} labels class numbers, VOID for none
 * @param {Style} style
 * @returns {Raster}
 */
export function tint({ width, height, data }, labels, style) {
  const { palette, opacity = 0.7, blend = "over grey", fill = "plain", hidden = new Set() } = style;
  const painted = opaque(width, height);
  const mix = BLENDS[blend];
  /** @param {number} label */
  const isBare = (label) => label === VOID || hidden.has(label);
  /** @type {(label: number, i: number, x: number) => number} */
  const opacityAt = (label, i, x) => {
    if (isBare(label)) return 0;
    return fill === "outlines" ? Number(isEdge(labels, width, i, x)) : opacity;
  };
  labels.forEach((label, i) => {
    const at = 4 * i;
    const x = i % width;
    const grey = (data[at] + data[at + 1] + data[at + 2]) / 3;
    const share = opacityAt(label, i, x);
    const isDark = fill === "hatched" && !isBare(label) && hatch(label, x, Math.floor(i / width));
    const colour = share ? palette[label] : BLACK;
    for (let channel = 0; channel < 3; channel++) {
      const value = mix(data[at + channel], grey, colour[channel], share);
      painted.data[at + channel] = isDark ? 0.45 * value : value;
    }
  });
  return painted;
}

/** What became of a pixel, in the order of the legend. */
export const FATES = [
  { name: "right before and after", colour: [70, 70, 70] },
  { name: "newly wrong", colour: [255, 160, 40] },
  { name: "wrong both times", colour: [70, 120, 200] },
  { name: "repaired", colour: [0, 190, 140] },
];

/**
 * Number each pixel by its place in `FATES`; VOID where there is no label.
 * @param {{ reference: Uint8Array, before: Uint8Array, after: Uint8Array }} masks
 */
export function fates({ reference, before, after }) {
  return reference.map((label, i) => {
    if (label === VOID) return VOID;
    const wasRight = before[i] === label;
    return after[i] === label ? (wasRight ? 0 : 3) : wasRight ? 1 : 2;
  });
}

/**
 * Count what share of the entries has each number below `count`.
 * @param {Uint8Array} labels
 * @param {number} count
 */
export function shares(labels, count) {
  const found = new Array(count).fill(0);
  for (const label of labels) if (label < count) found[label]++;
  return found.map((pixels) => pixels / Math.max(1, labels.length));
}

/**
 * Dim the picture and mark the pixels that are or were wrong.
 * @param {{ image: Raster, reference: Uint8Array, before: Uint8Array, after: Uint8Array }} pictures
 * @returns {Raster}
 */
export function errorMap(pictures) {
  const { width, height, data } = pictures.image;
  const painted = opaque(width, height);
  fates(pictures).forEach((fate, i) => {
    const at = 4 * i;
    const dimmed = 0.15 * (data[at] + data[at + 1] + data[at + 2]);
    const isMarked = fate > 0 && fate !== VOID;
    for (let channel = 0; channel < 3; channel++) {
      painted.data[at + channel] = isMarked ? 0.3 * dimmed + 0.75 * FATES[fate].colour[channel] : dimmed;
    }
  });
  return painted;
}

/**
 * Amplify the change of every channel around a middle grey.
 * @param {Raster} image
 * @param {Raster} attacked
 * @param {number} gain
 * @returns {Raster}
 */
export function perturbation(image, attacked, gain) {
  const painted = opaque(image.width, image.height);
  for (let at = 0; at < painted.data.length; at++) {
    if (at % 4 !== 3) painted.data[at] = 127.5 + gain * (attacked.data[at] - image.data[at]);
  }
  return painted;
}

/** Dark violet to yellow, in even steps of lightness. */
const SCALE = [
  [68, 1, 84],
  [59, 82, 139],
  [33, 145, 140],
  [94, 201, 98],
  [253, 231, 37],
];

/**
 * Colour confidence, in 1/255, from dark violet (unsure) to yellow (sure).
 * @param {Uint8Array} values
 * @param {{ width: number, height: number }} size
 * @returns {Raster}
 */
export function confidenceMap(values, { width, height }) {
  const painted = opaque(width, height);
  values.forEach((value, i) => {
    const place = (value / 255) * (SCALE.length - 1);
    const low = Math.min(Math.floor(place), SCALE.length - 2);
    for (let channel = 0; channel < 3; channel++) {
      const [from, to] = [SCALE[low][channel], SCALE[low + 1][channel]];
      painted.data[4 * i + channel] = from + (place - low) * (to - from);
    }
  });
  return painted;
}
