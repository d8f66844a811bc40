// The live card of a job, drawn from the messages of scene.py. Loaded by anywidget; no build step, nothing fetched.
//
//   kernel ── scene: all, or what changed ──> Job.take ── lanes, failures, lines ──> each Card.draw, once a frame
//                                          (one per model)                        ├─ Stream  the lanes, on a canvas
//   kernel <── cancel, pause, resume, ── Job.cancel, ask, ping <── clicks, keys ──┤   hover, pin, keys
//              ping, want: all                                                    ├─ Slot    advice, notes, legend
//                                                                                 └─ Panels  durations, failures, output
//
// Times are whole numbers, UNITS for a second. Foreign text (names, items, errors, lines) is only ever set as
// textContent. Colours come from CSS variables, so that light and dark differ in one place. While a job runs the card keeps
// its height: there is room from the beginning for every worker, for a line of advice and for the open panel.

const ACK_MS = 300; // a kernel that can answer does so in some 70 ms
const PING_MS = 2000; // between two questions whether messages reach the kernel while its cell runs
const SAY_MS = 600; // between two things that a screen reader is told
const UNITS = 1000000;
const N_FIELDS = 10; // numbers in a mark, as engine/spans.py has them
const BEGIN = 0, END = 1, FIRST = 2, LAST = 3, TASKS = 4, FAILED = 5, WORK = 6, TONE = 7, SENT = 8, RECEIVED = 9;
const N_LINES = 200;
const THIN = 16, TINY = 24, HEAT = 48; // from so many lanes on: thin, without text, a heat strip
const HEAT_PX = 3; // width of a cell of the heat strip
const AXIS_PX = 18;
const ENDED = ["done", "failed", "cancelled"];

// --- looks -----------------------------------------------------------------------------------------------------------

// "-ink" are colours of text: 4.5:1 against --bg at least, which a test computes.
const STYLE = `
.nbpar-card { --bg: #ffffff; --ink: #1f2328; --soft: #5f6771; --line: #d8dee4; --lane: #f3f5f7; --task: #3b7dd8;
  --alt: #79aeea; --fail: #d55e00; --wait: #e9edf1; --start: #b3a4da; --init: #8a76c4; --run: #d3e5fa; --ok: #1a7f5a;
  --task-ink: #2563b8; --fail-ink: #b34a00; --ok-ink: #1a7f5a; --warn-ink: #7d5200; --warnbg: #fff6dd; --chip: #eef2f6;
  --mem: #8b949e; --mark: #1f2328; --tip: #ffffff;
  position: relative; box-sizing: border-box; max-width: 1080px; margin: 4px 0; padding: 12px 16px 12px;
  border: 1px solid var(--line); border-radius: 8px; background: var(--bg); color: var(--ink);
  font: 13px/1.4 system-ui, -apple-system, "Segoe UI", sans-serif; }
/* As wide as the picture that stays, which JupyterLab keeps off its right edge. */
.jp-OutputArea .nbpar-card { margin-right: 20px; }
.nbpar-card[data-dark] { --bg: #111418; --ink: #e6e9ed; --soft: #9aa4af; --line: #2d333b; --lane: #1b2027;
  --task: #4a8fe7; --alt: #2f6bb5; --fail: #ff8a3d; --wait: #232930; --start: #595080; --init: #8273b3; --run: #1f3853;
  --ok: #4cc38a; --task-ink: #6aa5f0; --fail-ink: #ff9d5c; --ok-ink: #4cc38a; --warn-ink: #f0c674; --warnbg: #2b2413;
  --chip: #20262e; --mem: #7d8590; --mark: #ffffff; --tip: #1b2027; }
.nbpar-card *, .nbpar-card *::before { box-sizing: border-box; }
.nbpar-card [hidden] { display: none !important; }
.nbpar-card button { font: inherit; color: inherit; background: none; border: 0; padding: 0; margin: 0;
  cursor: pointer; }
.nbpar-card :focus { outline: none; }
.nbpar-card :focus-visible { outline: 2px solid var(--task-ink); outline-offset: 1px; border-radius: 3px; }
.nbpar-out { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%);
  white-space: nowrap; }
.nbpar-head { display: flex; align-items: center; gap: 12px; height: 26px; }
.nbpar-name { flex: 1; min-width: 0; font-weight: 600; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.nbpar-hint { color: var(--warn-ink); overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
/* Those of the picture that stays, in both themes: white on each is 4.5:1 at least. */
.nbpar-status { font-weight: 600; color: #ffffff; background: #2b63b0; border-radius: 9px; padding: 0 9px; }
.nbpar-status[data-status=done] { background: #1a7f5a; }
.nbpar-status[data-status=failed] { background: #b3470a; }
.nbpar-status[data-status=paused] { background: #8a5a00; }
.nbpar-status[data-status=cancelled], .nbpar-status[data-status=waiting] { background: #5b6570; }
.nbpar-card .nbpar-button { font-size: 12px; color: var(--ink); background: var(--chip); height: 24px; min-width: 58px;
  border: 1px solid var(--line); border-radius: 5px; padding: 0 10px; }
.nbpar-card .nbpar-button:hover { border-color: var(--soft); }
.nbpar-card .nbpar-button[aria-disabled=true] { color: var(--soft); cursor: default; }
.nbpar-bar { position: relative; display: flex; height: 6px; margin: 8px 0 7px; border-radius: 3px; overflow: hidden;
  background: var(--wait); }
.nbpar-bar > * { width: 0; background: var(--task); }
.nbpar-bar[data-status=done] > :first-child { background: var(--ok); }
.nbpar-bar[data-status=paused] > :first-child,
.nbpar-bar[data-status=cancelled] > :first-child { background: var(--mem); }
.nbpar-bar > .nbpar-bar-failed { background: var(--fail); }
.nbpar-figures { display: flex; flex-wrap: wrap; gap: 0 20px; height: 20px; margin-bottom: 9px; overflow: hidden;
  font-variant-numeric: tabular-nums; color: var(--soft); }
.nbpar-figures > div { white-space: nowrap; }
.nbpar-figures b { font-weight: 400; color: var(--ink); }
.nbpar-figures > :first-child b, .nbpar-figures > .nbpar-gain b { font-weight: 600; }
.nbpar-figures > .nbpar-failed, .nbpar-figures > .nbpar-failed b { font-weight: 600; color: var(--fail-ink); }
.nbpar-stream { position: relative; display: grid; grid-template-columns: auto auto auto minmax(0, 1fr) auto;
  column-gap: 10px; }
.nbpar-side { font-size: 11.5px; color: var(--soft); white-space: nowrap; font-variant-numeric: tabular-nums; }
.nbpar-side > div { display: flex; gap: 12px; align-items: center; overflow: hidden; }
.nbpar-stream[data-rows=thin] > .nbpar-side { font-size: 10.5px; }
.nbpar-mem { justify-content: flex-end; min-width: 4.4em; }
.nbpar-side .nbpar-count { color: var(--ink); min-width: 1.8em; text-align: right; }
.nbpar-side .nbpar-now { text-align: right; overflow: hidden; text-overflow: ellipsis; }
.nbpar-side .nbpar-ended { text-decoration: line-through; }
.nbpar-lanes { position: relative; min-width: 0; cursor: crosshair; }
.nbpar-canvas, .nbpar-spark { display: block; width: 100%; }
.nbpar-spark { width: 52px; }
.nbpar-card[data-size=medium] .nbpar-now, .nbpar-card[data-size=narrow] .nbpar-now { display: none; }
.nbpar-card[data-size=narrow] .nbpar-busy, .nbpar-card[data-size=narrow] .nbpar-spark { display: none; }
.nbpar-card[data-size=narrow] .nbpar-mems { display: none; }
.nbpar-card[data-size=narrow] .nbpar-figures { height: 40px; gap: 0 14px; }
.nbpar-card[data-size=narrow] .nbpar-head { gap: 8px; }
.nbpar-card[data-size=narrow] .nbpar-stream { column-gap: 6px; }
.nbpar-card[data-size=narrow] { padding: 10px 12px; }
.nbpar-card[data-size=narrow] .nbpar-slot { min-height: 36px; }
.nbpar-card[data-size=narrow] .nbpar-legend { height: 36px; gap: 0 12px; line-height: 17px; }
/* The name has a line of its own: beside two buttons there is no room for it. */
.nbpar-card[data-tiny] .nbpar-head { display: grid; grid-template-columns: auto minmax(0, 1fr) auto auto; gap: 4px 8px;
  height: 50px; }
.nbpar-card[data-tiny] .nbpar-name { grid-column: 1 / -1; }
.nbpar-card[data-tiny] .nbpar-status { order: 1; }
.nbpar-card[data-tiny] .nbpar-hint { order: 2; }
.nbpar-card[data-tiny] .nbpar-button { order: 3; }
.nbpar-tip { position: absolute; z-index: 3; max-width: min(440px, 94%); padding: 5px 10px 6px; font-size: 12px;
  line-height: 1.45; background: var(--tip); border: 1px solid var(--line); border-radius: 6px; pointer-events: none;
  box-shadow: 0 3px 12px rgba(0, 0, 0, .16); font-variant-numeric: tabular-nums; }
.nbpar-said > div { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.nbpar-said > :first-child { font-weight: 600; }
.nbpar-said > .nbpar-bad { color: var(--fail-ink); }
.nbpar-said > .nbpar-dim { color: var(--soft); }
.nbpar-said > .nbpar-item { font: 11px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.nbpar-pin { pointer-events: auto; z-index: 4; padding-right: 30px; border-color: var(--soft); }
.nbpar-pin > .nbpar-said > div { white-space: normal; overflow-wrap: anywhere; }
.nbpar-card .nbpar-close { position: absolute; top: 3px; right: 5px; width: 20px; height: 20px; color: var(--soft); }
.nbpar-card .nbpar-close:hover { color: var(--ink); }
.nbpar-slot { position: relative; min-height: 28px; margin-top: 6px; }
.nbpar-legend { display: flex; flex-wrap: wrap; gap: 0 16px; height: 28px; align-items: center; overflow: hidden;
  font-size: 11.5px; color: var(--soft); }
.nbpar-legend > span { display: flex; align-items: center; gap: 6px; }
.nbpar-legend i { width: 18px; height: 10px; border-radius: 2px; color: #fff; font: 700 9px/10px sans-serif;
  text-align: center; }
.nbpar-notes > div { min-height: 28px; margin-bottom: 3px; padding: 5px 12px; border-radius: 5px; font-size: 12.5px;
  line-height: 18px; background: var(--warnbg); color: var(--warn-ink); overflow-wrap: anywhere; }
.nbpar-slot:not([data-open]) .nbpar-notes > div { height: 28px; overflow: hidden; white-space: nowrap;
  text-overflow: ellipsis; }
.nbpar-slot[data-more]:not([data-open]) .nbpar-notes > div { padding-right: 64px; }
.nbpar-slot:not([data-open]) .nbpar-notes > div:not(:first-child) { display: none; }
.nbpar-card .nbpar-more { position: absolute; top: 4px; right: 8px; height: 20px; padding: 0 8px; font-size: 12px;
  font-weight: 600; color: var(--warn-ink); }
.nbpar-tabs { display: flex; gap: 4px; margin-top: 6px; border-top: 1px solid var(--line); padding-top: 5px; }
.nbpar-card .nbpar-tab { height: 24px; padding: 0 9px; border-radius: 5px; font-size: 12px; color: var(--soft);
  font-variant-numeric: tabular-nums; }
.nbpar-card .nbpar-tab:hover { background: var(--chip); }
.nbpar-card .nbpar-tab[aria-expanded=true] { color: var(--ink); font-weight: 600; background: var(--chip); }
.nbpar-card .nbpar-tab.nbpar-bad { color: var(--fail-ink); font-weight: 600; }
.nbpar-panel { height: 128px; margin-top: 6px; overflow: auto; font-size: 12px; overscroll-behavior: contain; }
.nbpar-empty { padding: 4px 9px; color: var(--soft); }
.nbpar-durations { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1.15fr); column-gap: 28px; }
.nbpar-card[data-size=narrow] .nbpar-durations { grid-template-columns: minmax(0, 1fr); row-gap: 6px; }
.nbpar-bins { display: block; width: 100%; height: 124px; }
.nbpar-slowest { font-size: 11.5px; }
.nbpar-slowest > :first-child { color: var(--soft); }
.nbpar-slow { display: grid; grid-template-columns: 4.4em 6.6em minmax(0, 1fr); column-gap: 10px; line-height: 20px;
  font-variant-numeric: tabular-nums; }
.nbpar-slow > span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.nbpar-slow > :nth-child(2) { color: var(--soft); }
.nbpar-slow > :last-child, .nbpar-failure, .nbpar-card .nbpar-panel pre {
  font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: 11.5px; }
.nbpar-failure > summary { display: grid;
  grid-template-columns: 12px var(--index) minmax(0, var(--item)) minmax(0, 1fr);
  column-gap: 10px; padding: 0 9px; line-height: 20px; cursor: pointer; list-style: none; border-radius: 4px; }
.nbpar-failure > summary::-webkit-details-marker { display: none; }
.nbpar-failure > summary::before { content: "▸"; color: var(--soft); }
.nbpar-failure[open] > summary::before { content: "▾"; }
.nbpar-failure[data-bare] > summary { cursor: default; }
.nbpar-failure[data-bare] > summary::before { content: ""; }
.nbpar-failure > summary:hover { background: var(--lane); }
.nbpar-failure span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.nbpar-failure span:first-child { color: var(--soft); }
.nbpar-failure span:last-child { color: var(--fail-ink); }
.nbpar-card .nbpar-panel pre { margin: 0; padding: 0; background: none; color: inherit; line-height: 1.5;
  white-space: pre-wrap;  overflow-wrap: anywhere; }
.nbpar-card .nbpar-panel .nbpar-failure pre { margin: 2px 9px 8px 31px; padding: 6px 10px;
  background: var(--lane); border-radius: 4px; }
.nbpar-group { display: grid; grid-template-columns: 10.5em minmax(0, 1fr); column-gap: 10px; padding: 1px 9px; }
.nbpar-group > div { color: var(--soft); font-size: 11.5px; line-height: 17px; overflow: hidden;
  text-overflow: ellipsis; white-space: nowrap; }
.nbpar-group pre .nbpar-err { color: var(--warn-ink); }
`;

