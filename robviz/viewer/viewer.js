// The linked viewer: a picture before and after an attack, in panes that zoom and point together.
// viewer(element, data) fills the element and returns a handle; handle.update(data) shows the next frame in place.
// data is what robviz.viewer.viewer_data makes. Names of classes are only ever set as text.

const VOID = 255;
const MOST_ZOOM = 64, MOST_PANES = 6;

// ------------------------------------------------------------------------------------------------ small pieces

function make(tag, properties = {}, ...children) {
  const { dataset, ...rest } = properties;
  const node = Object.assign(document.createElement(tag), rest);
  for (const key of Object.keys(rest)) if (key.includes("-") || key === "role") node.setAttribute(key, rest[key]);
  Object.assign(node.dataset, dataset);
  node.append(...children);
  return node;
}

function blank(width, height) {
  return Object.assign(document.createElement("canvas"), { width, height });
}

// The RGBA bytes of a PNG data URL, untouched by colour management.
async function decode(url) {
  const bytes = Uint8Array.from(atob(url.slice(url.indexOf(",") + 1)), (letter) => letter.charCodeAt(0));
  const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const bitmap = await createImageBitmap(new Blob([bytes], { type: url.slice(5, url.indexOf(";")) }), options);
  const context = blank(bitmap.width, bitmap.height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height);
}

// The first channel: class numbers, or confidence.
function numbers(picture) {
  const values = new Uint8Array(picture.width * picture.height);
  for (let i = 0; i < values.length; i++) values[i] = picture.data[4 * i];
  return values;
}

