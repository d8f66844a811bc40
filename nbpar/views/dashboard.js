// The live card of a job, drawn from the messages of scene.py. Loaded by anywidget; no build step, nothing fetched.
//
// A model (one per job) keeps the scene; each of its views draws it. Foreign text (names, items, errors) is only ever
// set as textContent. Colours come from CSS variables, so that light and dark differ in one place.

const ACK_MS = 300; // a kernel that can answer does so in some 70 ms
const PING_MS = 2000; // between two questions whether messages reach the kernel while its cell runs
const N_FIELDS = 6; // numbers per span: begin, end, first, last, tasks, failed
const BEGIN = 0, END = 1, FIRST = 2, LAST = 3, TASKS = 4, FAILED = 5;
const MANY_LANES = 24; // from here on lanes are thin and without text
const ENDED = ["done", "failed", "cancelled"];

const STYLE = `
.nbpar-card { --bg: #ffffff; --ink: #1f2328; --soft: #656d76; --line: #d8dee4; --lane: #f3f5f7; --task: #3b7dd8;
  --alt: #79aeea; --fail: #d55e00; --wait: #e9edf1; --init: #b8a9d9; --run: #9cc3f0; --ok: #1a7f5a; --warn: #8a5a00;
  --warnbg: #fff6dd; --chip: #eef2f6;
  box-sizing: border-box; max-width: 940px; margin: 4px 0; padding: 12px 16px 14px; border: 1px solid var(--line);
  border-radius: 8px; background: var(--bg); color: var(--ink); font: 13px/1.4 system-ui, -apple-system, sans-serif; }
.nbpar-card[data-dark] { --bg: #111418; --ink: #e6e9ed; --soft: #9aa4af; --line: #2d333b; --lane: #1b2027;
  --task: #4a8fe7; --alt: #2f6bb5; --fail: #ff8a3d; --wait: #232930; --init: #8273b3; --run: #2c4c73; --ok: #4cc38a;
  --warn: #f0c674; --warnbg: #2b2413; --chip: #20262e; }
.nbpar-head { display: flex; align-items: center; gap: 12px; min-height: 24px; }
.nbpar-name { flex: 1; font-weight: 600; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.nbpar-hint { color: var(--warn); }
.nbpar-status { font-weight: 600; color: var(--task); }
.nbpar-status[data-status=done] { color: var(--ok); }
.nbpar-status[data-status=failed] { color: var(--fail); }
.nbpar-status[data-status=paused] { color: var(--warn); }
.nbpar-status[data-status=cancelled] { color: var(--soft); }
.nbpar-button { font: inherit; font-size: 12px; color: var(--ink); background: var(--chip); cursor: pointer;
  border: 1px solid var(--line); border-radius: 5px; padding: 2px 10px; }
.nbpar-button:hover:enabled { border-color: var(--soft); }
.nbpar-button:focus-visible { outline: 2px solid var(--task); outline-offset: 1px; }
.nbpar-button:disabled { color: var(--soft); cursor: default; }
.nbpar-bar { position: relative; display: flex; height: 6px; margin: 8px 0 7px; border-radius: 3px; overflow: hidden;
  background: var(--wait); }
.nbpar-bar > * { width: 0; background: var(--task); }
.nbpar-bar[data-status=done] > :first-child { background: var(--ok); }
.nbpar-bar > .nbpar-bar-failed { background: var(--fail); }
.nbpar-figures { display: flex; flex-wrap: wrap; gap: 0 18px; margin-bottom: 8px;
  font-variant-numeric: tabular-nums; }
.nbpar-figures > :first-child { font-weight: 600; }
.nbpar-figures > .nbpar-failed { font-weight: 600; color: var(--fail); }
.nbpar-stream { display: grid; grid-template-columns: auto minmax(120px, 1fr) auto; column-gap: 10px; }
.nbpar-stream[data-many] { grid-template-columns: 1fr; }
.nbpar-stream[data-many] > .nbpar-side { display: none; }
.nbpar-side { font-size: 11.5px; color: var(--soft); white-space: nowrap; font-variant-numeric: tabular-nums; }
.nbpar-side > div { display: flex; gap: 12px; align-items: center; overflow: hidden; }
.nbpar-side .nbpar-count { color: var(--ink); min-width: 3.2em; text-align: right; }
.nbpar-side .nbpar-busy { min-width: 5.4em; }
.nbpar-side .nbpar-now { width: 13em; text-align: right; overflow: hidden; text-overflow: ellipsis; }
.nbpar-side .nbpar-ended { text-decoration: line-through; }
.nbpar-canvas { display: block; width: 100%; }
.nbpar-note { margin-top: 8px; padding: 3px 12px; border-radius: 5px; background: var(--warnbg); color: var(--warn); }
.nbpar-failures { margin-top: 8px; }
.nbpar-failures > summary { font-weight: 600; cursor: pointer; }
.nbpar-failures > div { display: grid; grid-template-columns: max-content fit-content(45%) minmax(0, 1fr);
  column-gap: 16px; max-height: 168px; overflow: auto; padding: 2px 12px; font: 11.5px/1.7 ui-monospace, monospace; }
.nbpar-failures > div > div { display: contents; }
.nbpar-failures span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
`;

