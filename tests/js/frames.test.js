import assert from "node:assert/strict";
import { test } from "node:test";
import { atStep, strips } from "../../robviz/viewer/js/frames.js";
import { LAYERS, paintable } from "../../robviz/viewer/js/layers.js";

const mask = (label) => Uint8Array.of(label, label);

function frame() {
  const pictures = { image: {}, before: mask(0), after: mask(3), reference: mask(0) };
  return { data: {}, pictures, masks: [mask(1), mask(2), mask(3)], final: pictures.after, isPast: false };
}

test("masks that lie one below the other come apart", () => {
  assert.deepEqual(
    strips(Uint8Array.of(1, 1, 2, 2, 3, 3), 3).map((part) => [...part]),
    [
      [1, 1],
      [2, 2],
      [3, 3],
    ],
  );
});

test("an earlier step shows its own mask, and the last one the result", () => {
  const shown = frame();
  const past = atStep(shown, 1);
  assert.ok(past.isPast);
  assert.deepEqual([...past.pictures.after], [2, 2]);
  const last = atStep(past, 2);
  assert.ok(!last.isPast);
  assert.equal(last.pictures.after, shown.final);
});

test("a layer whose picture is not there gives way to the picture", () => {
  const { pictures } = frame();
  assert.equal(paintable("perturbation", pictures), "image");
  assert.equal(paintable("errors", pictures), "errors");
});

test("each layer wipes between two layers that there are", () => {
  for (const { wipe } of Object.values(LAYERS)) for (const side of wipe) assert.ok(side in LAYERS, side);
});