const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)} %`;
const rgb = (colour) => `rgb(${colour.join(", ")})`;
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

// ------------------------------------------------------------------------------------------------ colours

// How a class colour meets the picture below it: (picture, grey, colour, opacity) -> value of one channel.
const BLENDS = {
  "over grey": (picture, grey, colour, opacity) => (1 - opacity) * grey + opacity * colour,
  "over the picture": (picture, grey, colour, opacity) => (1 - opacity) * picture + opacity * colour,
  multiply: (picture, grey, colour, opacity) => (1 - opacity) * picture + (opacity * picture * colour) / 255,
};

// Whether a pixel of a class belongs to its pattern: classes can be told without colours.
const STRIPES = [(x, y) => x + y, (x, y) => x - y + 4096, (x) => x, (x, y) => y];
const inHatch = (label, x, y) => label > 0 && STRIPES[(label - 1) % 4](x, y) % (5 + 3 * ((label - 1) >> 2)) < 2;

const FILLS = ["plain", "hatched", "outlines"];

// Class colours over a picture. labels: Uint8Array, VOID for none. style: palette, opacity, blend, fill, hidden.
function tint(image, labels, style) {
  const { width, height, data } = image;
  const { palette, opacity = 0.7, blend = "over grey", fill = "plain", hidden = new Set() } = style;
  const painted = new ImageData(width, height), mix = BLENDS[blend];
  const differs = (label, j) => j >= 0 && j < labels.length && labels[j] !== label;
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const label = labels[i], at = 4 * i;
      const grey = (data[at] + data[at + 1] + data[at + 2]) / 3;
      const isBare = label === VOID || hidden.has(label);
      const isEdge = fill === "outlines" && (
        (x > 0 && differs(label, i - 1)) || (x + 1 < width && differs(label, i + 1)) ||
        differs(label, i - width) || differs(label, i + width)
      );
      const share = isBare || (fill === "outlines" && !isEdge) ? 0 : isEdge ? 1 : opacity;
      const isDark = fill === "hatched" && !isBare && inHatch(label, x, y);
      const colour = palette[label];
      for (let channel = 0; channel < 3; channel++) {
        const value = mix(data[at + channel], grey, share ? colour[channel] : 0, share);
        painted.data[at + channel] = isDark ? 0.45 * value : value;
      }
      painted.data[at + 3] = 255;
    }
  }
  return painted;
}

// What became of a pixel, in the order of the legend.
const FATES = [
  { name: "right before and after", colour: [70, 70, 70] },
  { name: "newly wrong", colour: [255, 160, 40] },
  { name: "wrong both times", colour: [70, 120, 200] },
  { name: "repaired", colour: [0, 190, 140] },
];

function fates({ reference, before, after }) {
  return reference.map((label, i) =>
    label === VOID ? VOID : after[i] === label ? (before[i] === label ? 0 : 3) : before[i] === label ? 1 : 2,
  );
}

function errorMap(pictures) {
  const image = pictures.image, found = fates(pictures), painted = new ImageData(image.width, image.height);
  for (let i = 0, at = 0; i < found.length; i++, at += 4) {
    const dimmed = 0.15 * (image.data[at] + image.data[at + 1] + image.data[at + 2]);
    const isMarked = found[i] > 0 && found[i] !== VOID;
    for (let channel = 0; channel < 3; channel++) {
      const value = isMarked ? 0.3 * dimmed + 0.75 * FATES[found[i]].colour[channel] : dimmed;
      painted.data[at + channel] = value;
    }
    painted.data[at + 3] = 255;
  }
  return painted;
}

function perturbation({ image, attacked }, gain) {
  const painted = new ImageData(image.width, image.height);
  for (let at = 0; at < painted.data.length; at++) {
    painted.data[at] = at % 4 === 3 ? 255 : 127.5 + gain * (attacked.data[at] - image.data[at]);
  }
  return painted;
}

// Dark violet to yellow, of even steps in lightness.
const SCALE = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];

function confidenceMap(values, { width, height }) {
  const painted = new ImageData(width, height);
  for (let i = 0; i < values.length; i++) {
    const place = (values[i] / 255) * (SCALE.length - 1), low = Math.min(Math.floor(place), SCALE.length - 2);
    for (let channel = 0; channel < 3; channel++) {
      painted.data[4 * i + channel] = SCALE[low][channel] + (place - low) * (SCALE[low + 1][channel] - SCALE[low][channel]);
    }
    painted.data[4 * i + 3] = 255;
  }
  return painted;
}

// ------------------------------------------------------------------------------------------------ the layers

// To add a layer, add its row. paint: (pictures, style) -> ImageData. needs: what decides it. wipe: what lies on
// either side of the divider, where it is called `side`.
const LAYERS = {
  image: { label: "picture", paint: (p) => p.image, needs: [], wipe: ["image", "attacked"] },
  before: { label: "mask of the picture", side: "before", paint: (p, s) => tint(p.image, p.before, s), needs: ["mask"], wipe: ["before", "after"] },
  after: { label: "mask of the attacked picture", side: "after", paint: (p, s) => tint(p.image, p.after, s), needs: ["mask"], wipe: ["before", "after"] },
  attacked: { label: "attacked picture", side: "attacked", paint: (p) => p.attacked, needs: [], wipe: ["image", "attacked"] },
  errors: { label: "what broke", paint: errorMap, needs: [], wipe: ["image", "errors"] },
  perturbation: { label: "perturbation, amplified", side: "perturbation", paint: (p, s) => perturbation(p, s.gain), needs: ["gain"], wipe: ["image", "perturbation"] },
  reference: { label: "reference mask", paint: (p, s) => tint(p.image, p.reference, s), needs: ["mask"], wipe: ["reference", "after"] },
  confidence_before: { label: "confidence", side: "before", paint: (p) => confidenceMap(p.confidence_before, p.image), needs: [], wipe: ["confidence_before", "confidence_after"] },
  confidence_after: { label: "confidence, attacked", side: "after", paint: (p) => confidenceMap(p.confidence_after, p.image), needs: [], wipe: ["confidence_before", "confidence_after"] },
};
// The picture without which a layer cannot be painted; not every frame has all of them.
const SOURCES = { perturbation: "attacked", errors: "reference" };
const canPaint = (layer, pictures) => (SOURCES[layer] ?? layer) in pictures;
const NUMBERS = ["before", "after", "reference", "confidence_before", "confidence_after"];

const KEYS = [
  ["1 … 9", "layer of the pane in use"],
  ["w", "wipe between before and after"],
  ["+  −", "zoom"],
  ["← ↑ → ↓", "move about"],
  ["Shift + arrows", "move the crosshair"],
  ["0", "whole picture"],
  ["f", "plain, hatched, outlines"],
  ["e", "save the pane as PNG"],
  ["b", "a region: drag a box, or b at two corners of the crosshair; b again: whole picture"],
  ["?", "this help; Esc closes it"],
  ["wheel, pinch, drag", "zoom and move; a double click shows the whole picture"],
  ["click on a class", "hide or show it; double click or Alt + click: it alone"],
];

// ------------------------------------------------------------------------------------------------ the viewer

function viewer(element, data) {
  const state = {
    panes: [], active: 0, scale: 1, x: 0.5, y: 0.5, point: null, // x, y: shown centre, in shares of the picture
    opacity: 0.7, blend: "over grey", fill: "plain", hidden: new Set(), gain: null,
    region: null, isBoxing: false, corner: null, // region: [left, top, right, bottom], in pixels
  };
  let shown = null; // the frame on screen: data, pictures
  let painted = new Map(); // layer -> canvas, coloured once per change
  let latest = 0, isDue = false;
  const timings = { colour: 0, draw: 0 };

  // -------------------------------------------------------------- elements

  const scores = make("div", { className: "rv-scores" });
  const grid = make("div", { className: "rv-panes" });
  const reading = make("output", { className: "rv-reading", "aria-label": "pixel under the pointer" });
  const fateLegend = make("div", { className: "rv-scale rv-fates" });
  const scaleLegend = make("div", { className: "rv-scale rv-confidence" },
    "unsure", make("i"), "sure");
  const legend = make("div", { className: "rv-legend", role: "group", "aria-label": "classes" });
  const note = make("p", { className: "rv-note" });
  const help = make("dialog", { className: "rv-help", "aria-label": "keys" });
  const choice = (label, options, onchange) => {
    const select = make("select", { onchange: () => onchange(select.value), "aria-label": label },
      ...options.map((name) => make("option", { value: name }, name)));
    return make("label", {}, make("span", {}, label), select);
  };
  const slider = (label, low, high, step, oninput) => {
    const input = make("input", { type: "range", min: low, max: high, step, "aria-label": label });
    input.oninput = () => oninput(Number(input.value));
    return make("label", {}, make("span", {}, label), input);
  };
  const button = (text, label, onclick, properties = {}) =>
    make("button", { type: "button", title: label, "aria-label": label, onclick, ...properties }, text);
  const boxer = button("▭", "draw a region", () => startBox(), { "aria-pressed": "false", dataset: { tool: "region" } });
  const opacity = slider("mask", 0, 1, 0.05, (value) => restyle({ opacity: value }));
  const blend = choice("laid", Object.keys(BLENDS), (value) => restyle({ blend: value }));
  const fill = choice("fill", FILLS, (value) => restyle({ fill: value }));
  const gain = slider("× 1", 1, 128, 1, (value) => setGain(value));
  const tools = make("div", { className: "rv-tools" }, opacity, blend, fill, gain,
    make("div", { className: "rv-buttons" },
      button("−", "one pane less", () => setPanes(state.panes.length - 1), { dataset: { tool: "less" } }),
      button("+", "one pane more", () => setPanes(state.panes.length + 1), { dataset: { tool: "more" } }),
      button("1 : 1", "whole picture", () => look(1, 0.5, 0.5), { dataset: { tool: "whole" } }),
      boxer,
      button("?", "keys", () => toggleHelp(), { dataset: { tool: "help" } })));
  const moment = make("output");
  const scrubber = make("input", { type: "range", min: 0, step: 1, "aria-label": "step of the attack", oninput: () => scrub(Number(scrubber.value)) });
  const time = make("label", { className: "rv-time" }, make("span", {}, "over the attack’s steps"), scrubber, moment);
  time.hidden = true;
  const root = make("div", { className: "rv", onkeydown: onKey }, scores, grid, time, reading, fateLegend, scaleLegend,
    legend, tools, note, help);
  opacity.lastChild.value = state.opacity;
  help.append(make("h3", {}, "Keys"), make("dl", {}, ...KEYS.flatMap(([key, what]) => [make("dt", {}, key), make("dd", {}, what)])),
    button("Close", "close", () => help.close()));

  function addPane(layer) {
    const pane = { layer, wipe: null };
    const index = () => state.panes.indexOf(pane);
    pane.select = make("select", { "aria-label": "layer", onchange: () => setLayer(pane, pane.select.value) },
      ...Object.entries(LAYERS).map(([name, row]) => make("option", { value: name }, row.label)));
    pane.wiper = button("◧", "wipe between before and after", () => setWipe(pane, pane.wipe === null ? 0.5 : null),
      { "aria-pressed": "false", dataset: { tool: "wipe" } });
    pane.canvas = make("canvas", { tabIndex: 0, role: "img" });
    pane.sides = make("div", { className: "rv-sides" }, make("span"), make("span"));
    pane.sides.hidden = true;
    pane.figure = make("figure", { onfocusin: () => activate(index()) },
      make("figcaption", {}, pane.select, pane.wiper,
        button("⤓", "save as PNG", () => save(pane), { dataset: { tool: "save" } })),
      make("div", { className: "rv-stage" }, pane.canvas, pane.sides));
    listen(pane);
    resizes.observe(pane.canvas);
    state.panes.push(pane);
    grid.append(pane.figure);
    setLayer(pane, layer);
  }

  function setPanes(count) {
    if (count < 1 || count > MOST_PANES) return;
    while (state.panes.length > count) state.panes.pop().figure.remove();
    const spare = Object.keys(LAYERS).filter((name) => !state.panes.some((pane) => pane.layer === name));
    while (state.panes.length < count) addPane(spare.shift());
    grid.dataset.panes = count;
    activate(clamp(state.active, 0, count - 1));
    redraw();
  }

  // -------------------------------------------------------------- what the controls do

  function setLayer(pane, layer) {
    if (shown && !canPaint(layer, shown.pictures)) layer = "image";
    Object.assign(pane, { layer });
    pane.select.value = layer;
    pane.figure.dataset.layer = layer;
    describe(pane);
    const shows = (...names) => state.panes.some((other) => names.includes(other.layer));
    gain.hidden = !shows("perturbation");
    fateLegend.hidden = !shows("errors");
    scaleLegend.hidden = !shows("confidence_before", "confidence_after");
    redraw();
  }

  function describe(pane) {
    const [left, right] = LAYERS[pane.layer].wipe.map((name) => LAYERS[name].side ?? LAYERS[name].label);
    const what = pane.wipe === null ? LAYERS[pane.layer].label : `${left}, wiped to ${right}`;
    pane.canvas.setAttribute("aria-label", `${what}; press ? for keys`);
    pane.sides.firstChild.textContent = left;
    pane.sides.lastChild.textContent = right;
  }

  function setWipe(pane, wipe) {
    pane.wipe = wipe;
    pane.sides.hidden = wipe === null;
    pane.wiper.setAttribute("aria-pressed", String(wipe !== null));
    describe(pane);
    redraw();
  }

  function activate(index) {
    state.active = index;
    state.panes.forEach((pane, i) => pane.figure.classList.toggle("rv-active", i === index));
  }

  function restyle(changes) {
    Object.assign(state, changes);
    blend.lastChild.value = state.blend;
    fill.lastChild.value = state.fill;
    for (const [name, row] of Object.entries(LAYERS)) if (row.needs.includes("mask")) painted.delete(name);
    redraw();
  }

  function setGain(value) {
    state.gain = value;
    gain.lastChild.value = value;
    gain.firstChild.textContent = `× ${value}`;
    painted.delete("perturbation");
    redraw();
  }

  // A region is told to whoever listens on the element, which says so by `data-regions`.
  function startBox() {
    if (state.region || state.isBoxing) return setRegion(null);
    state.isBoxing = true;
    boxer.setAttribute("aria-pressed", "true");
  }

  function setRegion(region) {
    Object.assign(state, { region, isBoxing: false, corner: null });
    boxer.setAttribute("aria-pressed", String(region !== null));
    element.dispatchEvent(new CustomEvent("region", { detail: region }));
    redraw();
  }

  function boxTo({ x, y }, isDone) {
    const { width, height } = shown.pictures.image;
    const column = clamp(Math.floor(x * width), 0, width - 1), row = clamp(Math.floor(y * height), 0, height - 1);
    state.corner ??= [column, row];
    const [c, r] = state.corner;
    state.region = [Math.min(c, column), Math.min(r, row), Math.max(c, column) + 1, Math.max(r, row) + 1];
    if (isDone) setRegion(state.region);
    redraw();
  }

  function keyBox() {
    if (!state.isBoxing && !boxer.hidden) startBox();
    if (!state.isBoxing) return;
    const { width, height } = shown.pictures.image;
    const { column, row } = state.point ?? { column: Math.floor(state.x * width), row: Math.floor(state.y * height) };
    boxTo({ x: (column + 0.5) / width, y: (row + 0.5) / height }, state.corner !== null);
  }

  // The mask of a step instead of the last one.
  function scrub(i) {
    const { data: { trail }, masks } = shown, isLast = i === trail.steps.length - 1;
    shown.pictures = { ...shown.pictures, after: isLast ? shown.final : masks[i] };
    shown.isPast = !isLast;
    painted.delete("after");
    painted.delete("errors");
    moment.textContent = `step ${trail.steps[i]}, ${percent(trail.accuracy[i], 1)} of the pixels right`;
    scrubber.setAttribute("aria-valuetext", moment.textContent);
    fillLegend();
    read();
    redraw();
  }

  function toggleHelp() {
    if (help.open) help.close();
    else help.showModal();
  }

  function save(pane) {
    layerCanvas(pane.layer).toBlob((blob) => {
      const link = make("a", { href: URL.createObjectURL(blob), download: `robviz-${pane.layer}.png` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    }, "image/png");
  }

  // -------------------------------------------------------------- zoom and pan, the same in every pane

  function look(scale, x, y) {
    state.scale = clamp(scale, 1, MOST_ZOOM);
    const half = 0.5 / state.scale;
    state.x = clamp(x, half, 1 - half);
    state.y = clamp(y, half, 1 - half);
    root.classList.toggle("rv-zoomed", state.scale > 1);
    redraw();
  }

  // Where a pointer is: in shares of the pane, and of the picture.
  function place(canvas, event) {
    const box = canvas.getBoundingClientRect();
    const u = (event.clientX - box.left) / box.width, v = (event.clientY - box.top) / box.height;
    return { u, v, x: state.x + (u - 0.5) / state.scale, y: state.y + (v - 0.5) / state.scale };
  }

  function zoom(factor, at) {
    const scale = clamp(state.scale * factor, 1, MOST_ZOOM);
    look(scale, at.x - (at.u - 0.5) / scale, at.y - (at.v - 0.5) / scale);
  }

  function point(x, y) {
    const { width, height } = shown.pictures.image;
    const column = Math.floor(x * width), row = Math.floor(y * height);
    const isInside = column >= 0 && row >= 0 && column < width && row < height;
    state.point = isInside ? { column, row } : null;
    read();
    redraw();
  }

  function listen(pane) {
    const { canvas } = pane, pointers = new Map();
    let isWiping = false;
    canvas.addEventListener("wheel", (event) => {
      if (event.deltaY > 0 && state.scale === 1) return; // the page scrolls
      event.preventDefault();
      zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.002)), place(canvas, event));
    }, { passive: false });
    canvas.addEventListener("dblclick", () => look(1, 0.5, 0.5));
    canvas.addEventListener("pointerdown", (event) => {
      const at = place(canvas, event);
      pointers.set(event.pointerId, at);
      canvas.setPointerCapture(event.pointerId);
      isWiping = !state.isBoxing && pane.wipe !== null && Math.abs(at.u - pane.wipe) < 0.06;
      if (state.isBoxing && shown) boxTo(at, false);
      if (shown) point(at.x, at.y);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!shown) return;
      const now = place(canvas, event), before = pointers.get(event.pointerId);
      if (state.isBoxing && before) boxTo(now, false);
      else if (isWiping) setWipe(pane, clamp(now.u, 0, 1));
      else if (before && pointers.size === 1) look(state.scale, state.x - (now.u - before.u) / state.scale, state.y - (now.v - before.v) / state.scale);
      else if (before && pointers.size === 2) pinch(pointers, event.pointerId, now);
      if (before) pointers.set(event.pointerId, now);
      canvas.classList.toggle("rv-wiping", pane.wipe !== null && Math.abs(now.u - pane.wipe) < 0.06);
      const { x, y } = place(canvas, event);
      point(x, y);
    });
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => {
        pointers.delete(event.pointerId);
        isWiping = false;
        if (state.isBoxing && state.corner) boxTo(place(canvas, event), true);
      });
    }
    canvas.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse" && !pointers.size) point(-1, -1);
    });
  }

  function pinch(pointers, moved, now) {
    const [id] = [...pointers.keys()].filter((other) => other !== moved);
    const still = pointers.get(id), before = pointers.get(moved);
    const distance = (a) => Math.hypot(a.u - still.u, a.v - still.v);
    const middle = { u: (now.u + still.u) / 2, v: (now.v + still.v) / 2 };
    middle.x = state.x + (middle.u - 0.5) / state.scale;
    middle.y = state.y + (middle.v - 0.5) / state.scale;
    zoom(distance(now) / Math.max(distance(before), 1e-3), middle);
  }

  function movePoint(right, down) {
    const { width, height } = shown.pictures.image;
    const from = state.point ?? { column: Math.floor(state.x * width), row: Math.floor(state.y * height) };
    const column = clamp(from.column + right, 0, width - 1), row = clamp(from.row + down, 0, height - 1);
    point((column + 0.5) / width, (row + 0.5) / height);
  }

  function onKey(event) {
    const pane = state.panes[state.active], isTyping = /^(SELECT|INPUT)$/.test(event.target.tagName);
    if (!shown || isTyping || event.ctrlKey || event.metaKey || event.altKey || (help.open && event.key !== "?")) return;
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const centre = { u: 0.5, v: 0.5, x: state.x, y: state.y };
    const keys = {
      "+": () => zoom(1.5, centre), "=": () => zoom(1.5, centre), "-": () => zoom(1 / 1.5, centre),
      0: () => look(1, 0.5, 0.5),
      w: () => setWipe(pane, pane.wipe === null ? 0.5 : null),
      f: () => restyle({ fill: FILLS[(FILLS.indexOf(state.fill) + 1) % FILLS.length] }),
      e: () => save(pane),
      b: keyBox,
      "?": toggleHelp,
    };
    Object.keys(LAYERS).forEach((layer, i) => (keys[i + 1] = () => setLayer(pane, layer)));
    if (event.key in arrows && event.target.tagName === "CANVAS") {
      const [right, down] = arrows[event.key], far = 0.1 / state.scale;
      if (event.shiftKey) movePoint(right, down);
      else look(state.scale, state.x + right * far, state.y + down * far);
    } else if (event.key in keys) keys[event.key]();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  // -------------------------------------------------------------- words: reading, legends, scores

  function swatch(colour) {
    const node = make("i");
    node.style.background = rgb(colour);
    return node;
  }

  function read() {
    if (!state.point) return reading.replaceChildren(make("span", { className: "rv-hint" }, "Point at a pixel to read it."));
    const { pictures, data: { classes, palette } } = shown;
    const { column, row } = state.point, i = row * pictures.image.width + column;
    const named = (label) => (label === VOID ? ["no label"] : [swatch(palette[label]), classes[label]]);
    const sure = (mask) => {
      const confidence = shown.isPast && mask === "after" ? null : pictures[`confidence_${mask}`];
      return confidence ? [make("small", {}, percent(confidence[i] / 255))] : [];
    };
    const seen = (mask) => [...named(pictures[mask][i]), ...sure(mask)];
    reading.replaceChildren(
      make("span", { dataset: { read: "before" } }, ...seen("before")), " → ",
      make("span", { dataset: { read: "after" } }, ...seen("after")),
      make("span", { dataset: { read: "reference" } }, make("small", {}, "reference "), ...named(pictures.reference[i])),
      make("small", { dataset: { read: "place" } }, `x ${column}, y ${row}`));
  }

  function toggle(label) {
    const hidden = new Set(state.hidden);
    if (!hidden.delete(label)) hidden.add(label);
    showOnly(hidden);
  }

  function solo(label) {
    const others = shown.data.classes.map((_, other) => other).filter((other) => other !== label);
    const isAlone = others.every((other) => state.hidden.has(other)) && !state.hidden.has(label);
    showOnly(new Set(isAlone ? [] : others));
  }

  function showOnly(hidden) {
    restyle({ hidden });
    for (const chip of legend.children) {
      chip.setAttribute("aria-pressed", String(!hidden.has(Number(chip.dataset.label))));
    }
  }

  function shares(labels, classes) {
    const found = new Array(classes).fill(0);
    for (const label of labels) found[label]++;
    return found.map((count) => count / labels.length);
  }

  function chip(label) {
    const node = button("", "", () => {}, { className: "rv-chip", dataset: { label } });
    node.onclick = (event) => (event.altKey ? solo(label) : toggle(label));
    node.ondblclick = () => solo(label);
    return node;
  }

  function fillLegend() {
    const { data: { classes, palette }, pictures } = shown;
    const [before, after, reference] = ["before", "after", "reference"].map((mask) => shares(pictures[mask], classes.length));
    const present = classes.map((_, label) => label).filter((label) => before[label] || after[label] || reference[label]);
    const chips = new Map([...legend.children].map((node) => [Number(node.dataset.label), node]));
    legend.replaceChildren(...present.map((label) => {
      const node = chips.get(label) ?? chip(label);
      node.replaceChildren(swatch(palette[label]), make("span", {}, classes[label]),
        make("small", {}, `${percent(before[label])} → ${percent(after[label])}`));
      node.title = "click: hide or show; double click or Alt + click: this one alone";
      node.setAttribute("aria-label", `${classes[label]}, ${percent(before[label])} of the pixels before, ${percent(after[label])} after`);
      node.setAttribute("aria-pressed", String(!state.hidden.has(label)));
      return node;
    }));
    const found = shares(fates(pictures).filter((fate) => fate !== VOID), FATES.length);
    fateLegend.replaceChildren(...FATES.map((fate, i) =>
      make("span", {}, swatch(fate.colour), fate.name, make("small", {}, percent(found[i], 1)))));
  }

  function fillScores() {
    scores.replaceChildren(...shown.data.scores.map(({ name, label, value }) =>
      make("div", { className: "rv-score", dataset: { score: name } }, make("span", {}, label), make("b", {}, value))));
    note.textContent = shown.data.note;
    root.dataset.final = String(shown.data.is_final);
  }

  // -------------------------------------------------------------- drawing

  function layerCanvas(layer) {
    if (!painted.has(layer)) {
      const started = performance.now(), { image } = shown.pictures;
      const canvas = blank(image.width, image.height);
      const style = { ...state, palette: shown.data.palette };
      canvas.getContext("2d").putImageData(LAYERS[layer].paint(shown.pictures, style), 0, 0);
      painted.set(layer, canvas);
      timings.colour = performance.now() - started;
    }
    return painted.get(layer);
  }

  function drawPane(pane) {
    const { canvas } = pane, context = canvas.getContext("2d");
    const { width, height } = shown.pictures.image;
    const zoomed = (canvas.width / width) * state.scale; // screen pixels per pixel
    const left = canvas.width * (0.5 - state.x * state.scale), top = canvas.height * (0.5 - state.y * state.scale);
    const put = (layer, from, to) => {
      context.save();
      context.beginPath();
      context.rect(from * canvas.width, 0, (to - from) * canvas.width, canvas.height);
      context.clip();
      context.drawImage(layerCanvas(canPaint(layer, shown.pictures) ? layer : "image"), left, top, canvas.width * state.scale, canvas.height * state.scale);
      context.restore();
    };
    context.imageSmoothingEnabled = zoomed < 3;
    context.imageSmoothingQuality = "high";
    if (pane.wipe === null) put(pane.layer, 0, 1);
    else {
      const [before, after] = LAYERS[pane.layer].wipe;
      put(before, 0, pane.wipe);
      put(after, pane.wipe, 1);
      drawDivider(context, pane.wipe * canvas.width);
    }
    if (state.region) {
      const [x1, y1, x2, y2] = state.region, down = (canvas.height / height) * state.scale;
      for (const [colour, dash] of [["#000", []], ["#fff", [6 * devicePixelRatio]]]) {
        context.strokeStyle = colour;
        context.lineWidth = 2 * devicePixelRatio;
        context.setLineDash(dash);
        context.strokeRect(left + x1 * zoomed, top + y1 * down, (x2 - x1) * zoomed, (y2 - y1) * down);
      }
      context.setLineDash([]);
    }
    if (state.point) {
      const x = left + (state.point.column + 0.5) * zoomed;
      const y = top + ((state.point.row + 0.5) / height) * canvas.height * state.scale;
      drawCrosshair(context, x, y, zoomed);
    }
  }

  function drawDivider(context, x) {
    const { height } = context.canvas, pixel = devicePixelRatio;
    context.fillStyle = "#fff";
    context.shadowColor = "rgba(0, 0, 0, 0.6)";
    context.shadowBlur = 4 * pixel;
    context.fillRect(x - pixel, 0, 2 * pixel, height);
    context.beginPath();
    context.arc(x, height / 2, 11 * pixel, 0, 2 * Math.PI);
    context.fill();
    context.shadowBlur = 0;
    context.fillStyle = "#333";
    for (const side of [-1, 1]) {
      context.beginPath();
      context.moveTo(x + side * 7 * pixel, height / 2);
      context.lineTo(x + side * 3 * pixel, height / 2 - 4 * pixel);
      context.lineTo(x + side * 3 * pixel, height / 2 + 4 * pixel);
      context.fill();
    }
  }

  function drawCrosshair(context, x, y, zoomed) {
    const { width, height } = context.canvas, gap = Math.max(6 * devicePixelRatio, zoomed / 2);
    for (const [colour, thickness] of [["rgba(0, 0, 0, 0.6)", 3], ["rgba(255, 255, 255, 0.9)", 1]]) {
      context.strokeStyle = colour;
      context.lineWidth = thickness * devicePixelRatio;
      context.beginPath();
      for (const [x1, y1, x2, y2] of [[0, y, x - gap, y], [x + gap, y, width, y], [x, 0, x, y - gap], [x, y + gap, x, height]]) {
        context.moveTo(x1, y1);
        context.lineTo(x2, y2);
      }
      if (zoomed > 8) context.rect(x - zoomed / 2, y - zoomed / 2, zoomed, zoomed);
      context.stroke();
    }
  }

  function draw() {
    isDue = false;
    if (!shown) return;
    const started = performance.now();
    for (const pane of state.panes) if (pane.canvas.width) drawPane(pane);
    timings.draw = performance.now() - started;
  }

  function redraw() {
    if (isDue) return;
    isDue = true;
    requestAnimationFrame(draw);
  }

  function fit({ target }) {
    const box = target.getBoundingClientRect();
    const width = Math.round(box.width * devicePixelRatio), height = Math.round(box.height * devicePixelRatio);
    if (target.width !== width || target.height !== height) Object.assign(target, { width, height });
  }
  const resizes = new ResizeObserver((entries) => {
    entries.forEach(fit);
    draw(); // at once: a resized canvas is empty
  });

  // -------------------------------------------------------------- frames

  // Show another frame; only pictures that differ from those on screen are decoded. Late ones are dropped.
  async function update(next) {
    root.hidden = !next.pictures;
    if (root.hidden) return;
    const turn = ++latest, old = shown;
    const pictures = Object.fromEntries(await Promise.all(Object.entries(next.pictures).map(async ([name, url]) => {
      if (old && old.data.pictures[name] === url) return [name, name === "after" ? old.final : old.pictures[name]];
      const picture = await decode(url);
      return [name, NUMBERS.includes(name) ? numbers(picture) : picture];
    })));
    const { trail } = next, strip = trail && numbers(await decode(trail.masks));
    if (turn !== latest) return;
    const { width, height } = pictures.image;
    const isOther = !shown || shown.pictures.image.width !== width || shown.pictures.image.height !== height;
    if (!shown || String(shown.data.classes) !== String(next.classes)) state.hidden = new Set();
    const gainBefore = shown?.data.eps;
    const size = width * height, masks = trail?.steps.map((_, i) => strip.subarray(i * size, (i + 1) * size));
    shown = { data: next, pictures, masks, final: pictures.after, isPast: false };
    time.hidden = !trail;
    if (trail) {
      scrubber.max = trail.steps.length - 1;
      scrubber.value = scrubber.max;
      moment.textContent = "the result";
    }
    painted = new Map();
    for (const pane of state.panes) {
      for (const option of pane.select.options) option.disabled = !canPaint(option.value, pictures);
      if (!canPaint(pane.layer, pictures)) setLayer(pane, "image");
    }
    grid.style.setProperty("--ratio", width / height);
    if (isOther) look(1, 0.5, 0.5);
    if (gainBefore !== next.eps) setGain(Math.max(1, Math.round(0.5 / Math.max(next.eps, 1 / 255))));
    fillScores();
    fillLegend();
    read();
    redraw();
  }

  element.replaceChildren(root);
  for (const layer of ["image", "before", "after"]) addPane(layer);
  grid.dataset.panes = 3;
  activate(2);
  read();
  boxer.hidden = !element.dataset.regions;
  const handle = { update, draw, layerCanvas, setRegion, scrub, state, timings };
  element.robviz = handle;
  handle.ready = update(data);
  return handle;
}