function isDark() {
  const { body, documentElement: html } = document;
  const light = body.dataset.jpThemeLight; // JupyterLab, Notebook
  if (light !== undefined) return light === "false";
  const is = (name) => body.classList.contains(name); // VS Code
  if (is("vscode-high-contrast-light") || is("vscode-light")) return false;
  if (is("vscode-dark") || is("vscode-high-contrast")) return true;
  const theme = html.getAttribute("theme"); // Colab
  if (theme === "dark" || theme === "light") return theme === "dark";
  return window.matchMedia("(prefers-color-scheme: dark)").matches;
}

const reducedMotion = () => window.matchMedia("(prefers-reduced-motion: reduce)").matches;

// --- words -----------------------------------------------------------------------------------------------------------

const count = (n) => n.toLocaleString("en");
const plural = (n, noun) => `${count(n)} ${noun}${n === 1 ? "" : "s"}`;

function duration(s) { // as wording.duration has it
  if (!Number.isFinite(s) || s < 0) return "?";
  if (s > 0 && s < 0.0009995) return `${(s * 1e6).toFixed(0)} µs`;
  if (s < 0.0995) return `${(s * 1000).toFixed(0)} ms`;
  if (s < 9.95) return `${s.toFixed(1)} s`;
  const whole = Math.round(s), minutes = Math.round(s / 60), hours = Math.round(s / 3600);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (minutes < 1440) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

function size(bytes) {
  let value = bytes, unit = "bytes";
  for (const larger of ["kB", "MB", "GB", "TB"]) {
    if (value < 999.5) break;
    value /= 1000;
    unit = larger;
  }
  return `${value < 9.95 && unit !== "bytes" ? String(Number(value.toFixed(1))) : value.toFixed(0)} ${unit}`;
}

function short(s) { // for an axis
  if (s < 0.001) return `${Number((s * 1e6).toPrecision(2))} µs`;
  if (s < 1) return `${Number((s * 1000).toPrecision(2))} ms`;
  if (s < 60) return `${Number(s.toPrecision(2))} s`;
  if (s < 3600) return `${Number((s / 60).toPrecision(2))} min`;
  return `${Number((s / 3600).toPrecision(2))} h`;
}

function seconds(t) { // a mark of the time axis
  const round = (x, digits) => String(Number(x.toFixed(digits)));
  if (t < 60) return round(t, t < 0.1 ? 3 : 2) + " s";
  if (t < 3600) return round(t / 60, 1) + " min";
  return round(t / 3600, 1) + " h";
}

function axisStep(tEnd, n) { // the round step nearest to tEnd / n
  const rough = tEnd / n;
  const power = rough < 1 ? 10 ** Math.floor(Math.log10(rough)) : 1;
  const units = rough < 1 ? [1, 2, 5, 10] : [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600];
  const distance = (step) => Math.abs(Math.log(step / rough));
  const best = units.map((unit) => unit * power).reduce((a, b) => (distance(b) < distance(a) ? b : a));
  return rough > 3600 ? 3600 * Math.ceil(rough / 3600) : best;
}

function itemsText(first, last, n) {
  return n === 1 ? `item ${count(first)}` : `${plural(n, "task")}, items ${count(first)} to ${count(last)}`;
}

const trackText = ([done, of]) => (of === null ? count(done) : `${count(done)} of ${count(of)}`);

function nowText(lane, scene) {
  if (!lane.alive) return "ended";
  if (!lane.pid) return ENDED.includes(scene.status) ? "" : "starting";
  if (lane.index === null) return "";
  const since = (scene.elapsed - lane.since) / UNITS;
  let text = `item ${count(lane.index)}`;
  if (since >= 0.5) text += `, ${duration(since)}`; // of shorter tasks one would only see digits flicker
  if (!lane.track) return text;
  const [done, of] = lane.track;
  return `${text}, ${of ? `${Math.floor(100 * Math.min(1, done / of))}%` : count(done)}`;
}

// --- the model: what is known of the job -----------------------------------------------------------------------------

// The twin of GrowingSpans.coarsen: neighbours that together are no wider than a step become one.
function coarsened(marks, step) {
  const merged = [];
  for (let i = 0; i < marks.length; i += N_FIELDS) {
    const at = merged.length - N_FIELDS;
    if (at >= 0 && marks[i + END] - merged[at + BEGIN] <= step) {
      merged[at + END] = marks[i + END];
      merged[at + FIRST] = Math.min(merged[at + FIRST], marks[i + FIRST]);
      merged[at + LAST] = Math.max(merged[at + LAST], marks[i + LAST]);
      for (const field of [TASKS, FAILED, WORK, SENT, RECEIVED]) merged[at + field] += marks[i + field];
    } else {
      for (let field = 0; field < N_FIELDS; field += 1) merged.push(marks[i + field]);
    }
  }
  return merged;
}

// A message with its marks, which may have come beside it: 64 bits a number, one lane after the other.
function unpacked(news, buffers) {
  if (!news.packed) return news;
  const [view] = buffers || [];
  if (!view) return { ...news, seq: NaN }; // lost on the way: as good as missed
  const { buffer = view, byteOffset = 0, byteLength } = view; // of a front end's choice a view, or the buffer itself
  const numbers = new BigInt64Array(buffer.slice(byteOffset, byteOffset + byteLength));
  let at = 0;
  const marks = news.packed.map(([row, kept, n]) => [row, kept, ...Array.from(numbers.subarray(at, (at += n)), Number)]);
  return { ...news, marks };
}

const jobs = new WeakMap(); // model -> Job

export class Job {
  constructor(model) {
    this.model = model;
    this.scene = null;
    this.lanes = []; // by id; each with its marks and its usage
    this.failures = [];
    this.lines = [];
    this.hint = "";
    this.asked = false; // for everything, after a message was missed
    this.acknowledged = false;
    this.cancelling = false;
    this.asking = ""; // "pause" or "resume", until it is answered
    this.delivers = false; // a message was answered while the cell ran
    this.gone = false;
    this.listeners = new Set();
    this.take(model.get("scene"));
    model.on("msg:custom", (content, buffers) => this.hear(content, buffers));
    model.on("change:scene", () => this.take(model.get("scene")));
    for (const event of ["destroy", "comm:close"]) model.on(event, () => { this.gone = true; });
    // A model that was made again, on a page opened anew, may have missed messages while it was made, even the last.
    if (this.scene && this.scene.seq > 1) {
      this.asked = true;
      model.send({ want: "all" });
    }
  }

  get ended() { return this.gone || !this.scene || ENDED.includes(this.scene.status); }

  // Whether a click on Pause would reach the kernel: not one whose cell blocks and leaves messages lying.
  get canPause() {
    return !this.ended && Boolean(this.scene.can_pause) && (this.delivers || !this.scene.cell_is_running);
  }

  hear(content, buffers) {
    if (!content) return;
    if (content.scene) this.take(unpacked(content.scene, buffers));
    if (!this.scene) return;
    if (content.ack !== undefined && content.ack === this.scene.job) this.answered(content.of || "cancel");
    if (content.pong !== undefined && content.pong === this.scene.job) {
      this.delivers = this.delivers || this.scene.cell_is_running;
      this.changed();
    }
  }

  take(news) {
    if (!news || news.seq === undefined) return;
    if (!news.full && !(this.scene && news.seq === this.scene.seq + 1)) {
      if (!this.asked) this.model.send({ want: "all" }); // one was missed: what builds on it cannot be drawn
      this.asked = true;
      return;
    }
    if (news.full) {
      this.lanes = [];
      this.failures = [];
      this.lines = [];
    } else if (news.step !== this.scene.step) {
      for (const lane of this.lanes) lane.marks = coarsened(lane.marks, news.step);
    }
    this.scene = news.full ? { ...news } : { ...this.scene, ...news };
    this.asked = false;
    this.takeLanes(news);
    if (news.failures) this.failures = this.failures.slice(0, news.failures_kept).concat(news.failures);
    if (news.lines) this.lines = this.lines.concat(news.lines).slice(-N_LINES);
    this.changed();
  }

  // Fields come as columns, a value for each lane; marks and usage for the lanes alone that have new ones.
  takeLanes({ lanes: columns, marks, usage }) {
    if (columns.id) {
      const known = new Map(this.lanes.map((lane) => [lane.id, lane]));
      this.lanes = columns.id.map((id) => known.get(id) || { id, marks: [], usage: [] });
    }
    for (const [name, column] of Object.entries(columns)) {
      this.lanes.forEach((lane, row) => { lane[name] = column[row]; });
    }
    for (const [row, kept, ...numbers] of marks) {
      const lane = this.lanes[row];
      lane.marks = lane.marks.slice(0, kept * N_FIELDS).concat(numbers);
    }
    for (const [row, kept, ...numbers] of usage) {
      const lane = this.lanes[row];
      lane.usage = lane.usage.slice(0, kept * 3).concat(numbers);
    }
  }

  changed() { for (const listener of this.listeners) listener(); }
  say(hint) { this.hint = hint; this.changed(); }

  answered(what) {
    if (what === "cancel") this.acknowledged = true;
    if (what === this.asking) this.asking = "";
    this.say("");
  }

  // Asked again and again while the cell runs: the first question may have come before the kernel's handler.
  ping() {
    if (this.ended || this.delivers || !this.scene.cell_is_running) return;
    this.model.send({ ping: this.scene.job });
    setTimeout(() => this.ping(), PING_MS);
  }

  // "pause" or "resume"; both are of the job's id, so that a click that comes late hits no other job.
  ask(what) {
    if (this.ended || this.cancelling || this.asking) return;
    this.asking = what;
    this.model.send({ [what]: this.scene.job });
    this.changed();
    setTimeout(() => {
      if (this.asking === what && !this.ended) this.say(`${what}s when the running cell ends`);
    }, ACK_MS);
  }

  // A message first. A kernel whose main thread is busy may leave it unanswered (ipykernel 6 and 7.4 do); then the
  // front end interrupts the cell, which ends in the same clean cancel, but only the cell that belongs to this job.
  cancel() {
    if (this.ended || this.cancelling) return;
    this.cancelling = true;
    this.model.send({ cancel: this.scene.job });
    this.changed();
    setTimeout(() => {
      if (this.acknowledged || this.ended) return;
      if (!this.scene.cell_is_running) {
        this.say("cancels when the running cell ends");
        return;
      }
      const manager = this.model.widget_manager; // outside anywidget's contract: tested for, not relied on
      const kernel = manager && manager.kernel;
      if (kernel && typeof kernel.interrupt === "function") {
        // Not asked: kernel.status, which says "idle" once a comm message was handled, while the cell still runs.
        Promise.resolve(kernel.interrupt()).catch(() => this.say("press the stop button"));
      } else {
        this.say("press the stop button");
      }
    }, ACK_MS);
  }

  // What stands on a lane from left to right, as [begin, end, kind, index of its mark].
  stops(lane) {
    const { elapsed } = this.scene, stops = [];
    const ready = lane.pid ? lane.ready : elapsed;
    if (ready > lane.begin) {
      const init = Math.max(lane.begin, ready - lane.init);
      if (init > lane.begin) stops.push([lane.begin, init, "start", -1]);
      if (ready > init) stops.push([init, ready, "init", -1]);
    }
    for (let i = 0; i < lane.marks.length; i += N_FIELDS) {
      stops.push([lane.marks[i + BEGIN], lane.marks[i + END], "mark", i]);
    }
    if (lane.index !== null) stops.push([lane.since, Math.max(elapsed, lane.since), "run", -1]);
    return stops;
  }

  // A stop in words: a title, and further lines with the class that each is shown in.
  describe(lane, [begin, end, kind, i]) {
    const worker = `worker ${lane.id}`, took = duration((end - begin) / UNITS);
    if (kind === "start") return { title: `${worker} starts`, lines: [[took, ""]] };
    if (kind === "init") return { title: `${worker} runs worker_init`, lines: [[took, ""]] };
    if (kind === "run") {
      const track = lane.track ? ` · ${trackText(lane.track)}` : "";
      return { title: `item ${count(lane.index)}, running`, lines: [[`${worker} · for ${took}${track}`, ""]] };
    }
    const [first, last, n, failed, work, sent, received] = [FIRST, LAST, TASKS, FAILED, WORK, SENT, RECEIVED]
      .map((field) => lane.marks[i + field]);
    const each = n > 1 ? `, ${duration(work / UNITS / n)} each` : "";
    const lines = [[`${worker} · ${duration(work / UNITS)}${each}`, ""]];
    if (sent || received) lines.push([`sent ${size(sent)} · received ${size(received)}`, "nbpar-dim"]);
    if (failed) {
      lines.push([n > 1 ? `${count(failed)} failed` : "failed", "nbpar-bad"]);
      const known = this.failures.filter((entry) => entry[3] === lane.id && entry[0] >= first && entry[0] <= last);
      for (const [index, item, error] of known.slice(0, 3)) {
        lines.push([n > 1 ? `#${index} ${error}` : error, "nbpar-bad"], [item, "nbpar-item"]);
      }
    } else if (n === 1) {
      const slow = (this.scene.slowest || []).find((entry) => entry[0] === first);
      if (slow && slow[3]) lines.push([slow[3], "nbpar-item"]);
    }
    return { title: itemsText(first, last, n), lines };
  }
}

function jobOf(model) {
  let job = jobs.get(model);
  if (!job) jobs.set(model, (job = new Job(model)));
  return job;
}

// --- the page --------------------------------------------------------------------------------------------------------

function make(tag, className, parent, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  if (parent) parent.append(node);
  return node;
}

function button(className, parent, text, onclick) {
  const node = make("button", className, parent, text);
  node.type = "button";
  node.onclick = onclick;
  return node;
}

// Nothing is touched that stays as it is: a write is a layout, and takes a selection away.
function put(node, text) { if (node.textContent !== text) node.textContent = text; }
function putWhole(node, text) { put(node, text); set(node, "title", text); } // also where it is cut off
function set(node, name, value) { if (node.getAttribute(name) !== value) node.setAttribute(name, value); }
function px(node, name, value) { const text = `${value}px`; if (node.style[name] !== text) node.style[name] = text; }

// One child of `parent` per entry, made or removed as needed and otherwise left in place.
function rows(parent, entries, fill, tag = "div") {
  while (parent.childElementCount > entries.length) parent.lastElementChild.remove();
  while (parent.childElementCount < entries.length) make(tag, "", parent);
  entries.forEach((entry, i) => fill(parent.children[i], entry, i));
}

// A canvas of so many CSS pixels, cleared and scaled for the screen.
function brush(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.height = `${height}px`;
  }
  const g = canvas.getContext("2d");
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  g.clearRect(0, 0, width, height);
  return g;
}

