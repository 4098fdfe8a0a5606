// @ts-check
// What the app's page calls: `robviz.<view>(element, data, chosen)`. To add a view, add it here.

import { ensemble } from "./ensemble.js";
import { failures } from "./failures.js";
import { gallery } from "./gallery.js";
import { heatmap } from "./heatmap.js";
import { landing } from "./landing.js";
import { matrix } from "./matrix.js";
import { mounted } from "./mount.js";
import { training } from "./training.js";
import { transfer } from "./transfer.js";
import { viewer } from "./viewer.js";
import { why } from "./why.js";

window.robviz = {
  ensemble: mounted(ensemble),
  failures: mounted(failures),
  gallery: mounted(gallery),
  heatmap: mounted(heatmap),
  landing: mounted(landing),
  matrix: mounted(matrix),
  training: mounted(training),
  transfer: mounted(transfer),
  viewer: mounted(viewer),
  why: mounted(why),
};