// --- the model: what is known of the job ------------------------------------------------------------------------------

const jobs = new WeakMap(); // model -> Job

class Job {
  constructor(model) {
    this.model = model;
    this.scene = null;
    this.spans = new Map(); // worker id -> flat numbers
    this.failures = [];
    this.notes = [];
    this.hint = "";
    this.asked = false;
    this.acknowledged = false;
    this.cancelling = false;
    this.asking = ""; // "pause" or "resume", until it is answered
    this.delivers = false; // a message was answered while the cell ran
    this.gone = false;
    this.listeners = new Set();
    this.take(model.get("scene"));
    model.on("msg:custom", (content) => {
      if (content && content.scene) this.take(content.scene);
      if (!content || !this.scene) return;
      if (content.ack !== undefined && content.ack === this.scene.job) this.answered(content.of || "cancel");
      if (content.pong !== undefined && content.pong === this.scene.job) {
        this.delivers = this.delivers || this.scene.cell_is_running;
        this.changed();
      }
    });
    model.on("change:scene", () => this.take(model.get("scene")));
    for (const event of ["destroy", "comm:close"]) model.on(event, () => { this.gone = true; });
    // A model that was made again, on a page opened anew, may have missed messages while it was made, even the last.
    if (this.scene && this.scene.seq > 1) {
      this.asked = true;
      model.send({ want: "all" });
    }
  }

  // Whether a click on Pause would reach the kernel: not one whose cell blocks and leaves messages lying.
  get canPause() { return !this.ended && Boolean(this.scene.can_pause) && (this.delivers || !this.scene.cell_is_running); }

  get ended() { return this.gone || !this.scene || ENDED.includes(this.scene.status); }

