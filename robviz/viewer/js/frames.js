// @ts-check
// A frame as it is on screen: what Python sent, with its pictures decoded.

import { changed, decode, numbers } from "./pixels.js";

/** @import { ViewerData } from "./payloads.js" */
/** @import { Decoded } from "./layers.js" */
/** @import { Raster } from "./pixels.js" */

/**
 * masks: those on the way of the attack, step by step. final: the mask of its end. isPast: another step's is shown.
 * @typedef {object} Frame
 * @property {ViewerData} data
 * @property {Decoded} pictures
 * @property {Uint8Array[]} masks
 * @property {Uint8Array} final
 * @property {boolean} isPast
 */

/** @type {(keyof Decoded)[]} */
const STILL = ["image", "before", "reference", "confidence_before"];
const NUMBERS = ["before", "after", "reference", "change", "confidence_before", "confidence_after"];

/**
 * Decode a frame; a picture that the one before has too is taken from it.
 * @param {ViewerData} data
 * @param {Frame | null} old
 * @returns {Promise<Frame>}
 */
export async function decoded(data, old) {
  /** @type {Record<string, string>} */
  const known = { ...old?.data.pictures };
  const entries = Object.entries(data.pictures).map(async ([name, url]) => {
    if (old && known[name] === url) return [name, { ...old.pictures, after: old.final }[name]];
    const picture = await decode(url);
    return [name, NUMBERS.includes(name) ? numbers(picture) : picture];
  });
  /** @type {Decoded} */
  const pictures = Object.fromEntries(await Promise.all(entries));
  if (pictures.change) pictures.attacked = attackedOf(pictures.image, pictures.change, old);
  const masks = data.trail ? strips(numbers(await decode(data.trail.masks)), data.trail.steps.length) : [];
  return { data, pictures, masks, final: pictures.after, isPast: false };
}

/**
 * Say whether a frame shows the same picture and model as the one before it.
 * @param {Frame} old
 * @param {Frame} next
 */
export function goesOn(old, next) {
  const isSame = STILL.every((name) => old.pictures[name] === next.pictures[name]);
  return isSame && String(old.data.palette) === String(next.data.palette);
}

/**
 * @param {Raster} image
 * @param {Uint8Array} change
 * @param {Frame | null} old
 */
function attackedOf(image, change, old) {
  const known = old?.pictures;
  return known?.attacked && known.image === image && known.change === change ? known.attacked : changed(image, change);
}

/**
 * Take masks apart that lie one below the other.
 * @param {Uint8Array} labels
 * @param {number} count
 */
export function strips(labels, count) {
  const size = labels.length / count;
  return Array.from({ length: count }, (_, i) => labels.subarray(i * size, (i + 1) * size));
}

/**
 * Show the mask of a step in place of the last one.
 * @param {Frame} frame
 * @param {number} step its place among `masks`
 * @returns {Frame}
 */
export function atStep(frame, step) {
  const isPast = step < frame.masks.length - 1;
  return { ...frame, isPast, pictures: { ...frame.pictures, after: isPast ? frame.masks[step] : frame.final } };
}
