// Why did it flip? A picture and its attacked version side by side, to click a pixel in, and what the model says there.
// data: what robviz.viewer.why.why_data makes. chosen({ x, y }) when a pixel is clicked. The handle's `update(data)`
// shows other data. Names of classes are only ever set as text.

function why(element, data, chosen) {
  const panes = make("div", { className: "rv-two" }), scale = make("div", { className: "rv-scale rv-diverging" });
  const bar = make("progress", { max: 1, "aria-label": "share of the work done" });
  const bars = make("div", { className: "rv-bars" }), note = make("p", { className: "rv-note" });
  const root = make("div", { className: "rv rv-why" }, panes, bar, scale, bars, note);

  function pane(picture) {
    const image = make("img", { src: picture.url, alt: `${picture.title}: ${picture.caption}`, draggable: false });
    const cross = make("span", { className: "rv-cross" });
    const stage = make("div", { className: "rv-stage" }, image, cross);
    const [width, height] = data.size;
    stage.style.setProperty("--ratio", width / height);
    cross.hidden = !data.point;
    if (data.point) {
      cross.style.left = `${(100 * (data.point[0] + 0.5)) / width}%`;
      cross.style.top = `${(100 * (data.point[1] + 0.5)) / height}%`;
    }
    image.onclick = (event) => {
      const box = image.getBoundingClientRect();
      const at = (share, side) => clamp(Math.floor(share * side), 0, side - 1);
      chosen({ x: at((event.clientX - box.left) / box.width, width), y: at((event.clientY - box.top) / box.height, height) });
    };
    return make("figure", {}, make("figcaption", {}, make("strong", {}, picture.title), make("span", {}, picture.caption)), stage);
  }

  function bars_of({ name, colour, logits, probabilities, isTarget }, low, high) {
    const swatch = make("i");
    swatch.style.background = rgb(colour);
    const line = (row, kind) => {
      const fill = make("span", { className: `rv-bar rv-${kind}` });
      fill.style.width = `${Math.max(1, (100 * (logits[row] - low)) / Math.max(high - low, 1e-6))}%`;
      return make("div", { className: "rv-line-of" }, make("small", {}, kind), make("div", { className: "rv-track" }, fill),
        make("b", {}, logits[row].toFixed(1)), make("small", {}, percent(probabilities[row])));
    };
    return make("div", { className: "rv-logit", dataset: { target: String(isTarget) } }, make("strong", {}, swatch, name),
      line(0, "clean"), line(1, "attacked"));
  }

  function update(next) {
    data = next;
    panes.replaceChildren(...data.panes.map(pane));
    bar.hidden = data.done === null || data.done === 1;
    bar.value = data.done ?? 0;
    scale.replaceChildren(`− ${data.scale}`, make("small", {}, "speaks against"), make("i"), make("small", {}, "speaks for the class"), `+ ${data.scale}`);
    scale.hidden = data.scale === null;
    const all = data.logits.flatMap((row) => row.logits), low = Math.min(0, ...all), high = Math.max(0, ...all);
    bars.replaceChildren(...data.logits.map((row) => bars_of(row, low, high)));
    note.textContent = data.note;
    root.dataset.done = data.done === null ? "" : String(data.done);
  }

  element.replaceChildren(root);
  update(data);
  return { update };
}
