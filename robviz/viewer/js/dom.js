// @ts-check
// Small pieces of the page: elements, controls, and numbers in words. Text is only ever set as text.

/** @import { Raster } from "./pixels.js" */

/**
 * Create an element. Properties with a dash and `role` become attributes, `dataset` becomes data-*.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, unknown>} [properties]
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function make(tag, properties = {}, ...children) {
  const { dataset, ...rest } = properties;
  const node = Object.assign(document.createElement(tag), rest);
  for (const [key, value] of Object.entries(rest)) {
    if (key.includes("-") || key === "role") node.setAttribute(key, String(value));
  }
  Object.assign(node.dataset, dataset);
  node.append(...children);
  return node;
}

/**
 * @param {string} text
 * @param {string} label
 * @param {(event: MouseEvent) => void} onclick
 * @param {Record<string, unknown>} [properties]
 */
export function button(text, label, onclick, properties = {}) {
  return make("button", { type: "button", title: label, "aria-label": label, onclick, ...properties }, text);
}

/**
 * A labelled slider; `input` and `caption` are its parts.
 * @param {string} label
 * @param {{ min: number, max: number, step: number, value: number }} range
 * @param {(value: number) => void} oninput
 */
export function slider(label, range, oninput) {
  const input = make("input", { type: "range", ...range, "aria-label": label });
  input.oninput = () => oninput(Number(input.value));
  const caption = make("span", {}, label);
  return { root: make("label", {}, caption, input), caption, input };
}

/**
 * A labelled menu.
 * @param {string} label
 * @param {string[]} options
 * @param {(value: string) => void} onchange
 */
export function choice(label, options, onchange) {
  const items = options.map((name) => make("option", { value: name }, name));
  const select = make("select", { "aria-label": label, onchange: () => onchange(select.value) }, ...items);
  return { root: make("label", {}, make("span", {}, label), select), select };
}

/**
 * A small square of a colour.
 * @param {number[]} colour
 */
export function swatch(colour) {
  const node = make("i");
  node.style.background = rgb(colour);
  return node;
}

/**
 * @param {number} width
 * @param {number} height
 */
export function blank(width, height) {
  return make("canvas", { width, height });
}

/**
 * @param {HTMLCanvasElement} canvas
 * @returns {CanvasRenderingContext2D}
 */
export function contextOf(canvas) {
  return /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
}

/**
 * Show a picture on a canvas, which takes its size.
 * @param {HTMLCanvasElement} canvas
 * @param {Raster} raster
 */
export function paint(canvas, { width, height, data }) {
  Object.assign(canvas, { width, height });
  contextOf(canvas).putImageData(new ImageData(data, width, height), 0, 0);
  return canvas;
}

/**
 * @param {number} share
 * @param {number} [digits]
 */
export function percent(share, digits = 0) {
  return `${(100 * share).toFixed(digits)} %`;
}

/** @param {number[]} colour */
export function rgb(colour) {
  return `rgb(${colour.join(", ")})`;
}

/**
 * Say whether a key press belongs to a field that somebody types in, or to the browser.
 * @param {KeyboardEvent} event
 */
export function isTaken(event) {
  const { tagName } = /** @type {Element} */ (event.target);
  return /^(SELECT|INPUT|TEXTAREA)$/.test(tagName) || event.ctrlKey || event.metaKey || event.altKey;
}