class Speaker { // tells a screen reader the newest, not more often than one can listen
  constructor(parent) {
    this.node = make("div", "nbpar-out", parent);
    this.node.setAttribute("aria-live", "polite");
    this.timer = 0;
    this.text = "";
  }

  say(text) {
    this.text = text;
    if (this.timer) return;
    put(this.node, text);
    this.timer = setTimeout(() => {
      this.timer = 0;
      if (this.text !== this.node.textContent) this.say(this.text);
    }, SAY_MS);
  }
}

// --- the task stream -------------------------------------------------------------------------------------------------

function rowsOf(n) { // how lanes are drawn: name, height and gap
  if (n < THIN) return ["full", 16, 5];
  if (n < TINY) return ["thin", 10, 4];
  if (n < HEAT) return ["tiny", 7, 2];
  return ["heat", n <= 64 ? 4 : n <= 160 ? 3 : 2, n <= 64 ? 1 : 0];
}

class Stream {
  constructor(card, parent) {
    this.card = card;
    this.job = card.job;
    const root = (this.root = make("div", "nbpar-stream", parent));
    this.left = make("div", "nbpar-side", root);
    this.spark = make("canvas", "nbpar-spark", root);
    this.spark.setAttribute("aria-hidden", "true");
    this.mems = make("div", "nbpar-side nbpar-mems", root);
    const lanes = (this.lanes = make("div", "nbpar-lanes", root));
    this.canvas = make("canvas", "nbpar-canvas", lanes);
    this.right = make("div", "nbpar-side", root);
    lanes.tabIndex = 0;
    lanes.setAttribute("role", "application");
    lanes.setAttribute("aria-roledescription", "task stream");
    lanes.setAttribute("aria-keyshortcuts", "ArrowLeft ArrowRight ArrowUp ArrowDown Home End F Enter Escape");
    lanes.dataset.lmSuppressShortcuts = "true"; // JupyterLab moves between cells with the same keys
    this.tip = make("div", "nbpar-tip", root);
    this.tip.hidden = true;
    this.tipBody = make("div", "nbpar-said", this.tip);
    this.pin = make("div", "nbpar-tip nbpar-pin", root);
    this.pin.hidden = true;
    this.pin.setAttribute("role", "group");
    this.pin.setAttribute("aria-label", "pinned");
    this.pinBody = make("div", "nbpar-said", this.pin);
    this.close = button("nbpar-close", this.pin, "×", () => { this.unpin(); lanes.focus(); });
    this.close.setAttribute("aria-label", "unpin");
    this.pin.dataset.lmSuppressShortcuts = "true";
    this.hovered = null; // [lane id, time, x, y]
    this.selected = null; // {id, at}: a worker and a moment in what is selected there
    this.pinned = null; // {id, stop, said}
    lanes.onmousemove = (event) => { this.hovered = [event.offsetX, event.offsetY]; this.drawTip(); };
    lanes.onmouseleave = () => { this.hovered = null; this.drawTip(); };
    lanes.onclick = () => this.clicked();
    lanes.onfocus = () => { if (!this.selected && lanes.matches(":focus-visible")) this.move(0, 0); };
    lanes.onblur = () => { this.selected = null; card.redraw(); };
    root.onkeydown = (event) => this.key(event);
  }

