"use strict";
// Text from files enters the page through textContent and setAttribute alone, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const PAGE = 25;
const SVG = "http://www.w3.org/2000/svg";
const whole = new Intl.NumberFormat("en-US");
const WORDS = { virus: "virus", others: "others", no_call: "no call" };

function make(name, className, text) {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

// Cut, not rounded: a score below a cut-off must not read as one that reaches it.
function decimals(score) {
  return (Math.floor(score * 1e4 + 1e-7) / 1e4).toFixed(4);
}

// The other way round: a rate above a limit must not read as one that keeps it.
function decimalsUp(rate) {
  return (Math.ceil(rate * 1e4 - 1e-7) / 1e4).toFixed(4);
}

function draw(parent, name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
}

// ---- calls: a row is an array; COLUMNS gives its fields in order

const FIELD = Object.fromEntries(data.fields.map((name, index) => [name, index]));
const COLUMNS = [
  { field: "id", title: "Record" },
  { field: "call", title: "Call" },
  { field: "score", title: "Score", number: true },
  { field: "probability", title: "Probability", number: true },
  { field: "fdr", title: "FDR", number: true },
  { field: "length", title: "Length", number: true },
  { field: "chunks_scored", title: "Chunks scored", number: true },
  { field: "frames", title: "Frames", number: true },
  { field: "reason", title: "Reason" },
].filter((column) => column.field in FIELD).filter((column) => column.field !== "reason" || data.rows.some((row) => row[FIELD.reason]));

const tracked = new Map(data.tracks.map((track, index) => [track.number, `track-${index}`]));
const FOLDED = 8; // tracks beyond these wait for a click; all of them are printed
const state = { sort: null, down: false, call: "", find: "", page: 0, rows: data.rows };

function compare(a, b) {
  const x = a[FIELD[state.sort]], y = b[FIELD[state.sort]];
  if (x === y) return 0;
  if (x === null || x === "") return 1;
  if (y === null || y === "") return -1;
  return (x < y ? -1 : 1) * (state.down ? -1 : 1);
}

function select() {
  const find = state.find.toLowerCase();
  state.rows = data.rows.filter((row) =>
    (!state.call || row[FIELD.call] === state.call) &&
    (!find || ["id", "description", "reason"].some((name) => row[FIELD[name]].toLowerCase().includes(find))));
  if (state.sort) state.rows.sort(compare);
  state.page = 0;
  fill();
}

function cell(row, column) {
  const value = row[FIELD[column.field]];
  const td = make("td", column.number ? "number" : `${column.field}-cell`);
  if (column.field === "id") {
    const name = make("bdi", "", value);
    const anchor = tracked.get(row[FIELD.number]);
    if (anchor) {
      const link = make("a");
      link.href = `#${anchor}`;
      link.addEventListener("click", unfold);
      link.append(name);
      td.append(link);
    } else td.append(name);
    if (row[FIELD.description]) td.append(make("small", "", row[FIELD.description]));
  } else if (column.field === "call") {
    td.append(make("span", `call ${value}`, WORDS[value]));
  } else if (column.field === "score") {
    if (value !== null) {
      const meter = make("span", `meter ${row[FIELD.call]}`), level = make("i");
      level.style.width = `${100 * value}%`;
      meter.append(level);
      td.append(meter, decimals(value));
    } else td.textContent = "–";
  } else if (column.field === "probability" || column.field === "fdr") {
    td.textContent = value === null ? "–" : column.field === "fdr" ? decimalsUp(value) : decimals(value);
  } else if (column.field === "chunks_scored") {
    td.textContent = `${whole.format(value)} of ${whole.format(row[FIELD.chunks])}`;
  } else td.textContent = column.number ? whole.format(value) : value;
  return td;
}

function fill() {
  const first = state.page * PAGE, shown = state.rows.slice(first, first + PAGE);
  document.querySelector("#table tbody").replaceChildren(...shown.map((row) => {
    const tr = make("tr");
    tr.append(...COLUMNS.map((column) => cell(row, column)));
    return tr;
  }));
  document.getElementById("range").textContent = shown.length
    ? `${whole.format(first + 1)}–${whole.format(first + shown.length)} of ${whole.format(state.rows.length)} records${data.complete ? "" : " shown here"}`
    : "no record matches";
  document.getElementById("previous").disabled = state.page === 0;
  document.getElementById("next").disabled = first + PAGE >= state.rows.length;
}

function turn(by) {
  state.page += by;
  fill();
}

function header(column) {
  const th = make("th", column.number ? "number" : "");
  th.scope = "col";
  const button = make("button", "", column.title);
  button.type = "button";
  const downFirst = Boolean(column.number);
  button.addEventListener("click", () => {
    // First click, the other direction, then the order in which the page lists the records.
    if (state.sort !== column.field) [state.sort, state.down] = [column.field, downFirst];
    else if (state.down === downFirst) state.down = !downFirst;
    else state.sort = null;
    for (const other of th.parentNode.children) other.removeAttribute("aria-sort");
    if (state.sort) th.setAttribute("aria-sort", state.down ? "descending" : "ascending");
    select();
  });
  th.append(button);
  return th;
}

function segment(call, title) {
  const number = call ? data.rows.filter((row) => row[FIELD.call] === call).length : data.rows.length;
  const button = make("button", "", `${title} ${whole.format(number)}`);
  button.type = "button";
  button.setAttribute("aria-pressed", String(state.call === call));
  button.addEventListener("click", () => {
    state.call = call;
    for (const other of button.parentNode.children) other.setAttribute("aria-pressed", String(other === button));
    select();
  });
  return button;
}

document.querySelector("#table thead tr").append(...COLUMNS.map(header));
document.getElementById("filter").append(
  segment("", "all"), ...Object.entries(WORDS).map(([call, title]) => segment(call, title)));
document.getElementById("find").addEventListener("input", (event) => {
  state.find = event.target.value;
  select();
});
document.getElementById("previous").addEventListener("click", () => turn(-1));
document.getElementById("next").addEventListener("click", () => turn(1));
fill();

// ---- tracks: bars of s along the sequence

const LEFT = 30, TOP = 6, HEIGHT = 84, RIBBON = 9, BOTTOM = 22;
const BRACKET = 18; // height of the row above a track in which its regions are marked
const KINDS = { whole_record: "whole record", viral_part: "viral part", provirus_candidate: "provirus candidate" };

function place(bases) {
  if (bases >= 1e6) return `${+(bases / 1e6).toFixed(2)} Mb`;
  return bases >= 1000 ? `${+(bases / 1000).toFixed(2)} kb` : `${bases}`;
}

function tickStep(length, number) {
  const rough = length / number, power = 10 ** Math.floor(Math.log10(rough));
  return Math.max(1, power * [1, 2, 5, 10].find((factor) => factor * power >= rough));
}

// Where bar i is drawn: neighbours that overlap meet in the middle of the overlap.
function edges(track) {
  const { start, end } = track, last = start.length - 1;
  return start.map((from, i) => [
    i ? Math.floor((from + end[i - 1]) / 2) : from,
    i < last ? Math.floor((start[i + 1] + end[i]) / 2) : end[i],
  ]);
}

// Neighbouring bars of one call, joined; a gap between two of the same call is bridged, in a fainter shade.
function stretches(track) {
  const found = [];
  track.edges.forEach(([from, to], i) => {
    if (track.s[i] === null) return;
    const kind = track.s[i] >= 0.5 ? "virus" : "others", last = found.at(-1);
    if (last && last.kind === kind && last.to >= from) {
      last.to = to;
      return;
    }
    if (last && last.kind === kind) found.push({ kind, from: last.to, to: from, bridge: true });
    found.push({ kind, from, to, bridge: false });
  });
  return found;
}

// A bracket above the plot for each viral region; a provirus candidate is named.
function brackets(svg, track, x, top) {
  let free = -Infinity; // where the last label ends
  for (const [start, end, kind, score] of track.regions) {
    const a = x(start), b = Math.max(x(end), a + 2), y = top - 8;
    const group = draw(svg, "g", { class: `region ${kind}` });
    draw(group, "title", {}, `${KINDS[kind]}: ${whole.format(start + 1)}–${whole.format(end)}, ${whole.format(end - start)} bases, score ${decimals(score)}`);
    draw(group, "path", { d: `M${a} ${top - 2}V${y}H${b}V${top - 2}` });
    draw(group, "rect", { class: "over", x: a, y: y - 3, width: b - a, height: 12 });
    if (kind !== "provirus_candidate") continue;
    const room = svg.clientWidth || 1000, half = 55, middle = Math.min(Math.max((a + b) / 2, LEFT + half), room - half);
    if (middle - half < free) continue;
    draw(group, "text", { x: middle, y: y - 4, "text-anchor": "middle" }, KINDS[kind]);
    free = middle + half;
  }
}

function paint(svg, track) {
  const width = Math.max(240, svg.clientWidth || 1000), inner = width - LEFT - 1;
  const top = TOP + (track.regions.length ? BRACKET : 0), middle = top + HEIGHT / 2;
  const x = (base) => LEFT + (base / track.length) * inner;
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${top + HEIGHT + RIBBON + BOTTOM + 5}`);
  draw(svg, "rect", { class: "plot", x: LEFT, y: top, width: inner, height: HEIGHT });
  for (const [value, y] of [["1", top], ["0.5", middle], ["0", top + HEIGHT]])
    draw(svg, "text", { x: LEFT - 5, y: y + 4, "text-anchor": "end" }, value);
  const bars = { virus: "", others: "" };
  track.edges.forEach(([from, to], i) => {
    const s = track.s[i];
    if (s === null) return;
    const kind = s >= 0.5 ? "virus" : "others", a = x(from).toFixed(2), b = x(to).toFixed(2);
    const y = top + HEIGHT * (1 - s), tip = Math.abs(y - middle) < 1 ? middle + (s >= 0.5 ? -1 : 1) : y;
    bars[kind] += `M${a} ${middle}V${tip.toFixed(2)}H${b}V${middle}Z`;
  });
  for (const kind of ["others", "virus"]) draw(svg, "path", { class: kind, d: bars[kind] });
  for (const { kind, from, to, bridge } of stretches(track))
    draw(svg, "rect", { class: bridge ? `${kind} bridge` : kind, x: x(from), y: top + HEIGHT + 5, width: x(to) - x(from), height: RIBBON });
  draw(svg, "line", { class: "axis", x1: LEFT, x2: width - 1, y1: middle, y2: middle });
  draw(svg, "rect", { class: "ribbon", x: LEFT, y: top + HEIGHT + 5, width: inner, height: RIBBON });
  const step = tickStep(track.length, Math.max(2, inner / 110)), base = top + HEIGHT + RIBBON + 5;
  for (let at = 0; at <= track.length; at += step) {
    draw(svg, "line", { class: "axis", x1: x(at), x2: x(at), y1: base, y2: base + 4 });
    const anchor = at === 0 ? "start" : x(at) > width - 30 ? "end" : "middle";
    draw(svg, "text", { x: x(at), y: base + 16, "text-anchor": anchor }, place(at));
  }
  track.cursor = draw(svg, "line", { class: "cursor", y1: top, y2: base, visibility: "hidden" });
  brackets(svg, track, x, top);
  track.x = x;
  track.unplace = (left) => ((left * width / svg.clientWidth - LEFT) / inner) * track.length;
}

function point(track, readout, index) {
  track.at = Math.min(track.s.length - 1, Math.max(0, index));
  const i = track.at, s = track.s[i], first = i * track.step + 1, last = Math.min(track.chunks, first + track.step - 1);
  const name = first === last ? `chunk ${whole.format(first)}` : `chunks ${whole.format(first)}–${whole.format(last)}, mean`;
  const middle = track.x((track.edges[i][0] + track.edges[i][1]) / 2);
  for (const side of ["x1", "x2"]) track.cursor.setAttribute(side, middle);
  track.cursor.setAttribute("visibility", "visible");
  readout.textContent = `${name} · ${whole.format(track.start[i] + 1)}–${whole.format(track.end[i])} · ` +
    (s === null ? "no stop-free frame" : `s = ${decimals(s)}`);
}

function figure(track, index) {
  const box = make("figure", "track");
  box.id = `track-${index}`;
  const caption = make("figcaption"), name = make("span", "name"), readout = make("span", "readout");
  name.append(make("bdi", "", track.id), " ", make("span", `call ${track.call}`, WORDS[track.call]), " ",
    make("span", "muted", `${whole.format(track.length)} bases · score ${decimals(track.score)}`));
  const summary = `${whole.format(track.virus)} of ${whole.format(track.scored)} scored chunks called virus` +
    (track.step > 1 ? ` · a bar is the mean of ${track.step} chunks` : "");
  const candidates = track.regions.filter(([, , kind]) => kind === "provirus_candidate").length;
  readout.textContent = summary;
  if (candidates) name.append(" ", make("span", "call proviral", candidates === 1 ? "provirus candidate" : `${candidates} provirus candidates`));
  if (track.description) name.append(make("span", "about", track.description));
  caption.append(name, readout);
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("tabindex", "0");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `Scores along ${track.id}: ${summary}. Arrow keys read single values.`);
  track.edges = edges(track);
  track.at = -1;
  svg.addEventListener("pointermove", (event) => {
    const at = track.unplace(event.clientX - svg.getBoundingClientRect().left);
    const index = track.edges.findIndex(([, to]) => at < to);
    point(track, readout, index < 0 ? track.s.length - 1 : index);
  });
  svg.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    point(track, readout, track.at + by);
  });
  for (const leave of ["pointerleave", "blur"]) svg.addEventListener(leave, () => {
    track.cursor.setAttribute("visibility", "hidden");
    readout.textContent = summary;
  });
  box.append(caption, svg);
  return [box, svg];
}

const figures = document.getElementById("figures");
const painted = data.tracks.map((track, index) => {
  const [box, svg] = figure(track, index);
  box.classList.toggle("folded", index >= FOLDED);
  figures.append(box);
  return () => paint(svg, track);
});
const repaint = () => painted.forEach((again) => again());
const more = make("button", "more", `Show all ${data.tracks.length} tracks`);
more.type = "button";

function unfold() {
  if (!more.isConnected) return;
  more.remove();
  for (const box of figures.querySelectorAll(".folded")) box.classList.remove("folded");
  repaint();
}

more.addEventListener("click", unfold);
if (data.tracks.length > FOLDED) figures.append(more);
repaint();
addEventListener("resize", repaint);
