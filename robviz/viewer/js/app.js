// @ts-check
// What the app's page calls: `robviz.<view>(element, data, chosen)`. To add a view, add it here.

import { ensemble } from "./ensemble.js";
import { gallery } from "./gallery.js";
import { heatmap } from "./heatmap.js";
import { landing } from "./landing.js";
import { matrix } from "./matrix.js";
import { mounted } from "./mount.js";
import { sweep } from "./sweep.js";
import { training } from "./training.js";
import { transfer } from "./transfer.js";
import { viewer } from "./viewer.js";
import { why } from "./why.js";

window.robviz = {
  ensemble: mounted(ensemble),
  gallery: mounted(gallery),
  heatmap: mounted(heatmap),
  landing: mounted(landing),
  matrix: mounted(matrix),
  sweep: mounted(sweep),
  training: mounted(training),
  transfer: mounted(transfer),
  viewer: mounted(viewer),
  why: mounted(why),
};