  // Where a row begins and what a moment's place on the canvas is.
  layout() {
    const { scene, lanes } = this.job;
    const n = Math.max(lanes.length, Math.min(scene.n_workers || 0, 512), 1);
    const [name, height, gap] = rowsOf(n);
    const width = this.canvas.clientWidth;
    const text = name === "full" || name === "thin";
    const x0 = text ? 0 : 30, x1 = text ? 0 : 58;
    const plot = Math.max(40, width - x0 - x1);
    let tEnd = Math.max(scene.elapsed, UNITS / 1000);
    if (reducedMotion() && !this.job.ended) { // longer by half now and then, instead of all the time
      tEnd = UNITS / 1000 * 1.5 ** Math.ceil(Math.log(tEnd / UNITS * 1000) / Math.log(1.5));
    }
    const x = (t) => x0 + Math.min(plot, (plot * t) / tEnd);
    const pitch = height + gap;
    return { n, name, height, gap, pitch, width, x0, plot, tEnd, x, text, total: n * pitch + AXIS_PX };
  }

  draw(colours) {
    const { job } = this, { scene } = job;
    this.colours = colours;
    const at = (this.at = this.layout());
    set(this.root, "data-rows", at.name);
    this.drawSides(scene, at);
    if (!this.canvas.clientWidth) return; // not laid out: drawn when the observer sees a size
    Object.assign(at, this.layout()); // the columns beside it may have become wider
    const g = brush(this.canvas, at.width, at.total);
    if (at.name === "heat") this.drawHeat(g, at); else this.drawLanes(g, at);
    if (!at.text) this.drawGutters(g, at);
    this.drawAxis(g, at);
    this.drawSelection(g, at);
    const focused = document.activeElement === this.lanes; // then it would be read again and again
    if (!focused) {
      set(this.lanes, "aria-label", `task stream: ${scene.tasks}, ${plural(job.lanes.length, "worker")} over `
        + `${seconds(scene.elapsed / UNITS)}; arrow keys move over workers and tasks, F to the next failure, Enter pins`);
    }
    this.drawTip();
    this.drawPin();
  }

  drawSides(scene, at) {
    const { lanes } = this.job;
    for (const side of [this.left, this.mems, this.right]) side.hidden = !at.text;
    const usage = at.text && lanes.some((lane) => lane.usage.length > 0);
    this.spark.hidden = this.mems.hidden = !usage;
    const narrow = this.card.size === "narrow" && at.text;
    const wanted = !at.text ? "minmax(0, 1fr)"
      : usage && !narrow ? "auto auto auto minmax(0, 1fr) auto" : "auto minmax(0, 1fr) auto";
    if (this.root.style.gridTemplateColumns !== wanted) this.root.style.gridTemplateColumns = wanted;
    if (!at.text) return;
    const fit = (node) => { px(node, "height", at.height); px(node, "marginBottom", at.gap); };
    rows(this.left, lanes, (node, lane) => {
      fit(node);
      rows(node, [String(lane.id)], (part, text) => {
        put(part, text);
        part.className = lane.alive ? "" : "nbpar-ended";
      }, "span");
    });
    if (usage && !narrow) {
      rows(this.mems, lanes, (node, lane) => {
        fit(node);
        node.className = "nbpar-mem";
        put(node, lane.usage.length ? size(1000 * lane.usage[lane.usage.length - 2]) : "");
      });
      this.drawUsage(at);
    }
    const classes = ["nbpar-count", "nbpar-busy", "nbpar-now"];
    rows(this.right, lanes, (node, lane) => {
      fit(node);
      rows(node, [count(lane.n_done), `busy ${lane.busy}%`, nowText(lane, scene)], put, "span");
      classes.forEach((name, i) => { if (node.children[i].className !== name) node.children[i].className = name; });
    });
    this.widest = classes.map((_, i) => { // room for the longest so far: columns do not wobble, and waste no space
      const lengths = [...this.right.children].map((node) => node.children[i].textContent.length);
      return Math.min(24, Math.max(this.widest ? this.widest[i] : 0, ...lengths));
    });
    const widths = this.widest.map((n) => `${n}ch`);
    for (const node of this.right.children) {
      widths.forEach((width, i) => { if (node.children[i].style.width !== width) node.children[i].style.width = width; });
    }
  }

