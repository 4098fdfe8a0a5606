// @ts-check
// Cards of the attacked pictures of an evaluation, to look through.

import { button, isTaken, make } from "./dom.js";

/** @import { GalleryCard, GalleryData } from "./payloads.js" */

/**
 * Fill an element with cards. The handle's `update(data)` shows others, `mark(place)` marks one.
 * @param {HTMLElement} element
 * @param {GalleryData} data
 * @param {(what: { row: number } | { page: number }) => void} chosen when a card is opened, or another page is asked for
 */
export function gallery(element, data, chosen) {
  const list = make("div", { className: "rv-cards", role: "listbox", "aria-label": "pictures" });
  const count = make("span");
  const note = make("p", { className: "rv-note" });
  const back = button("◀", "cards before these", () => chosen({ page: shown.page - 1 }));
  const on = button("▶", "more cards", () => chosen({ page: shown.page + 1 }));
  const turns = make("div", { className: "rv-buttons" }, back, on);
  const root = make(
    "div",
    { className: "rv rv-gallery" },
    make("div", { className: "rv-count" }, count, turns),
    list,
    note,
  );
  const cards = () => /** @type {HTMLElement[]} */ ([...list.children]);
  let shown = data;
  let active = -1;

  /**
   * @param {number} place
   * @param {boolean} isFocused
   */
  function open(place, isFocused) {
    if (place < 0 || place >= shown.cards.length) return;
    mark(place);
    const card = cards()[place];
    if (isFocused) card.focus({ preventScroll: true });
    card.scrollIntoView({ block: "nearest" });
    chosen({ row: shown.cards[place].row });
  }

  /** @param {number} place */
  function mark(place) {
    active = place;
    cards().forEach((card, i) => {
      card.setAttribute("aria-selected", String(i === place));
      card.tabIndex = i === Math.max(place, 0) ? 0 : -1;
    });
  }

  /** @param {KeyboardEvent} event */
  function onKey(event) {
    const isInside = list.contains(/** @type {Node} */ (event.target));
    /** @type {Record<string, number>} */
    const steps = { n: 1, p: -1, ...(isInside ? { ArrowRight: 1, ArrowLeft: -1 } : {}) };
    if (!(event.key in steps) || isTaken(event) || !root.offsetParent) return;
    open(active + steps[event.key], isInside);
    event.preventDefault();
  }

  /**
   * @param {GalleryCard} card
   * @param {number} place
   */
  function cardOf({ row, title, lines, picture }, place) {
    return make(
      "button",
      { type: "button", role: "option", className: "rv-card", onclick: () => open(place, true), dataset: { row } },
      picture ? make("img", { src: picture, alt: "", loading: "lazy" }) : make("div", { className: "rv-blank" }),
      make("strong", {}, title),
      ...lines.map((line) => make("small", {}, line)),
    );
  }

  /** @param {GalleryData} next */
  function update(next) {
    const before = shown.cards[active]?.row;
    shown = next;
    list.replaceChildren(...next.cards.map(cardOf));
    mark(next.cards.findIndex((card) => card.row === before));
    const last = next.first + next.cards.length;
    count.textContent = next.total ? `${next.first + 1} – ${last} of ${next.total}` : "Nothing broke in this way.";
    back.disabled = next.page === 0;
    on.disabled = next.page + 1 >= next.pages;
    turns.hidden = next.pages < 2;
    note.textContent = next.note;
    note.hidden = !next.note;
  }

  function destroy() {
    document.removeEventListener("keydown", onKey);
    root.remove();
  }

  document.addEventListener("keydown", onKey);
  element.replaceChildren(root);
  update(data);
  return { update, mark, destroy };
}
