// The first view: one photograph, two models, and a radius to scrub; everything was computed beforehand.
// landing(element, data) fills the element; data is what robviz.landing.landing_data makes.

const PLAYED = [4, 4500]; // plays from 0 up to this radius, in 1/255, within so many milliseconds
const MARGIN = { left: 44, right: 16, top: 10, bottom: 34 }, CHART = 170;

function draws(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function landing(element, data) {
  const { photos, models, eps: grid, classes, palette } = data;
  const last = grid[grid.length - 1];
  const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const state = { photo: 0, eps: 0 };
  const loaded = new Map(); // photo -> promise of { image, cells: model -> canvas of every radius }
  let current = null, animation = 0, width = 600;

  // -------------------------------------------------------------- elements

  const panes = models.map((model) => {
    const canvas = make("canvas", { role: "img" }), number = make("b");
    const figure = make("figure", { dataset: { model: model.name } },
      make("figcaption", {}, make("strong", {}, model.title), make("span", { className: "rv-right" }, number, " of pixels right")),
      make("div", { className: "rv-stage" }, canvas));
    figure.style.setProperty("--accent", `var(--${model.accent})`);
    return { model, canvas, number, figure };
  });
  const thumbs = photos.map((photo, i) => make("button", {
    type: "button", className: "rv-thumb", title: photo.title, "aria-label": `photograph: ${photo.title}`, onclick: () => choose(i),
  }, make("img", { src: photo.image, alt: "" })));
  const radius = make("output", { className: "rv-radius" });
  const range = make("input", {
    type: "range", min: 0, max: last, step: "any", value: 0, "aria-label": "ε, how far each pixel value may change, in 1/255",
  });
  const play = make("button", { type: "button", "aria-label": "play", title: "play", onclick: () => start() }, "▶");
  const chart = draws("svg", { class: "rv-chart", height: CHART, "aria-hidden": "true" });
  const legend = make("div", { className: "rv-names", "aria-label": "colours" });
  element.replaceChildren(make("section", { className: "rv-landing", "aria-label": "two models under attack" },
    make("div", { className: "rv-thumbs", role: "group", "aria-label": "photographs" }, ...thumbs),
    make("div", { className: "rv-two" }, ...panes.map((pane) => pane.figure)),
    legend,
    make("div", { className: "rv-scrub" },
      make("div", { className: "rv-scrub-head" }, play, radius),
      make("div", { className: "rv-range" }, range), chart),
    make("p", { className: "rv-note" }, data.made)));

  // -------------------------------------------------------------- motion

  function stop() {
    cancelAnimationFrame(animation);
    play.textContent = "▶";
  }

  // Move to a radius within so many milliseconds.
  function glide(to, milliseconds, then = () => {}) {
    stop();
    if (isStill || document.hidden) return show(to), then();
    const from = state.eps, began = performance.now();
    const step = (now) => {
      const t = clamp((now - began) / milliseconds, 0, 1);
      show(from + (to - from) * (t < 0.5 ? 2 * t * t : 1 - 2 * (1 - t) ** 2));
      if (t < 1) animation = requestAnimationFrame(step);
      else then();
    };
    animation = requestAnimationFrame(step);
  }

  function start() {
    const isPlaying = play.textContent === "❚❚";
    stop();
    if (isPlaying) return settle();
    if (state.eps >= PLAYED[0]) show(0);
    const to = PLAYED[0];
    glide(to, PLAYED[1], stop);
    if (!isStill) play.textContent = "❚❚";
  }

  const nearest = () => grid.reduce((best, eps, i) => (Math.abs(eps - state.eps) < Math.abs(grid[best] - state.eps) ? i : best), 0);
  const settle = () => glide(grid[nearest()], 120);

  range.addEventListener("input", () => {
    stop();
    show(Number(range.value));
  });
  range.addEventListener("change", settle);
  range.addEventListener("keydown", (event) => {
    const at = nearest(), ends = { Home: 0, End: grid.length - 1 };
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageUp: 3, PageDown: -3 };
    if (!(event.key in steps) && !(event.key in ends)) return;
    event.preventDefault();
    glide(grid[clamp(ends[event.key] ?? at + steps[event.key], 0, grid.length - 1)], 180);
  });
  chart.addEventListener("pointerdown", (event) => {
    chart.setPointerCapture(event.pointerId);
    stop();
    scrub(event);
  });
  chart.addEventListener("pointermove", (event) => event.buttons && scrub(event));
  chart.addEventListener("pointerup", settle);

  function scrub(event) {
    const share = (event.clientX - chart.getBoundingClientRect().left - MARGIN.left) / (width - MARGIN.left - MARGIN.right);
    show(clamp(share, 0, 1) * last);
  }

  // -------------------------------------------------------------- photographs and their masks

  // The masks lie one below the other in one picture.
  async function load(photo) {
    const image = await decode(photo.image), size = image.width * image.height;
    const cells = {}, present = new Set();
    for (const { name } of models) {
      const labels = numbers(await decode(photo.masks[name]));
      labels.forEach((label) => present.add(label));
      cells[name] = grid.map((_, i) => {
        const canvas = blank(image.width, image.height);
        canvas.getContext("2d").putImageData(tint(image, labels.subarray(i * size, (i + 1) * size), { palette }), 0, 0);
        return canvas;
      });
    }
    return { image, cells, present: [...present].sort((a, b) => a - b) };
  }

  async function choose(i) {
    state.photo = i;
    thumbs.forEach((thumb, j) => thumb.setAttribute("aria-pressed", String(i === j)));
    if (!loaded.has(i)) loaded.set(i, load(photos[i]));
    const found = await loaded.get(i);
    if (state.photo !== i) return;
    current = found;
    legend.replaceChildren(...found.present.map((label) => {
      const dot = make("i");
      dot.style.background = rgb(palette[label]);
      return make("span", {}, dot, classes[label]);
    }));
    for (const { canvas } of panes) Object.assign(canvas, { width: found.image.width, height: found.image.height });
    plot();
    show(state.eps);
  }

  // -------------------------------------------------------------- drawing

  const xOf = (eps) => MARGIN.left + (eps / last) * (width - MARGIN.left - MARGIN.right);
  const yOf = (share) => MARGIN.top + (1 - share) * (CHART - MARGIN.top - MARGIN.bottom);
  const marker = draws("g", { class: "rv-marker" });

  function plot() {
    chart.setAttribute("viewBox", `0 0 ${width} ${CHART}`);
    chart.setAttribute("width", width);
    range.parentNode.style.padding = `0 ${MARGIN.right - 9}px 0 ${MARGIN.left - 9}px`;
    const lines = [0, 0.5, 1].flatMap((share) => [
      draws("line", { class: "rv-line", x1: MARGIN.left, x2: width - MARGIN.right, y1: yOf(share), y2: yOf(share) }),
      draws("text", { x: MARGIN.left - 8, y: yOf(share) + 4, "text-anchor": "end" }, percent(share))]);
    const ticks = [0, 2, 4, 6, 8, 10, 12].filter((eps) => eps <= last).map((eps) =>
      draws("text", { x: xOf(eps), y: CHART - MARGIN.bottom + 18, "text-anchor": "middle" }, eps));
    const curves = models.flatMap(({ name, accent }) => {
      const accuracy = photos[state.photo].accuracy[name], points = grid.map((eps, i) => `${xOf(eps)},${yOf(accuracy[i])}`);
      const area = `${xOf(0)},${yOf(0)} ${points.join(" ")} ${xOf(last)},${yOf(0)}`;
      const colour = `var(--${accent})`;
      return [draws("polygon", { points: area, style: `fill: ${colour}`, opacity: 0.1 }),
        draws("polyline", { class: "rv-curve", points: points.join(" "), style: `stroke: ${colour}` }),
        ...grid.map((eps, i) => draws("circle", { cx: xOf(eps), cy: yOf(accuracy[i]), r: 3, style: `fill: ${colour}` }))];
    });
    const axis = draws("text", { x: width - MARGIN.right, y: CHART - 2, "text-anchor": "end", class: "rv-axis" }, "ε, in 1/255");
    const right = draws("text", { x: MARGIN.left, y: CHART - 2, class: "rv-axis" }, "pixels right");
    chart.replaceChildren(...lines, ...ticks, ...curves, axis, right, marker);
  }

  function show(eps) {
    state.eps = eps;
    const at = nearest(), photo = photos[state.photo];
    range.value = eps;
    radius.replaceChildren("ε = ", make("b", {}, String(grid[at])), "/255");
    const words = models.map(({ name, title }) => `${title}: ${percent(photo.accuracy[name][at])} of the pixels right`);
    range.setAttribute("aria-valuetext", `${grid[at]} / 255. ${words.join(". ")}`);
    if (!current) return;
    const high = Math.max(1, grid.findIndex((value) => value >= eps)), low = high - 1;
    const t = (eps - grid[low]) / (grid[high] - grid[low]);
    for (const { model, canvas, number } of panes) {
      const context = canvas.getContext("2d"), cells = current.cells[model.name];
      context.globalAlpha = 1;
      context.drawImage(cells[low], 0, 0);
      context.globalAlpha = t * t * (3 - 2 * t);
      context.drawImage(cells[high], 0, 0);
      number.textContent = percent(photo.accuracy[model.name][at]);
      canvas.setAttribute("aria-label", `${photo.title}, ${words[models.indexOf(model)]} at ε = ${grid[at]}/255`);
    }
    marker.replaceChildren(
      draws("line", { x1: xOf(eps), x2: xOf(eps), y1: MARGIN.top, y2: CHART - MARGIN.bottom }),
      ...models.map(({ name, accent }) => {
        const accuracy = photo.accuracy[name];
        const y = yOf(accuracy[low] + t * (accuracy[high] - accuracy[low]));
        return draws("circle", { cx: xOf(eps), cy: y, r: 6, style: `fill: var(--${accent})` });
      }));
  }

  new ResizeObserver(([entry]) => {
    width = Math.max(240, Math.round(entry.contentRect.width));
    plot();
    show(state.eps);
  }).observe(chart.parentNode);

  const ready = choose(0).then(() => {
    element.dataset.painted = String(Math.round(performance.now())); // milliseconds since the page was asked for
    start();
    photos.forEach((photo, i) => loaded.has(i) || setTimeout(() => loaded.set(i, loaded.get(i) ?? load(photo)), 800 * i));
  });
  const handle = { state, choose, show, ready };
  element.robviz = handle;
  return handle;
}