  // Memory as an area, on one scale for all workers, and CPU as a line above it.
  drawUsage(at) {
    const width = 52, { colours } = this, { lanes } = this.job;
    const g = brush(this.spark, width, at.n * at.pitch);
    let most = 1, mostCpu = 100;
    for (const { usage } of lanes) {
      for (let i = 0; i < usage.length; i += 3) {
        most = Math.max(most, usage[i + 1]);
        mostCpu = Math.max(mostCpu, usage[i + 2]);
      }
    }
    lanes.forEach(({ usage }, row) => {
      if (usage.length < 6) return;
      const y = row * at.pitch + at.height - 1, h = at.height - 3;
      const t0 = usage[0], t1 = Math.max(usage[usage.length - 3], t0 + 1);
      const trace = (field, top) => { // each value with its neighbours: the eye wants the course, not the noise
        for (let i = 0; i < usage.length; i += 3) {
          const before = Math.max(0, i - 3), after = Math.min(usage.length - 3, i + 3);
          const value = (usage[before + field] + 2 * usage[i + field] + usage[after + field]) / 4;
          g.lineTo((width - 1) * (usage[i] - t0) / (t1 - t0) + 0.5, y - h * Math.min(1, value / top));
        }
      };
      g.beginPath();
      g.moveTo(0.5, y);
      trace(1, most * 1.05);
      g.lineTo(width - 0.5, y);
      g.fillStyle = colours.mem;
      g.globalAlpha = 0.2;
      g.fill();
      g.globalAlpha = 1;
      g.beginPath();
      trace(1, most * 1.05);
      g.strokeStyle = colours.mem;
      g.lineWidth = 1;
      g.stroke();
      g.beginPath();
      trace(2, mostCpu);
      g.strokeStyle = colours.task;
      g.stroke();
    });
  }

  drawLanes(g, at) {
    const { job, colours } = this, { x, height, pitch } = at;
    const inset = height > 8 ? 1 : 0, round = height > 8 && g.roundRect;
    const add = (begin, end, y, least) => { // a path of many parts takes longer than many rectangles
      const left = x(begin), wide = x(end) - left, w = Math.max(least, wide - (wide > 2.5 ? 0.8 : 0));
      if (!round || w <= 4) {
        g.fillRect(left, y + inset, w, height - 2 * inset);
        return;
      }
      g.beginPath();
      g.roundRect(left, y + inset, w, height - 2 * inset, 1.5);
      g.fill();
    };
    const block = (fill, begin, end, y, least = 0.6) => {
      g.fillStyle = fill;
      add(begin, end, y, least);
    };
    const thinner = at.tEnd / at.plot * 3; // marks below three pixels may stand for more gap than task
    for (let row = 0; row < at.n; row += 1) {
      const y = row * pitch, lane = job.lanes[row];
      g.fillStyle = colours.lane;
      g.beginPath();
      if (round) g.roundRect(at.x0, y, at.plot, height, 2); else g.rect(at.x0, y, at.plot, height);
      g.fill();
      if (!lane) continue;
      const { marks } = lane;
      for (const [begin, end, kind] of job.stops({ ...lane, marks: [], index: null })) {
        block(colours[kind], begin, end, y);
      }
      for (const tone of [0, 1]) {
        g.fillStyle = tone ? colours.task : colours.alt;
        for (let i = 0; i < marks.length; i += N_FIELDS) {
          if (marks[i + FAILED] || marks[i + TONE] !== tone) continue;
          const wide = marks[i + END] - marks[i + BEGIN];
          if (wide < thinner && marks[i + WORK] < 0.9 * wide) continue;
          add(marks[i + BEGIN], marks[i + END], y, 0.6);
        }
      }
      for (let i = 0; i < marks.length; i += N_FIELDS) { // merged with the gaps between them: fainter
        const wide = marks[i + END] - marks[i + BEGIN];
        if (marks[i + FAILED] || wide >= thinner || marks[i + WORK] >= 0.9 * wide) continue;
        g.globalAlpha = 0.25 + 0.75 * (marks[i + WORK] / wide);
        block(colours.task, marks[i + BEGIN], marks[i + END], y);
        g.globalAlpha = 1;
      }
      if (lane.index !== null) {
        const { elapsed } = job.scene, [done, of] = lane.track || [0, null];
        block(colours.run, lane.since, elapsed, y);
        const left = x(lane.since), wide = x(elapsed) - left;
        if (height > 8 && wide > 4) { // an outline: it is not over yet
          g.strokeStyle = colours.alt;
          g.lineWidth = 1;
          g.strokeRect(left + 0.5, y + 1.5, wide - 1, height - 3);
        }
        if (of) block(colours.task, lane.since, lane.since + (elapsed - lane.since) * Math.min(1, done / of), y);
      }
      for (let i = 0; i < marks.length; i += N_FIELDS) { // last, and never too thin to be seen
        if (!marks[i + FAILED]) continue;
        block(colours.fail, marks[i + BEGIN], marks[i + END], y, 3);
        const left = x(marks[i + BEGIN]), right = x(marks[i + END]);
        if (right - left < 8 || height < 10) continue;
        const cx = (left + right - 0.8) / 2, cy = y + height / 2, arm = height > 12 ? 3 : 2.2;
        g.strokeStyle = colours.bg;
        g.lineWidth = 1.6;
        g.beginPath();
        for (const slope of [1, -1]) { // a cross: not the colour alone says it
          g.moveTo(cx - arm, cy - slope * arm);
          g.lineTo(cx + arm, cy + slope * arm);
        }
        g.stroke();
      }
    }
  }

  // Many workers: how busy each was in each stretch of time, as a shade.
  drawHeat(g, at) {
    const { job, colours } = this, { elapsed } = job.scene;
    const columns = Math.max(8, Math.floor(at.plot / HEAT_PX)), per = at.tEnd / columns;
    const sheet = (this.sheet = this.sheet || document.createElement("canvas"));
    sheet.width = columns;
    sheet.height = at.n;
    const paint = sheet.getContext("2d"), image = paint.createImageData(columns, at.n), { data } = image;
    const ramps = [colours.alt, colours.task].map((full) => shades(rgb(colours.lane), rgb(full)));
    const start = rgb(colours.start), init = rgb(colours.init);
    const work = new Float32Array(columns), tones = new Uint8Array(columns), crosses = [];
    const spread = (begin, end, amount, tone) => {
      const first = Math.max(0, Math.floor(begin / per)), last = Math.min(columns - 1, Math.floor(end / per));
      const share = end > begin ? amount / (end - begin) : 0;
      for (let c = first; c <= last; c += 1) {
        if (tone !== undefined) tones[c] = tone;
        work[c] += share * Math.max(0, Math.min(end, (c + 1) * per) - Math.max(begin, c * per));
      }
    };
    for (let row = 0; row < at.n; row += 1) {
      const lane = job.lanes[row];
      work.fill(0);
      tones.fill(1);
      if (lane) {
        const { marks } = lane;
        for (let i = 0; i < marks.length; i += N_FIELDS) {
          const seen = marks[i + END] - marks[i + BEGIN] > 2 * per; // as wide as that, tasks are told apart
          spread(marks[i + BEGIN], marks[i + END], marks[i + WORK], seen ? marks[i + TONE] : undefined);
          if (marks[i + FAILED]) crosses.push([row, (marks[i + BEGIN] + marks[i + END]) / 2]);
        }
        if (lane.index !== null) spread(lane.since, elapsed, elapsed - lane.since, 0);
      }
      for (let c = 0; c < columns; c += 1) {
        let colour = ramps[tones[c]][Math.round(64 * Math.min(1, work[c] / per))];
        const t = (c + 0.5) * per;
        if (lane && t >= lane.begin && t < (lane.pid ? lane.ready : elapsed)) {
          colour = t < lane.ready - lane.init || !lane.pid ? start : init;
        }
        data.set(colour, 4 * (row * columns + c));
      }
    }
    paint.putImageData(image, 0, 0);
    g.imageSmoothingEnabled = false;
    g.drawImage(sheet, at.x0, 0, at.plot, at.n * at.pitch);
    if (at.gap) for (let row = 0; row < at.n; row += 1) g.clearRect(at.x0, row * at.pitch + at.height, at.plot, at.gap);
    g.fillStyle = colours.fail;
    for (const [row, t] of crosses) g.fillRect(at.x(t) - 3, row * at.pitch - 0.5, 6, at.height + 1);
  }

