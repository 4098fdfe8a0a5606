// @ts-check
// The results of an evaluation: its figures, its worst pictures with the linked viewer, and which class became which.

import { button, make } from "./dom.js";
import { gallery } from "./gallery.js";
import { scoreRow } from "./legend.js";
import { matrix } from "./matrix.js";
import { framed, heading } from "./tables.js";
import { viewer } from "./viewer.js";

/** @import { FailuresData, TextTable } from "./payloads.js" */

const PANES = 4; // the attacked picture as well, where there is one

/**
 * Fill an element. All that it shows lies in the data.
 * @param {HTMLElement} element
 * @param {FailuresData} data
 */
export function failures(element, data) {
  const scores = scoreRow();
  scores.show(data.scores);
  const missing = make("p", { className: "rv-missing", hidden: !data.missing }, data.missing);
  const worst = data.gallery.cards.length ? worstPictures(data) : null;
  const tables = make("div", { className: "rv-tables" }, ...data.tables.map(tableOf));
  const parts = [doubtful(data.doubts), scores.root, missing, ...(worst ? [worst.root] : []), tables];
  const root = make("div", { className: "rv rv-failures" }, ...parts);
  element.replaceChildren(root);

  function destroy() {
    worst?.destroy();
    root.remove();
  }

  return { destroy };
}

/** @param {string[]} doubts */
function doubtful(doubts) {
  const lines = doubts.map((doubt) => make("p", {}, doubt));
  return make(
    "div",
    { className: "rv-doubts", role: "note", "aria-label": "doubts", hidden: !doubts.length },
    ...lines,
  );
}

/** @param {TextTable} data */
function tableOf({ title, columns, rows }) {
  const { root, table } = framed("rv-figures");
  const [head, ...others] = columns;
  const names = make("tr", {}, make("th", { scope: "col" }, head), ...others.map((name) => heading("col", name)));
  const lines = rows.map(([name, ...cells]) =>
    make("tr", {}, heading("row", name), ...cells.map((cell) => make("td", {}, cell))),
  );
  table.append(make("thead", {}, names), make("tbody", {}, ...lines));
  const scroll = /** @type {HTMLElement} */ (table.parentElement);
  Object.assign(scroll, { tabIndex: 0 }); // so that the arrow keys scroll it
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", title);
  return make("section", {}, make("h2", {}, title), root);
}

/**
 * Cards, the viewer of the one that is chosen, and the matrix, whose cells narrow the cards.
 * @param {FailuresData} data
 */
function worstPictures(data) {
  const [cards, view, flips] = [make("div"), make("div"), make("div")];
  const narrowed = make("p", { className: "rv-narrowed", hidden: true });
  const all = data.gallery;
  const shown = viewer(view, data.views[all.cards[0].row]);
  shown.ready.then(() => shown.setPanes("change" in data.views[all.cards[0].row].pictures ? PANES : PANES - 1));
  const list = gallery(cards, all, (what) => {
    if ("row" in what) shown.update(data.views[what.row]);
  });
  list.mark(0);

  function widen() {
    narrowed.hidden = true;
    list.update(all);
  }

  /** @param {{ label: number, seen_as: number }} pair */
  function narrow({ label, seen_as }) {
    const pixels = new Map(
      data.flips
        .filter(([, was, became]) => was === label && became === seen_as)
        .map(([row, , , count]) => [row, count]),
    );
    const broken = all.cards
      .filter(({ row }) => pixels.has(row))
      .sort((a, b) => (pixels.get(b.row) ?? 0) - (pixels.get(a.row) ?? 0));
    const [was, became] = [label, seen_as].map((number) => data.classes[number]);
    const back = button("Show all", "show all pictures", widen);
    narrowed.replaceChildren(`${was} predicted as ${became}: ${broken.length} of the pictures here. `, back);
    narrowed.hidden = false;
    list.update({ ...all, cards: broken, total: broken.length });
    if (!broken.length) return;
    list.mark(0);
    shown.update(data.views[broken[0].row]);
  }

  const cells = matrix(flips, data.matrix, narrow);
  const which = make("section", { hidden: !data.matrix.classes.length });
  which.append(make("h2", {}, "Which class became which"), flips);
  const left = make("div", {}, narrowed, cards);
  const linked = make("div", { className: "rv-linked" }, left, make("div", {}, view, which));
  const root = make("section", {}, make("h2", {}, "The worst pictures"), linked);

  function destroy() {
    list.destroy();
    shown.destroy();
    cells.destroy();
  }

  return { root, destroy };
}
