import assert from "node:assert/strict";
import { test } from "node:test";
import {
  bounded,
  boxBetween,
  dragged,
  layOut,
  movedPixel,
  nearestPixel,
  pinched,
  pixelAt,
  placeAt,
  WHOLE,
  zoomed,
} from "../../robviz/viewer/js/viewport.js";

const SIZE = { width: 8, height: 4 };
const VIEWS = [WHOLE, { scale: 2, x: 0.3, y: 0.6 }, { scale: 5, x: 0.7, y: 0.45 }];
const close = (actual, expected) => assert.ok(Math.abs(actual - expected) < 1e-9, `${actual} is not ${expected}`);

test("no view shows anything beyond the picture", () => {
  for (const scale of [0.1, 1, 3, 1000]) {
    for (const at of [-1, 0, 0.5, 2]) {
      const view = bounded({ scale, x: at, y: 1 - at });
      assert.ok(view.scale >= 1 && view.scale <= 64);
      for (const corner of [
        { u: 0, v: 0 },
        { u: 1, v: 1 },
      ]) {
        const { x, y } = placeAt(view, corner);
        assert.ok(x >= -1e-9 && x <= 1 + 1e-9 && y >= -1e-9 && y <= 1 + 1e-9);
      }
    }
  }
});

test("zooming in keeps the place under the pointer where it is", () => {
  for (const view of VIEWS) {
    const at = placeAt(view, { u: 0.4, v: 0.7 });
    const after = placeAt(zoomed(view, 2, at), at);
    close(after.x, at.x);
    close(after.y, at.y);
  }
});

test("zooming in and out again comes back, and zooming out ends at the whole picture", () => {
  const [, view] = VIEWS;
  const centre = placeAt(view, { u: 0.5, v: 0.5 });
  const back = zoomed(zoomed(view, 3, centre), 1 / 3, centre);
  close(back.scale, view.scale);
  close(back.x, view.x);
  assert.deepEqual(zoomed(view, 1e-3, centre), WHOLE);
});

test("a dragged picture follows the pointer", () => {
  const view = { scale: 4, x: 0.5, y: 0.5 };
  const [from, to] = [
    { u: 0.5, v: 0.5 },
    { u: 0.6, v: 0.4 },
  ];
  const held = placeAt(view, from);
  const after = placeAt(dragged(view, from, to), to);
  close(after.x, held.x);
  close(after.y, held.y);
});

test("two fingers that part zoom in by as much as their distance grows", () => {
  const still = { u: 0.4, v: 0.5 };
  close(pinched(WHOLE, still, { u: 0.5, v: 0.5 }, { u: 0.7, v: 0.5 }).scale, 3);
  close(pinched({ scale: 3, x: 0.5, y: 0.5 }, still, { u: 0.7, v: 0.5 }, { u: 0.6, v: 0.5 }).scale, 2);
  assert.ok(Number.isFinite(pinched(WHOLE, still, still, { u: 0.5, v: 0.5 }).scale));
});

test("every place of the picture belongs to one pixel, and none outside does", () => {
  assert.deepEqual(pixelAt({ x: 0, y: 0 }, SIZE), { column: 0, row: 0 });
  assert.deepEqual(pixelAt({ x: 0.999, y: 0.999 }, SIZE), { column: 7, row: 3 });
  for (const place of [
    { x: -0.01, y: 0.5 },
    { x: 0.5, y: 1 },
  ]) {
    assert.equal(pixelAt(place, SIZE), null);
  }
  assert.deepEqual(nearestPixel({ x: -3, y: 3 }, SIZE), { column: 0, row: 3 });
});

test("the crosshair stops at the edge", () => {
  assert.deepEqual(movedPixel({ column: 7, row: 0 }, 1, -1, SIZE), { column: 7, row: 0 });
  assert.deepEqual(movedPixel({ column: 3, row: 2 }, -1, 1, SIZE), { column: 2, row: 3 });
});

test("a box holds both of its corners, whichever is drawn first", () => {
  const [one, other] = [
    { column: 5, row: 1 },
    { column: 2, row: 3 },
  ];
  assert.deepEqual(boxBetween(one, other), [2, 1, 6, 4]);
  assert.deepEqual(boxBetween(other, one), [2, 1, 6, 4]);
  assert.deepEqual(boxBetween(one, one), [5, 1, 6, 2]);
});

test("the whole picture fills the canvas, and a zoomed one is centred where the view is", () => {
  const canvas = { width: 80, height: 40 };
  assert.deepEqual(layOut(WHOLE, canvas, SIZE), { left: 0, top: 0, width: 80, height: 40, across: 10, down: 10 });
  const { left, width } = layOut({ scale: 2, x: 0.25, y: 0.5 }, canvas, SIZE);
  close(left + 0.25 * width, 40);
});
