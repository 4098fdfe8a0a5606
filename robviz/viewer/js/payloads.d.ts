// What Python sends, ready for JSON. robviz/viewer/payloads.py has the same records under the same names, and a test
// holds both alike. Pictures are data URLs; colours are RGB in 0 .. 255; shares are in [0, 1].

export interface Pictures {
  image: string;
  before: string;
  after: string;
  reference: string;
  change?: string;
  confidence_before?: string;
  confidence_after?: string;
}

export interface Trail {
  masks: string;
  steps: number[];
  accuracy: number[];
}

export interface Score {
  name: string;
  label: string;
  value: string;
}

export interface ViewerData {
  pictures: Pictures;
  trail: Trail | null;
  classes: string[];
  palette: number[][];
  eps: number;
  scores: Score[];
  note: string;
  is_final: boolean;
}

export interface LandingPhoto {
  name: string;
  title: string;
  image: string;
  masks: Record<string, string>;
  accuracy: Record<string, number[]>;
}

export interface LandingModel {
  name: string;
  title: string;
  accent: string;
}

export interface LandingData {
  photos: LandingPhoto[];
  models: LandingModel[];
  eps: number[];
  classes: string[];
  palette: number[][];
  made: string;
}

export interface LossCard {
  description: string;
  curves: number[][];
}

export interface LossesData {
  losses: Record<string, LossCard>;
  probabilities: number[];
  chosen: string;
}

export interface GalleryCard {
  row: number;
  title: string;
  lines: string[];
  picture: string | null;
}

export interface GalleryData {
  cards: GalleryCard[];
  first: number;
  total: number;
  page: number;
  pages: number;
  note: string;
}

export interface MatrixData {
  classes: string[];
  labels: number[];
  counts: number[][];
  note: string;
}

export interface HeatmapCell {
  row: number;
  right: number;
  won: boolean;
}

export interface HeatmapRow {
  title: string;
  clean: number;
  cells: HeatmapCell[];
}

export interface HeatmapData {
  columns: string[];
  rows: HeatmapRow[];
  note: string;
}

export interface TextTable {
  title: string;
  columns: string[];
  rows: string[][];
}

export interface FailuresData {
  scores: Score[];
  doubts: string[];
  missing: string;
  classes: string[];
  gallery: GalleryData;
  views: Record<string, ViewerData>;
  matrix: MatrixData;
  flips: number[][];
  tables: TextTable[];
}

export interface WhyPane {
  title: string;
  caption: string;
  url: string;
}

export interface WhyLogits {
  name: string;
  colour: number[];
  logits: number[];
  probabilities: number[];
  isTarget: boolean;
}

export interface WhyData {
  panes: WhyPane[];
  size: number[];
  point: number[] | null;
  scale: string | null;
  done: number | null;
  logits: WhyLogits[];
  note: string;
}

export interface EnsembleRow {
  name: string;
  cells: number[] | null;
  least: boolean[] | null;
  state: string;
}

export interface EnsembleData {
  columns: string[];
  rows: EnsembleRow[];
  last: string;
  views: Record<string, ViewerData>;
}

export interface TransferColumn {
  title: string;
  source: string;
}

export interface TransferCell {
  name: string;
  right: number | null;
  state: string;
}

export interface TransferRow {
  name: string;
  cells: TransferCell[];
}

export interface TransferData {
  columns: TransferColumn[];
  rows: TransferRow[];
  verdict: string;
  views: Record<string, ViewerData>;
  first: string;
}

export interface SweepPoint {
  name: string;
  eps: number;
  accuracy: number;
  miou: number;
  change: number;
  steps: number;
}

export interface SweepCurve {
  name: string;
  points: SweepPoint[];
}

export interface LuckPoint {
  eps: number;
  accuracy: number;
  miou: number;
  change: number;
}

export interface LuckCurve {
  model: string;
  corruption: string;
  points: LuckPoint[];
}

export interface SmallestRadius {
  model: string;
  eps: number | null;
  flipped: number;
  share: number;
  steps: number;
}

export interface SweepData {
  eps: number[];
  curves: SweepCurve[];
  luck: LuckCurve[];
  smallest: SmallestRadius[];
  views: Record<string, ViewerData>;
  last: string | null;
  state: string;
  note: string;
}

export interface TrainingRound {
  url: string;
  caption: string;
}

export interface TrainingData {
  size: number[];
  rounds: TrainingRound[];
  done: number | null;
  note: string;
}
