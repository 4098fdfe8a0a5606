// @ts-check
// What the tables of numbers have in common: a frame, headings, and cells whose colour says how much.

import { make } from "./dom.js";

/**
 * A table that scrolls within its frame, with a line of text below.
 * @param {string} className
 */
export function framed(className) {
  const table = make("table");
  const note = make("p", { className: "rv-note" });
  const root = make("div", { className: `rv ${className}` }, make("div", { className: "rv-scroll" }, table), note);
  return { root, table, note };
}

/**
 * The heading of a row or of a column.
 * @param {"row" | "col"} scope
 * @param {string} title
 * @param {Node} [content]
 */
export function heading(scope, title, content) {
  return make("th", { scope, title }, content ?? title);
}

/**
 * Write a share in per cent; the less there is, the darker the cell.
 * @template {HTMLElement} Cell
 * @param {Cell} cell
 * @param {number} share
 * @param {boolean} [isLeast] marked by a diamond
 */
export function shade(cell, share, isLeast = false) {
  cell.textContent = `${(100 * share).toFixed(1)}${isLeast ? " ◆" : ""}`;
  return tone(cell, 1 - share);
}

/**
 * Colour a cell from pale to dark blue, its text in black or white, whichever is easier to read.
 * @template {HTMLElement} Cell
 * @param {Cell} cell
 * @param {number} darkness in [0, 1]
 */
export function tone(cell, darkness) {
  cell.style.background = `color-mix(in oklab, #00365c ${Math.round(100 * darkness)}%, #e8f1f8)`;
  cell.style.color = darkness > 0.62 ? "#fff" : "#000"; // there, both have a contrast of 4.5
  return cell;
}

/**
 * Let one of the buttons of a table be the pressed one.
 * @param {HTMLTableElement} table
 * @param {(button: HTMLButtonElement) => boolean} isChosen
 */
export function press(table, isChosen) {
  const buttons = [...table.querySelectorAll("button")];
  for (const one of buttons) one.setAttribute("aria-pressed", String(isChosen(one)));
  return buttons.find(isChosen);
}