  // Beside lanes that are too thin for words: whose they are, and how busy each was.
  drawGutters(g, at) {
    const { job, colours } = this;
    g.font = "10px system-ui, sans-serif";
    g.textBaseline = "middle";
    g.textAlign = "right";
    const every = [1, 2, 4, 8, 16, 32, 64].find((k) => k * at.pitch >= 13) || 128;
    const left = at.width - 48;
    job.lanes.forEach((lane, row) => {
      const y = row * at.pitch;
      if (row % every === 0) {
        g.fillStyle = colours.soft;
        g.fillText(String(lane.id), at.x0 - 8, Math.max(5, y + at.height / 2));
      }
      g.fillStyle = colours.mem;
      g.globalAlpha = 0.55;
      g.fillRect(left, y, Math.max(0.5, 48 * lane.busy / 100), Math.max(1, at.pitch - 1));
      g.globalAlpha = 1;
    });
    g.fillStyle = colours.soft;
    g.textAlign = "left";
    g.fillText("busy", left, at.total - AXIS_PX / 2 + 2);
  }

  drawAxis(g, at) {
    g.fillStyle = this.colours.soft;
    g.font = "10.5px system-ui, sans-serif";
    g.textBaseline = "middle";
    g.textAlign = "left";
    const tEnd = at.tEnd / UNITS, y = at.total - AXIS_PX / 2 + 2, step = axisStep(tEnd, Math.max(2, at.plot / 90));
    for (let t = 0; t <= tEnd * (1 + 1e-9); t += step) {
      const text = seconds(t), half = g.measureText(text).width / 2, x = at.x0 + (at.plot * t) / tEnd;
      g.fillText(text, Math.min(at.x0 + at.plot - 2 * half, Math.max(at.x0, x - half)), y);
    }
  }

  drawSelection(g, at) {
    const frame = (id, [begin, end], dashed) => {
      const row = this.job.lanes.findIndex((lane) => lane.id === id);
      if (row < 0) return;
      const left = at.x(begin) - 1.5, wide = Math.max(6, at.x(end) - at.x(begin) + 2.2);
      g.lineWidth = 1.5;
      g.setLineDash(dashed ? [3, 2] : []);
      g.strokeStyle = this.colours.mark;
      g.strokeRect(left, Math.max(0.8, row * at.pitch - 1), wide, at.height + 1.5);
      g.setLineDash([]);
    };
    if (this.pinned) frame(this.pinned.id, this.pinned.stop, false);
    const found = this.selection();
    const { pinned } = this;
    const same = found && pinned && found.lane.id === pinned.id && found.stops[found.i][0] === pinned.stop[0];
    if (found && !same) frame(found.lane.id, found.stops[found.i], true);
  }

  // --- the mouse

  // The stop at a place of the canvas; failures, which are drawn wider than they are, first.
  under(px, py) {
    const { at } = this;
    if (!at || !this.job.scene) return null;
    const lane = this.job.lanes[Math.floor(py / at.pitch)];
    if (!lane || py >= at.n * at.pitch) return null;
    const t = (px - at.x0) / at.plot * at.tEnd, near = at.tEnd / at.plot * 2.5;
    if (t < 0 || t > at.tEnd) return { lane, stop: null };
    const stops = this.job.stops(lane);
    const there = ([begin, end]) => t >= begin && t <= end, close = ([begin, end]) => t >= begin - near && t <= end + near;
    const failed = stops.filter(([, , kind, i]) => kind === "mark" && lane.marks[i + FAILED]);
    const stop = failed.find(close) || stops.find(there) || stops.find(close) || null;
    return { lane, stop };
  }

  drawTip() {
    const hit = this.hovered && this.under(...this.hovered);
    this.tip.hidden = !hit;
    if (!hit) return;
    const usage = hit.lane.usage.slice(-3);
    const said = hit.stop ? this.job.describe(hit.lane, hit.stop)
      : { title: `worker ${hit.lane.id}, waiting`,
        lines: [[`${plural(hit.lane.n_done, "task")} · busy ${hit.lane.busy}%`
          + (usage.length ? ` · ${size(1000 * usage[1])} · CPU ${usage[2]}%` : ""), ""]] };
    this.fill(this.tipBody, said);
    this.place(this.tip, hit.lane.id, this.hovered[0] + 12);
  }

  fill(node, { title, lines }) {
    rows(node, [[title, ""], ...lines], (part, [text, kind]) => {
      put(part, text);
      if (part.className !== kind) part.className = kind;
    });
  }

  // Below a worker's row, or above it where the card has no room below; inside the card in any case.
  place(node, id, x) {
    const { at, root, card } = this;
    const row = this.job.lanes.findIndex((lane) => lane.id === id);
    const room = card.root.clientHeight - root.offsetTop, height = node.offsetHeight;
    const below = row * at.pitch + at.height + 5, above = row * at.pitch - height - 5;
    const left = this.lanes.offsetLeft + x;
    px(node, "left", Math.max(0, Math.min(left, root.clientWidth - node.offsetWidth)));
    px(node, "top", below + height <= room - 6 || above < -root.offsetTop ? below : above);
  }

  clicked() {
    const hit = this.hovered && this.under(...this.hovered);
    this.selected = hit && hit.stop ? { id: hit.lane.id, at: (hit.stop[0] + hit.stop[1]) / 2 } : null;
    if (hit && hit.stop) this.pinStop(hit.lane, hit.stop); else this.unpin();
  }

  // --- pinned: stays while the job goes on, in the words that it had

  pinStop(lane, stop) {
    const said = this.job.describe(lane, stop);
    this.pinned = { id: lane.id, stop, said, index: stop[2] === "run" ? lane.index : null };
    this.card.speaker.say(`pinned: ${said.title}`);
    this.card.redraw();
  }

  unpin() {
    if (!this.pinned) return;
    this.pinned = null;
    this.card.speaker.say("unpinned");
    this.card.redraw();
  }

  drawPin() {
    const { pinned } = this;
    this.pin.hidden = !pinned;
    if (!pinned) return;
    const lane = this.job.lanes.find((known) => known.id === pinned.id);
    if (lane && pinned.index !== null) { // it was running when it was pinned: follow it to its end
      const stops = this.job.stops(lane);
      const now = stops.find(([, , kind, i]) => (kind === "run" ? lane.index === pinned.index
        : kind === "mark" && lane.marks[i + FIRST] <= pinned.index && pinned.index <= lane.marks[i + LAST]));
      if (now) {
        pinned.stop = now;
        pinned.said = this.job.describe(lane, now);
        if (now[2] === "mark") pinned.index = null;
      }
    }
    this.fill(this.pinBody, pinned.said);
    this.place(this.pin, pinned.id, this.at.x(pinned.stop[0]));
  }

  // --- the keyboard

  selection() {
    if (!this.selected) return null;
    const lane = this.job.lanes.find((known) => known.id === this.selected.id);
    const stops = lane ? this.job.stops(lane) : [];
    if (!stops.length) return null;
    const { at } = this.selected;
    let i = stops.findIndex(([begin, end]) => at >= begin && at <= end);
    if (i < 0) i = stops.findIndex(([begin]) => begin > at) - 1; // in a gap: what stands before it
    if (i < 0) i = at < stops[0][0] ? 0 : stops.length - 1;
    return { lane, stops, i };
  }

  select(lane, stop) {
    this.selected = { id: lane.id, at: stop ? (stop[0] + stop[1]) / 2 : this.job.scene.elapsed };
    const nothing = { title: `worker ${lane.id}`, lines: [["nothing yet", ""]] };
    const { title, lines } = stop ? this.job.describe(lane, stop) : nothing;
    this.card.speaker.say([title, ...lines.map(([text]) => text)].join(", "));
    this.card.redraw();
  }

  // By so many workers and so many stops.
  move(down, right) {
    const { lanes } = this.job, found = this.selection();
    if (!lanes.length) return;
    if (!this.selected) {
      const stops = this.job.stops(lanes[0]);
      this.select(lanes[0], stops[stops.length - 1]);
      return;
    }
    const row = Math.max(0, lanes.findIndex((lane) => lane.id === this.selected.id));
    const lane = lanes[Math.min(lanes.length - 1, Math.max(0, row + down))];
    if (down) {
      this.selected = { id: lane.id, at: this.selected.at };
      const other = this.selection();
      this.select(lane, other && other.stops[other.i]);
    } else if (found) {
      this.select(lane, found.stops[Math.min(found.stops.length - 1, Math.max(0, found.i + right))]);
    }
  }

