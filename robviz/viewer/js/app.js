// @ts-check
// What the app's page calls: `robviz.<view>(element, data, chosen)`. To add a view, add it here.

import { ensemble } from "./ensemble.js";
import { failures } from "./failures.js";
import { gallery } from "./gallery.js";
import { heatmap } from "./heatmap.js";
import { download, followEps, followPhoto, overview, switchTheme, takePictures } from "./instrument.js";
import { losses } from "./losses.js";
import { matrix } from "./matrix.js";
import { awaited, mounted } from "./mount.js";
import { sweep } from "./sweep.js";
import { training } from "./training.js";
import { transfer } from "./transfer.js";
import { viewer } from "./viewer.js";
import { why } from "./why.js";

window.robviz = {
  download,
  ensemble: awaited(ensemble),
  followEps,
  followPhoto,
  failures: mounted(failures),
  gallery: mounted(gallery),
  heatmap: mounted(heatmap),
  losses: mounted(losses),
  matrix: mounted(matrix),
  overview: mounted(overview),
  switchTheme,
  sweep: awaited(sweep),
  takePictures,
  training: awaited(training),
  transfer: awaited(transfer),
  viewer: awaited(viewer),
  why: awaited(why),
};