  take(scene) {
    if (!scene || scene.seq === undefined) return;
    if (!scene.full && !(this.scene && scene.seq === this.scene.seq + 1)) {
      if (!this.asked) this.model.send({ want: "all" }); // one was missed: what builds on it cannot be drawn
      this.asked = true;
      return;
    }
    const spans = new Map();
    for (const lane of scene.lanes) {
      const known = scene.full ? [] : this.spans.get(lane.id) || [];
      known.length = Math.min(known.length, lane.kept * N_FIELDS);
      for (const number of lane.spans) known.push(number);
      spans.set(lane.id, known);
    }
    this.spans = spans;
    this.scene = scene;
    this.asked = false;
    if (scene.failures) this.failures = scene.failures;
    if (scene.notes) this.notes = scene.notes;
    this.changed();
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
}

function jobOf(model) {
  let job = jobs.get(model);
  if (!job) jobs.set(model, (job = new Job(model)));
  return job;
}

// --- the view ---------------------------------------------------------------------------------------------------------

function make(tag, className, parent) {
  const node = document.createElement(tag);
  node.className = className;
  if (parent) parent.append(node);
  return node;
}

function put(node, text) { if (node.textContent !== text) node.textContent = text; }

function isDark() {
  const light = document.body.dataset.jpThemeLight; // JupyterLab, Notebook
  if (light !== undefined) return light === "false";
  if (document.body.classList.contains("vscode-dark")) return true;
  if (document.body.classList.contains("vscode-light")) return false;
  return window.matchMedia("(prefers-color-scheme: dark)").matches;
}

function seconds(t) {
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

function laneSize(n) { // height and gap, in pixels
  if (n < MANY_LANES) return [16, 5];
  return n <= 48 ? [8, 2] : [4, 1];
}

class Card {
  constructor(job, el, canCancel) {
    this.job = job;
    const root = (this.root = make("div", "nbpar-card", el));
    make("style", "", root).textContent = STYLE;
    const head = make("div", "nbpar-head", root);
    this.name = make("div", "nbpar-name", head);
    this.hint = make("div", "nbpar-hint", head);
    this.hint.setAttribute("role", "status");
    this.status = make("div", "nbpar-status", head);
    if (canCancel) {
      this.pause = make("button", "nbpar-button", head);
      this.pause.type = "button";
      this.pause.onclick = () => job.ask(job.scene.status === "paused" ? "resume" : "pause");
      this.button = make("button", "nbpar-button", head);
      this.button.type = "button";
      this.button.onclick = () => job.cancel();
    }
    this.bar = make("div", "nbpar-bar", root);
    this.bar.setAttribute("role", "progressbar");
    this.barDone = make("div", "", this.bar);
    this.barFailed = make("div", "nbpar-bar-failed", this.bar);
    this.figures = make("div", "nbpar-figures", root);
    const stream = (this.stream = make("div", "nbpar-stream", root));
    this.left = make("div", "nbpar-side", stream);
    this.canvas = make("canvas", "nbpar-canvas", stream);
    this.canvas.setAttribute("role", "img");
    this.right = make("div", "nbpar-side", stream);
    this.notes = make("div", "", root);
    this.failures = make("details", "nbpar-failures", root);
    this.failures.open = true;
    this.failuresTitle = make("summary", "", this.failures);
    this.failuresList = make("div", "", this.failures);
    this.canvas.onmousemove = (event) => { this.canvas.title = this.under(event.offsetX, event.offsetY); };
  }

  draw() {
    const { job } = this, { scene } = job;
    if (!scene) return;
    this.root.toggleAttribute("data-dark", isDark());
    put(this.name, scene.name);
    put(this.hint, job.hint);
    put(this.status, job.cancelling && !job.ended ? "cancelling" : scene.status);
    this.status.dataset.status = scene.status;
    if (this.button) {
      put(this.pause, scene.status === "paused" ? "Resume" : "Pause");
      this.pause.hidden = !job.canPause;
      this.pause.disabled = job.cancelling || job.asking !== "";
      put(this.button, "Cancel");
      this.button.hidden = job.ended;
      this.button.disabled = job.cancelling;
    }
    const total = scene.n_tasks === null ? 0 : scene.n_tasks;
    const done = total > 0 ? Math.min(1, scene.n_done / total) : scene.status === "done" ? 1 : 0;
    const failed = total > 0 && scene.n_failed ? Math.min(done, Math.max(0.005, scene.n_failed / total)) : 0;
    this.bar.dataset.status = scene.status;
    this.bar.setAttribute("aria-valuenow", String(Math.round(100 * done)));
    this.barDone.style.width = `${100 * (done - failed)}%`;
    this.barFailed.style.width = `${100 * failed}%`;
    this.rows(this.figures, [scene.tasks, ...scene.figures], (node, text) => {
      put(node, text);
      node.className = text.endsWith(" failed") ? "nbpar-failed" : "";
    });
    this.drawSides(scene);
    this.drawLanes(scene);
    this.rows(this.notes, job.notes, (node, text) => { node.className = "nbpar-note"; put(node, text); });
    this.failures.hidden = scene.n_failed === 0;
    put(this.failuresTitle, `${scene.n_failed.toLocaleString("en")} failed`);
    this.rows(this.failuresList, job.failures, (node, [index, item, error]) => {
      this.rows(node, [`#${index}`, item, error], (part, text) => { put(part, text); part.title = text; }, "span");
    });
  }

  // One child of `parent` per entry, made or removed as needed and otherwise left in place.
  rows(parent, entries, fill, tag = "div") {
    while (parent.childElementCount > entries.length) parent.lastElementChild.remove();
    while (parent.childElementCount < entries.length) make(tag, "", parent);
    entries.forEach((entry, i) => fill(parent.children[i], entry));
  }

  drawSides(scene) {
    const few = scene.lanes.length < MANY_LANES;
    this.stream.toggleAttribute("data-many", !few);
    const lanes = few ? scene.lanes : [];
    const [height, gap] = laneSize(scene.lanes.length);
    const size = (node) => { node.style.height = `${height}px`; node.style.marginBottom = `${gap}px`; };
    this.rows(this.left, lanes, (node, lane) => {
      size(node);
      this.rows(node, [String(lane.id)], (part, text) => {
        put(part, text);
        part.className = lane.alive ? "" : "nbpar-ended";
      }, "span");
    });
    const classes = ["nbpar-count", "nbpar-busy", "nbpar-now"];
    this.rows(this.right, lanes, (node, lane) => {
      size(node);
      const texts = [lane.n_done, `busy ${lane.busy}`, lane.now];
      this.rows(node, texts, put, "span");
      classes.forEach((name, i) => { node.children[i].className = name; });
    });
  }

  drawLanes(scene) {
    const { canvas } = this;
    const [height, gap] = laneSize(scene.lanes.length);
    const pitch = height + gap;
    const width = canvas.clientWidth, total = scene.lanes.length * pitch + 18;
    if (!width) return; // not laid out: drawn when the observer sees a size
    const ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(total * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(total * ratio);
      canvas.style.height = `${total}px`;
    }
    const style = getComputedStyle(this.root);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const g = canvas.getContext("2d");
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.clearRect(0, 0, width, total);
    const tEnd = Math.max(scene.elapsed_s, 1e-3);
    const x = (t) => Math.min(width, (width * t) / tEnd);
    const inset = height > 4 ? 1 : 0;
    const block = (fill, begin, end, y, least = 0.6) => {
      const left = x(begin), gapX = x(end) - left > 2.5 ? 0.8 : 0;
      g.fillStyle = fill;
      g.beginPath();
      const w = Math.max(least, x(end) - left - gapX);
      if (g.roundRect && w > 3 && height > 4) g.roundRect(left, y + inset, w, height - 2 * inset, 1.5);
      else g.rect(left, y + inset, w, height - 2 * inset);
      g.fill();
    };
    const fills = [colour("alt"), colour("task")], failFill = colour("fail");
    scene.lanes.forEach((lane, row) => {
      const y = row * pitch, spans = this.job.spans.get(lane.id) || [];
      g.fillStyle = colour("lane");
      g.fillRect(0, y, width, height);
      if (lane.ready_s > lane.begin_s) block(colour("init"), lane.begin_s, lane.ready_s, y);
      for (let i = 0; i < spans.length; i += N_FIELDS) {
        if (!spans[i + FAILED]) block(fills[(i / N_FIELDS) % 2], spans[i + BEGIN], spans[i + END], y);
      }
      if (lane.index !== null) {
        block(colour("run"), lane.since_s, tEnd, y);
        const [done, of] = lane.track || [0, null];
        if (of) block(fills[1], lane.since_s, lane.since_s + (tEnd - lane.since_s) * Math.min(1, done / of), y);
      }
      for (let i = 0; i < spans.length; i += N_FIELDS) { // last, and never too thin to be seen
        if (!spans[i + FAILED]) continue;
        block(failFill, spans[i + BEGIN], spans[i + END], y, 3);
        const left = x(spans[i + BEGIN]), right = x(spans[i + END]);
        if (right - left >= 8 && height > 8) { // a cross: not the colour alone says it
          const cx = (left + right) / 2, cy = y + height / 2;
          g.strokeStyle = "#fff";
          g.lineWidth = 1.6;
          g.beginPath();
          g.moveTo(cx - 3, cy - 3); g.lineTo(cx + 3, cy + 3); g.moveTo(cx + 3, cy - 3); g.lineTo(cx - 3, cy + 3);
          g.stroke();
        }
      }
    });
    this.drawAxis(g, width, scene.lanes.length * pitch + 11, tEnd, colour("soft"));
    canvas.setAttribute("aria-label", `${scene.tasks}; ${scene.lanes.length} workers over ${seconds(tEnd)}`);
  }

  drawAxis(g, width, y, tEnd, fill) {
    if (!this.job.scene.lanes.length) return;
    g.fillStyle = fill;
    g.font = "10.5px system-ui, sans-serif";
    g.textBaseline = "middle";
    const step = axisStep(tEnd, Math.max(2, width / 90));
    for (let t = 0; t <= tEnd * (1 + 1e-9); t += step) {
      const at = (width * t) / tEnd, text = seconds(t), half = g.measureText(text).width / 2;
      g.textAlign = "left";
      g.fillText(text, Math.min(width - 2 * half, Math.max(0, at - half)), y);
    }
  }

  // What is drawn at a point of the canvas, in words.
  under(px, py) {
    const { scene } = this.job;
    const [height, gap] = laneSize(scene.lanes.length);
    const lane = scene.lanes[Math.floor(py / (height + gap))];
    if (!lane) return "";
    const t = (px / this.canvas.clientWidth) * scene.elapsed_s;
    const spans = this.job.spans.get(lane.id) || [];
    for (let i = 0; i < spans.length; i += N_FIELDS) {
      if (t < spans[i + BEGIN] || t > spans[i + END]) continue;
      const [first, last, n, failed] = [FIRST, LAST, TASKS, FAILED].map((field) => spans[i + field]);
      const items = first === last ? `item ${first}` : `${n} tasks, items ${first} to ${last}`;
      return `worker ${lane.id}: ${items}, ${seconds(spans[i + END] - spans[i + BEGIN])}`
        + (failed ? `, ${failed} failed` : "");
    }
    if (t >= lane.begin_s && t < lane.ready_s) return `worker ${lane.id}: starting`;
    if (lane.index !== null && t >= lane.since_s) return `worker ${lane.id}: ${lane.now}`;
    return `worker ${lane.id}`;
  }
}

export default {
  initialize({ model }) { jobOf(model); },

  render({ model, el }) {
    const job = jobOf(model), card = new Card(job, el, model.get("can_cancel"));
    let frame = 0;
    const redraw = () => { if (!frame) frame = requestAnimationFrame(() => { frame = 0; card.draw(); }); };
    job.listeners.add(redraw);
    if (!job.pinging) {
      job.pinging = true; // of the model's first view alone
      job.ping();
    }
    const theme = new MutationObserver(redraw);
    theme.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "class"] });
    const media = window.matchMedia("(prefers-color-scheme: dark)");
    media.addEventListener("change", redraw);
    const size = new ResizeObserver(redraw);
    size.observe(card.canvas);
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