  nextFailure() {
    const all = [];
    for (const lane of this.job.lanes) {
      for (const stop of this.job.stops(lane)) {
        if (stop[2] === "mark" && lane.marks[stop[3] + FAILED]) all.push([lane, stop]);
      }
    }
    if (!all.length) return this.card.speaker.say("no failure");
    all.sort((a, b) => a[1][0] - b[1][0]);
    const found = this.selection(), now = found && found.stops[found.i];
    const at = all.findIndex(([lane, stop]) => now && lane.id === found.lane.id && stop[3] === now[3]);
    return this.select(...all[(at + 1) % all.length]);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const found = this.selection();
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
      PageUp: [0, -10], PageDown: [0, 10], Home: [0, -1e9], End: [0, 1e9] };
    if (event.key === "Escape") {
      if (!this.pinned) return;
      this.unpin();
      this.lanes.focus();
    } else if (event.target !== this.lanes) return;
    else if (moves[event.key]) this.move(...moves[event.key]);
    else if (event.key === "Enter" || event.key === " ") { if (found) this.pinStop(found.lane, found.stops[found.i]); }
    else if (event.key === "f" || event.key === "F") this.nextFailure();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

function rgb(colour) { return [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)).concat(255); }

function shades(from, to) { // 65 of them; the lowest that is not nothing can be told from nothing
  return Array.from({ length: 65 }, (_, i) => {
    const share = i ? 0.12 + 0.88 * (i / 64) : 0;
    return from.map((value, k) => Math.round(value + (to[k] - value) * share));
  });
}

// --- advice, notes, legend -------------------------------------------------------------------------------------------

class Slot { // one line high until somebody asks for more
  constructor(card, parent) {
    this.card = card;
    this.root = make("div", "nbpar-slot", parent);
    this.notes = make("div", "nbpar-notes", this.root);
    this.notes.setAttribute("role", "status");
    this.more = button("nbpar-more", this.root, "", () => { this.open = !this.open; card.redraw(); });
    this.legend = make("div", "nbpar-legend", this.root);
    this.open = false;
    this.entries = [["tasks", "linear-gradient(90deg, var(--alt) 50%, var(--task) 50%)", ""], ["failed", "var(--fail)", "×"], ["running", "var(--run)", ""],
      ["start-up", "var(--start)", ""], ["worker_init", "var(--init)", ""]];
    for (const [text, colour, sign] of this.entries) {
      const entry = make("span", "", this.legend);
      const swatch = make("i", "", entry, sign);
      swatch.style.background = colour;
      if (text === "running") swatch.style.border = "1px solid var(--alt)";
      swatch.setAttribute("aria-hidden", "true");
      make("span", "", entry, text);
    }
  }

  draw() {
    const { job } = this.card, texts = [...(job.scene.advice || []), ...(job.scene.notes || [])];
    const few = texts.length > 1;
    this.root.toggleAttribute("data-open", this.open);
    rows(this.notes, texts, (node, text) => {
      node.className = "nbpar-note";
      put(node, text);
      set(node, "title", text);
    });
    const first = this.notes.firstElementChild;
    const long = texts.length === 1 && !this.open && first.scrollWidth > first.clientWidth + 1;
    this.more.hidden = !few && !long && !this.open;
    this.root.toggleAttribute("data-more", !this.more.hidden);
    put(this.more, this.open ? "less" : few ? `+${texts.length - 1}` : "more");
    set(this.more, "aria-expanded", String(this.open));
    set(this.more, "aria-label", this.open ? "less advice" : "all advice");
    this.legend.hidden = texts.length > 0;
    const { children } = this.legend;
    children[1].hidden = !job.scene.n_failed;
    children[3].hidden = !job.lanes.some((lane) => !lane.pid || lane.ready - lane.init > lane.begin);
    children[4].hidden = !job.lanes.some((lane) => lane.init > 0);
  }
}

// --- durations, failures, output -------------------------------------------------------------------------------------

class Panels { // one is open, or none; the first failure opens theirs unless the user has chosen
  constructor(card, parent) {
    this.card = card;
    this.chosen = false;
    this.current = "durations";
    this.tabs = make("div", "nbpar-tabs", parent);
    this.panel = make("div", "nbpar-panel", parent);
    this.panel.tabIndex = 0; // it scrolls
    this.panel.id = `nbpar-panel-${Math.random().toString(36).slice(2)}`;
    this.panel.setAttribute("role", "region");
    this.parts = {
      durations: make("div", "nbpar-durations", this.panel),
      failures: make("div", "nbpar-failures", this.panel),
      output: make("div", "nbpar-output", this.panel),
    };
    this.buttons = {};
    for (const name of Object.keys(this.parts)) {
      this.buttons[name] = button("nbpar-tab", this.tabs, "", () => {
        this.chosen = true;
        this.current = this.current === name ? "" : name;
        card.redraw();
      });
      this.buttons[name].setAttribute("aria-controls", this.panel.id);
    }
    this.bins = make("canvas", "nbpar-bins", this.parts.durations);
    this.bins.setAttribute("role", "img");
    this.slowest = make("div", "nbpar-slowest", this.parts.durations);
    this.noDurations = make("div", "nbpar-empty", this.panel, "No task has ended yet.");
    this.groups = make("div", "", this.parts.output);
    this.groups.setAttribute("aria-label", "output by task");
  }

  draw(colours) {
    const { job } = this.card, { scene } = job, { failures, output, durations } = this.buttons;
    if (scene.n_failed && !this.chosen && this.current === "durations" && !this.sawFailure) this.current = "failures";
    this.sawFailure = this.sawFailure || scene.n_failed > 0;
    put(durations, "Durations");
    put(failures, `${count(scene.n_failed)} failed`);
    failures.classList.toggle("nbpar-bad", scene.n_failed > 0);
    failures.hidden = !scene.n_failed;
    put(output, scene.n_lines ? `Output ${count(scene.n_lines)}` : "Output");
    output.hidden = !scene.n_lines;
    for (const name of Object.keys(this.parts)) {
      set(this.buttons[name], "aria-expanded", String(this.current === name));
      this.parts[name].hidden = this.current !== name;
    }
    this.panel.hidden = this.current === "";
    const labels = { durations: "durations of tasks", failures: "failed tasks", output: "output by task" };
    set(this.panel, "aria-label", labels[this.current] || "");
    const none = !(scene.durations || []).length;
    this.noDurations.hidden = this.current !== "durations" || !none;
    if (this.current === "durations") {
      this.parts.durations.hidden = none;
      if (!none) this.drawDurations(scene, colours);
    } else if (this.current === "failures") this.drawFailures(job);
    else if (this.current === "output") this.drawOutput(job);
  }

  drawDurations(scene, colours) {
    const bins = scene.durations, width = this.bins.clientWidth, height = 124;
    const slowest = scene.slowest || [];
    rows(this.slowest, slowest.length ? [null, ...slowest] : [], (node, entry) => {
      node.className = entry ? "nbpar-slow" : "";
      if (!entry) { put(node, "slowest"); return; }
      const [index, took, , item] = entry;
      rows(node, [duration(took), `item ${count(index)}`, item], putWhole, "span");
    });
    const words = bins.filter((bin) => bin[2]).map(([from, to, n]) => `${short(from)} to ${short(to)}, ${plural(n, "task")}`);
    set(this.bins, "aria-label", `how long tasks took: ${words.join("; ")}`);
    if (!width) return;
    const g = brush(this.bins, width, height), n = bins.length;
    const most = Math.max(...bins.map((bin) => bin[2])), left = 20, base = height - 18;
    const pitch = Math.min(56, (width - 2 * left) / n);
    g.fillStyle = colours.line;
    g.fillRect(0, base, width, 1);
    g.font = "10px system-ui, sans-serif";
    g.textBaseline = "middle";
    bins.forEach(([, , tasks], i) => {
      if (!tasks) return;
      const h = Math.max(2, (base - 20) * tasks / most);
      g.fillStyle = colours.alt;
      g.beginPath();
      if (g.roundRect) g.roundRect(left + i * pitch + 1, base - h, Math.max(1, pitch - 2), h, [2, 2, 0, 0]);
      else g.rect(left + i * pitch + 1, base - h, Math.max(1, pitch - 2), h);
      g.fill();
      const text = count(tasks);
      if (g.measureText(text).width > pitch - 2) return;
      g.fillStyle = colours.soft;
      g.textAlign = "center";
      g.fillText(text, left + (i + 0.5) * pitch, base - h - 7);
    });
    g.fillStyle = colours.soft;
    g.textAlign = "left";
    const edges = [...bins.map((bin) => bin[0]), bins[n - 1][1]].map(short);
    const room = Math.max(...edges.map((text) => g.measureText(text).width)) + 12;
    for (let i = 0; i <= n; i += Math.ceil(room / pitch)) {
      const wide = g.measureText(edges[i]).width;
      g.fillText(edges[i], left + i * pitch - wide / 2, base + 10);
    }
  }

