// @ts-check
// The viewer in words: scores, the pixel under the pointer, and what the colours mean.

import { button, make, percent, swatch } from "./dom.js";
import { FATES, fates, shares, VOID } from "./pixels.js";

/** @import { Frame } from "./frames.js" */
/** @import { Decoded } from "./layers.js" */
/** @import { Score } from "./payloads.js" */
/** @import { LinkedViewer } from "./viewer.js" */
/** @import { Pixel } from "./viewport.js" */

/** A row of scores. */
export function scoreRow() {
  const root = make("div", { className: "rv-scores" });
  /** @param {Score} score */
  const card = ({ name, label, value }) =>
    make("div", { className: "rv-score", dataset: { score: name } }, make("span", {}, label), make("b", {}, value));
  return {
    root,
    /** @param {Score[]} scores */
    show: (scores) => root.replaceChildren(...scores.map(card)),
  };
}

/** What the model sees in one pixel. */
export function reading() {
  const root = make("output", { className: "rv-reading", "aria-label": "pixel under the pointer" });

  /**
   * @param {Frame} frame
   * @param {"before" | "after" | "reference"} mask
   * @param {number} i
   */
  function named({ data, pictures }, mask, i) {
    const label = pictures[mask][i];
    return label === VOID ? ["no label"] : [swatch(data.palette[label]), data.classes[label]];
  }

  /**
   * @param {Frame} frame
   * @param {"before" | "after"} mask
   * @param {number} i
   */
  function seen(frame, mask, i) {
    const isUnknown = frame.isPast && mask === "after";
    const confidence = isUnknown ? undefined : frame.pictures[`confidence_${mask}`];
    const sure = confidence ? [make("small", {}, percent(confidence[i] / 255))] : [];
    return make("span", { dataset: { read: mask } }, ...named(frame, mask, i), ...sure);
  }

  /**
   * @param {Frame | null} frame
   * @param {Pixel | null} point
   */
  function show(frame, point) {
    if (!frame || !point) {
      root.replaceChildren(make("span", { className: "rv-hint" }, "Point at a pixel to read it."));
      return;
    }
    const { column, row } = point;
    const i = row * frame.pictures.image.width + column;
    const reference = [make("small", {}, "reference "), ...named(frame, "reference", i)];
    root.replaceChildren(
      seen(frame, "before", i),
      " → ",
      seen(frame, "after", i),
      make("span", { dataset: { read: "reference" } }, ...reference),
      make("small", { dataset: { read: "place" } }, `x ${column}, y ${row}`),
    );
  }

  return { root, show };
}

/**
 * The classes of a frame, as buttons that hide and show them.
 * @param {LinkedViewer} viewer
 */
export function classLegend(viewer) {
  const root = make("div", { className: "rv-legend", role: "group", "aria-label": "classes" });
  /** @type {Map<number, HTMLButtonElement>} */
  let chips = new Map();

  /** @param {number} label */
  function toggle(label) {
    const hidden = new Set(viewer.state.hidden);
    if (!hidden.delete(label)) hidden.add(label);
    viewer.restyle({ hidden });
  }

  /**
   * Show a class alone, or all of them if it is alone already.
   * @param {number} label
   */
  function solo(label) {
    const { hidden } = viewer.state;
    const others = (viewer.shown?.data.classes ?? []).map((_, other) => other).filter((other) => other !== label);
    const isAlone = !hidden.has(label) && others.every((other) => hidden.has(other));
    viewer.restyle({ hidden: new Set(isAlone ? [] : others) });
  }

  /** @param {number} label */
  function chip(label) {
    const node = button("", "", (event) => (event.altKey ? solo(label) : toggle(label)), {
      className: "rv-chip",
      title: "click: hide or show; double click or Alt + click: this one alone",
      dataset: { label },
    });
    node.ondblclick = () => solo(label);
    return node;
  }

  /** @param {Set<number>} hidden */
  function mark(hidden) {
    for (const [label, node] of chips) node.setAttribute("aria-pressed", String(!hidden.has(label)));
  }

  /**
   * @param {Frame} frame
   * @param {Set<number>} hidden
   */
  function show({ data: { classes, palette }, pictures }, hidden) {
    const [before, after, reference] = [pictures.before, pictures.after, pictures.reference].map((mask) =>
      shares(mask, classes.length),
    );
    const present = classes
      .map((_, label) => label)
      .filter((label) => before[label] || after[label] || reference[label]);
    chips = new Map(present.map((label) => [label, chips.get(label) ?? chip(label)]));
    for (const [label, node] of chips) {
      const [was, is] = [percent(before[label]), percent(after[label])];
      const name = make("span", {}, classes[label]);
      node.replaceChildren(swatch(palette[label]), name, " ", make("small", {}, `${was} → ${is}`));
      node.title = `${classes[label]} ${was} → ${is} of the pixels, before and after`;
    }
    root.replaceChildren(...chips.values());
    mark(hidden);
  }

  return { root, show, mark };
}

/** What became of the pixels, and how many. */
export function fateLegend() {
  const root = make("div", { className: "rv-scale rv-fates" });

  /** @param {Decoded} pictures */
  function show(pictures) {
    const labelled = fates(pictures).filter((fate) => fate !== VOID);
    const found = shares(labelled, FATES.length);
    const entries = FATES.map(({ name, colour }, i) =>
      make("span", {}, swatch(colour), name, make("small", {}, percent(found[i], 1))),
    );
    root.replaceChildren(...entries);
  }

  return { root, show };
}

/** The scale of confidence. */
export function confidenceLegend() {
  return make("div", { className: "rv-scale rv-confidence" }, "unsure", make("i"), "sure");
}
