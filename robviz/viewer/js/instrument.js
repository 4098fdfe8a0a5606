// @ts-check
// The app's page around the views: pictures that are dropped or pasted, the theme, and the bar that all views share.

import { landing } from "./landing.js";

/** @import { LandingData } from "./payloads.js" */

/** @returns {ReturnType<typeof landing> | undefined} the first view, once it is there, painted or not */
function firstView() {
  const host = document.querySelector("#landing .rv-landing")?.parentElement;
  return /** @type {{ robviz?: ReturnType<typeof landing> } | null} */ (host)?.robviz;
}

/**
 * The first view, whose radius is that of the bar.
 * @param {HTMLElement} element
 * @param {LandingData} data
 */
export function overview(element, data) {
  element.addEventListener("radius", (event) => write("#eps", /** @type {CustomEvent<number>} */ (event).detail));
  const view = landing(element, data);
  const photo = /** @type {HTMLInputElement | null} */ (document.querySelector("#photo input:checked"));
  if (photo) view.follow(photo.value);
  const eps = /** @type {HTMLInputElement | null} */ (document.querySelector('#eps input[type="number"]'));
  if (eps) view.aim(Number(eps.value));
  return view;
}

/** @param {string} photo */
export function followPhoto(photo) {
  firstView()?.follow(photo);
  bringIntoRow(document.querySelector(`#photo input[value="${CSS.escape(photo)}"]`)?.closest("label"));
}

/**
 * Scroll a row sideways, and nothing else, until one of its parts is in its middle, if it is not all in sight.
 * @param {HTMLElement | null | undefined} part
 */
function bringIntoRow(part) {
  const row = part?.parentElement;
  if (!row) return;
  const [its, all] = [part.getBoundingClientRect(), row.getBoundingClientRect()];
  if (its.left >= all.left && its.right <= all.right) return;
  row.scrollLeft += (its.left + its.right - all.left - all.right) / 2;
}

/** @param {number} eps in 1/255 */
export function followEps(eps) {
  const view = firstView();
  if (view && document.activeElement !== view.range) view.aim(eps);
}

/**
 * Write a number into a widget, as if somebody had typed it.
 * @param {string} selector
 * @param {number} value
 */
function write(selector, value) {
  const field = /** @type {HTMLInputElement | null} */ (document.querySelector(`${selector} input[type="number"]`));
  if (!field || Number(field.value) === value) return;
  field.value = String(value);
  for (const type of ["input", "change", "blur"]) field.dispatchEvent(new Event(type, { bubbles: true }));
}

/**
 * Click the link of a file that has just been made.
 * @param {string} id of the button that holds it
 */
export function download(id) {
  /** @type {HTMLElement | null} */ (document.querySelector(`#${id} a, a#${id}, button#${id}`))?.click();
}

/** Let pictures be dropped or pasted anywhere. */
export function takePictures() {
  document.addEventListener("dragover", (event) => {
    if (event.dataTransfer?.types.includes("Files")) event.preventDefault();
  });
  document.addEventListener("drop", (event) => {
    if (!event.dataTransfer?.files.length) return;
    event.preventDefault();
    upload(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData?.files.length) upload(event.clipboardData.files);
  });
}

/** @param {FileList} files the first of which is uploaded */
function upload(files) {
  const field = /** @type {HTMLInputElement | null} */ (
    document.querySelector('input[type="file"][data-testid^="Own picture"]')
  );
  if (!field) return;
  const chosen = new DataTransfer();
  chosen.items.add(files[0]);
  field.files = chosen.files;
  field.dispatchEvent(new Event("change", { bubbles: true }));
}

/** Change between the light and the dark theme. */
export function switchTheme() {
  document.body.classList.toggle("dark");
}