  drawFailures(job) {
    const { failures, scene } = job, list = this.parts.failures;
    const more = scene.n_failed > failures.length && failures.length;
    const longest = (texts, most) => `${Math.min(most, Math.max(0, ...texts.map((text) => text.length)))}ch`;
    list.style.setProperty("--index", longest(failures.map(([index]) => `#${index}`), 12));
    list.style.setProperty("--item", longest(failures.map(([, item]) => item), this.card.size === "narrow" ? 14 : 40));
    rows(list, more ? [...failures, null] : failures, (node, entry) => {
      if (!entry) { // the first 100 are told
        node.className = "nbpar-empty";
        put(node, `and ${count(scene.n_failed - failures.length)} more`);
        return;
      }
      if (node.tagName !== "DETAILS") { // made as a plain row: a failure is one that opens
        const details = make("details", "nbpar-failure");
        make("summary", "", details);
        node.replaceWith(details);
        node = details;
      }
      const [index, item, error, , traceback] = entry, [summary] = node.children;
      rows(summary, [`#${index}`, item, error], putWhole, "span");
      node.toggleAttribute("data-bare", !traceback);
      if (traceback && !node.querySelector("pre")) make("pre", "", node);
      if (traceback) put(node.querySelector("pre"), traceback);
    });
  }

  drawOutput(job) {
    const { panel, groups } = this, { lines, scene } = job;
    const atEnd = panel.scrollTop + panel.clientHeight >= panel.scrollHeight - 4;
    const byTask = new Map();
    for (const line of lines) {
      const [worker, index] = line;
      const key = worker < 0 ? "nbpar" : index === null ? `worker ${worker}` : `item ${count(index)} · worker ${worker}`;
      const group = byTask.get(key);
      if (group) group.push(line); else byTask.set(key, [line]);
    }
    const entries = [...byTask];
    if (scene.n_lines > lines.length) {
      entries.unshift(["", [[0, null, false, `the last ${count(lines.length)} of ${count(scene.n_lines)} lines`]]]);
    }
    rows(groups, entries, (node, [key, group]) => {
      node.className = "nbpar-group";
      if (!node.children.length) { make("div", "", node); make("pre", "", node); }
      put(node.children[0], key);
      rows(node.children[1], group, (part, [, , isError, text]) => {
        put(part, text || " ");
        part.className = isError ? "nbpar-err" : "";
      });
    });
    if (atEnd || this.shownOutput !== "output") panel.scrollTop = panel.scrollHeight;
    this.shownOutput = this.current;
  }
}

// --- the card --------------------------------------------------------------------------------------------------------

const NAMES = ["bg", "lane", "task", "alt", "fail", "wait", "start", "init", "run", "soft", "mem", "mark", "line"];

class Card {
  constructor(job, el, canCancel, redraw) {
    this.job = job;
    this.redraw = redraw;
    this.size = "";
    this.longest = {}; // room of each figure, in characters
    const root = (this.root = make("div", "nbpar-card", el));
    root.setAttribute("role", "region");
    make("style", "", root, STYLE);
    const head = make("div", "nbpar-head", root);
    this.name = make("div", "nbpar-name", head);
    this.hint = make("div", "nbpar-hint", head);
    this.hint.setAttribute("role", "status");
    this.status = make("div", "nbpar-status", head);
    this.status.setAttribute("role", "status");
    if (canCancel) {
      const paused = () => job.scene.status === "paused";
      this.pause = button("nbpar-button", head, "Pause", () => job.ask(paused() ? "resume" : "pause"));
      this.cancel = button("nbpar-button", head, "Cancel", () => job.cancel());
    }
    this.bar = make("div", "nbpar-bar", root);
    this.bar.setAttribute("role", "progressbar");
    this.bar.setAttribute("aria-valuemin", "0");
    this.bar.setAttribute("aria-valuemax", "100");
    this.barDone = make("div", "", this.bar);
    this.barFailed = make("div", "nbpar-bar-failed", this.bar);
    this.figures = make("div", "nbpar-figures", root);
    this.stream = new Stream(this, root);
    this.slot = new Slot(this, root);
    this.panels = new Panels(this, root);
    this.speaker = new Speaker(root);
  }

  draw() {
    const { job, root } = this, { scene } = job;
    if (!scene) return;
    const dark = isDark();
    root.toggleAttribute("data-dark", dark);
    if (!this.colours || !this.colours.bg || this.dark !== dark) { // outside the document all of them are empty
      const style = getComputedStyle(root);
      this.colours = Object.fromEntries(NAMES.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
      this.dark = dark;
    }
    const width = root.clientWidth;
    if (width) this.size = width < 520 ? "narrow" : width < 800 ? "medium" : "wide";
    set(root, "data-size", this.size);
    if (width) root.toggleAttribute("data-tiny", width < 400);
    set(root, "aria-label", `nbpar: ${scene.name}`);
    this.drawHead(scene);
    this.drawProgress(scene);
    this.stream.draw(this.colours);
    this.slot.draw();
    this.panels.draw(this.colours);
  }

  drawHead(scene) {
    const { job } = this, focused = document.activeElement;
    put(this.name, scene.name);
    set(this.name, "title", scene.name);
    put(this.hint, job.hint);
    put(this.status, job.cancelling && !job.ended ? "cancelling" : scene.status);
    set(this.status, "data-status", scene.status);
    if (!this.cancel) return;
    put(this.pause, scene.status === "paused" ? "Resume" : "Pause");
    this.pause.hidden = !job.canPause;
    this.cancel.hidden = job.ended;
    // Not `disabled`, which would take the focus away; a second click does nothing anyway.
    set(this.pause, "aria-disabled", String(job.cancelling || job.asking !== ""));
    set(this.cancel, "aria-disabled", String(job.cancelling));
    if (focused && focused.hidden && (focused === this.pause || focused === this.cancel)) this.stream.lanes.focus();
  }

  drawProgress(scene) {
    const total = scene.n_tasks === null ? 0 : scene.n_tasks;
    const done = total > 0 ? Math.min(1, scene.n_done / total) : scene.status === "done" ? 1 : 0;
    const failed = total > 0 && scene.n_failed ? Math.min(done, Math.max(0.005, scene.n_failed / total)) : 0;
    set(this.bar, "data-status", scene.status);
    if (scene.n_tasks === null && scene.status !== "done") this.bar.removeAttribute("aria-valuenow"); // no end is known
    else set(this.bar, "aria-valuenow", String(Math.round(100 * done)));
    set(this.bar, "aria-valuetext", [scene.tasks, ...scene.figures].join(", "));
    set(this.bar, "aria-label", scene.name);
    this.barDone.style.width = `${100 * (done - failed)}%`;
    this.barFailed.style.width = `${100 * failed}%`;
    rows(this.figures, [scene.tasks, ...scene.figures], (node, text, i) => {
      const kind = i === 0 ? "" : /failed$/.test(text) ? "failed" : /serial$/.test(text) ? "gain"
        : / left$|^took /.test(text) ? "time" : "rate";
      node.className = kind && `nbpar-${kind}`;
      // About what it takes, for figures that change do not push the others; what was longer once is given up by and by.
      const longest = (this.longest[kind] = Math.max((this.longest[kind] || 0) - 0.05, text.length));
      node.style.minWidth = `${0.86 * longest}ch`;
      // The figure strong, its unit not: "312" "/s", "2.3 s" "left", "1,284" "of 2,000 tasks".
      const parts = text.match(kind === "time" ? /^(took )?(.*?)( left)?$/ : /^()(\S+)(.*)$/);
      const [, before, figure, after] = parts || [text, "", text, ""];
      if (node.dataset.text === text) return;
      node.dataset.text = text;
      node.replaceChildren(before || "", make("b", "", null, figure), after || "");
    });
  }
}

export default {
  initialize({ model }) { jobOf(model); },

  render({ model, el }) {
    const job = jobOf(model);
    let frame = 0;
    const redraw = () => { if (!frame) frame = requestAnimationFrame(() => { frame = 0; card.draw(); }); };
    const card = new Card(job, el, model.get("can_cancel"), redraw);
    job.listeners.add(redraw);
    if (!job.pinging) {
      job.pinging = true; // of the model's first view alone
      job.ping();
    }
    const theme = new MutationObserver(redraw);
    const watched = { attributes: true, attributeFilter: ["data-jp-theme-light", "class", "theme"] };
    theme.observe(document.body, watched);
    theme.observe(document.documentElement, watched);
    const media = window.matchMedia("(prefers-color-scheme: dark)");
    media.addEventListener("change", redraw);
    const size = new ResizeObserver(redraw);
    size.observe(card.root);
    size.observe(card.stream.canvas);
    card.draw();
    return () => {
      job.listeners.delete(redraw);
      theme.disconnect();
      size.disconnect();
      media.removeEventListener("change", redraw);
      if (frame) cancelAnimationFrame(frame);
    };
  },
};
