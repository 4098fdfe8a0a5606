// @ts-check
// What a pane can show.

import { confidenceMap, errorMap, perturbation, tint } from "./pixels.js";

/** @import { Raster, Style } from "./pixels.js" */

/**
 * The decoded pictures of a frame: class numbers and confidence as one byte a pixel. Not every frame has all.
 * @typedef {object} Decoded
 * @property {Raster} image
 * @property {Uint8Array} before
 * @property {Uint8Array} after
 * @property {Uint8Array} reference
 * @property {Uint8Array} [change]
 * @property {Raster} [attacked] the picture with the change
 * @property {Uint8Array} [confidence_before]
 * @property {Uint8Array} [confidence_after]
 */

/**
 * What a layer is painted from besides the pictures that stay.
 * @typedef {"mask" | "gain" | "after" | "attacked"} Need
 */

/**
 * label: its name in menus. side: its name at the divider, where it differs. source: the picture without which it
 * cannot be painted. wipe: the layers on either side of the divider.
 * @typedef {object} Layer
 * @property {string} label
 * @property {string} [side]
 * @property {(pictures: Required<Decoded>, style: Style & { gain: number }) => Raster} paint
 * @property {keyof Decoded} source
 * @property {Need[]} needs
 * @property {[string, string]} wipe
 */

/**
 * The layers in the order of the menus and of the keys 1 to 9. To add a layer, add its row.
 * @type {Record<string, Layer>}
 */
export const LAYERS = {
  image: { label: "picture", source: "image", paint: (p) => p.image, needs: [], wipe: ["image", "attacked"] },
  before: {
    label: "mask of the picture",
    side: "before",
    source: "before",
    paint: (p, style) => tint(p.image, p.before, style),
    needs: ["mask"],
    wipe: ["before", "after"],
  },
  after: {
    label: "mask of the attacked picture",
    side: "after",
    source: "after",
    paint: (p, style) => tint(p.image, p.after, style),
    needs: ["mask", "after"],
    wipe: ["before", "after"],
  },
  attacked: {
    label: "attacked picture",
    side: "attacked",
    source: "attacked",
    paint: (p) => p.attacked,
    needs: ["attacked"],
    wipe: ["image", "attacked"],
  },
  errors: { label: "what broke", source: "reference", paint: errorMap, needs: ["after"], wipe: ["image", "errors"] },
  perturbation: {
    label: "perturbation, amplified",
    side: "perturbation",
    source: "attacked",
    paint: (p, { gain }) => perturbation(p.image, p.attacked, gain),
    needs: ["gain", "attacked"],
    wipe: ["image", "perturbation"],
  },
  reference: {
    label: "reference mask",
    source: "reference",
    paint: (p, style) => tint(p.image, p.reference, style),
    needs: ["mask"],
    wipe: ["reference", "after"],
  },
  confidence_before: {
    label: "confidence",
    side: "before",
    source: "confidence_before",
    paint: (p) => confidenceMap(p.confidence_before, p.image),
    needs: [],
    wipe: ["confidence_before", "confidence_after"],
  },
  confidence_after: {
    label: "confidence, attacked",
    side: "after",
    source: "confidence_after",
    paint: (p) => confidenceMap(p.confidence_after, p.image),
    needs: ["attacked"],
    wipe: ["confidence_before", "confidence_after"],
  },
};

/**
 * Name the layer to show for one that was asked for: the picture, where the frame cannot paint it.
 * @param {string} layer
 * @param {Decoded} pictures
 */
export function paintable(layer, pictures) {
  return LAYERS[layer].source in pictures ? layer : "image";
}
