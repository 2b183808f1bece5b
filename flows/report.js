// The clips of the page: a table to sort, and the chosen clip's panels, which all show the same frame.
// What is shown stands in the address: #clip=<id>&frame=<number>&sort=<column>, a "-" before the column: reversed.
"use strict";
const clips = JSON.parse(document.getElementById("clips").textContent);
const columns = JSON.parse(document.getElementById("columns").textContent);
const find = (id) => document.getElementById(id);
const slider = find("frame");
const state = { order: [], column: "", reversed: false, clip: null, frame: 0, drawn: [], timer: 0 };

// Worst first: what is low of a figure that should be high, and the other way round. Missing figures come last.
function sort(column, reversed) {
  const key = columns.find((entry) => entry.name === column);
  const sign = (key.higher_is_better ? 1 : -1) * (reversed ? -1 : 1);
  const value = (clip) => clip.figures[column] ?? null;
  state.order = [...clips].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === null || y === null) return (x === null) - (y === null);
    return sign * (typeof x === "string" ? x.localeCompare(y) : x - y);
  });
  Object.assign(state, { column, reversed });
  document.querySelectorAll("#table th").forEach((head) => {
    head.removeAttribute("aria-sort");
    if (head.dataset.column === column) head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
  });
  find("rows").replaceChildren(...state.order.map((clip) => clip.row));
}

function makeRow(clip) {
  clip.row = document.createElement("tr");
  for (const { name } of columns) {
    const cell = clip.row.insertCell();
    const value = clip.figures[name] ?? null;
    const isNumber = typeof value === "number";
    cell.textContent = value === null ? "–" : isNumber ? value.toPrecision(4) : value;
    cell.className = isNumber || value === null ? "number" : "";
  }
  clip.row.onclick = () => choose(clip, 0);
}

function makePanel(label, sprite, name) {
  const figure = document.createElement("figure");
  const canvas = figure.appendChild(document.createElement("canvas"));
  Object.assign(canvas, { width: sprite.width, height: sprite.height });
  canvas.setAttribute("aria-label", `${label} of ${name}`);
  figure.appendChild(document.createElement("figcaption")).textContent = label;
  const image = new Image();
  const draw = (frame) => {
    const left = (frame % sprite.columns) * sprite.width;
    const top = Math.floor(frame / sprite.columns) * sprite.height;
    const size = [sprite.width, sprite.height];
    canvas.getContext("2d").drawImage(image, left, top, ...size, 0, 0, ...size);
  };
  const ready = new Promise((resolve, reject) => Object.assign(image, { onload: resolve, onerror: reject }));
  image.src = sprite.source;
  return { figure, draw, ready };
}

// Shows a clip from one of its frames on; nothing is drawn before all its pictures are there.
async function choose(clip, frame) {
  if (clip === state.clip) return show(frame);
  Object.assign(state, { clip, drawn: [] });
  state.order.forEach((other) => other.row.classList.toggle("chosen", other === clip));
  find("name").textContent = clip.figures.id;
  find("viewer").hidden = !clip.sprites;
  find("unseen").hidden = Boolean(clip.sprites);
  if (!clip.sprites) return show(0);
  const { videos, panels, still, numbers } = clip.sprites;
  const make = (group) => Object.entries(group).map(([label, sprite]) => makePanel(label, sprite, clip.figures.id));
  const [top, below, views] = [make(videos), make(panels), make({ "the object's six views": still })];
  await Promise.all([...top, ...below, ...views].map((panel) => panel.ready));
  if (clip !== state.clip) return;
  find("videos").replaceChildren(...top.map((panel) => panel.figure));
  find("panels").replaceChildren(...below.map((panel) => panel.figure));
  find("still").replaceChildren(...views.map((panel) => panel.figure));
  views.forEach((panel) => panel.draw(0));
  state.drawn = [...top, ...below];
  slider.max = numbers.length - 1;
  show(frame);
}

function show(frame) {
  const numbers = state.clip.sprites?.numbers ?? [0];
  state.frame = Math.min(Math.max(frame, 0), numbers.length - 1);
  state.drawn.forEach((panel) => panel.draw(state.frame));
  slider.value = state.frame;
  find("number").textContent = `frame ${numbers[state.frame]} (${state.frame + 1} of ${numbers.length})`;
  Object.assign(document.body.dataset, { clip: state.clip.figures.id, frame: state.frame });
  if (!state.timer) remember();
}

function remember() {
  const sorted = (state.reversed ? "-" : "") + state.column;
  const there = new URLSearchParams({ clip: state.clip.figures.id, frame: state.frame, sort: sorted });
  if (location.hash !== `#${there}`) location.replace(`#${there}`);
}

function recall() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const asked = wanted.get("sort") ?? "";
  const named = columns.find((entry) => entry.name === asked.replace(/^-/, ""));
  const column = named ?? columns[1] ?? columns[0]; // ids alone where no clip has a figure
  const reversed = asked.startsWith("-");
  if (column.name !== state.column || reversed !== state.reversed) sort(column.name, reversed);
  const clip = clips.find((entry) => entry.figures.id === wanted.get("clip")) ?? state.order[0];
  choose(clip, Number(wanted.get("frame")) || 0);
}

function play() {
  clearInterval(state.timer);
  const tick = () => show((state.frame + 1) % (state.clip.sprites?.numbers.length ?? 1));
  state.timer = state.timer ? 0 : setInterval(tick, 1000 / (state.clip.sprites?.fps ?? 1));
  find("play").textContent = state.timer ? "pause" : "play";
  if (!state.timer) remember();
}

function step(by) {
  const position = state.order.indexOf(state.clip) + by;
  const clip = state.order[Math.min(Math.max(position, 0), clips.length - 1)];
  choose(clip, state.frame);
  clip.row.scrollIntoView({ block: "nearest" });
}

const keys = {
  ArrowLeft: () => show(state.frame - 1),
  ArrowRight: () => show(state.frame + 1),
  ArrowUp: () => step(-1),
  ArrowDown: () => step(1),
  " ": play,
};

if (clips.length) {
  clips.forEach(makeRow);
  document.querySelectorAll("#table th").forEach((head) => {
    const { column } = head.dataset;
    head.onclick = () => { sort(column, column === state.column && !state.reversed); remember(); };
  });
  slider.oninput = () => show(Number(slider.value));
  find("play").onclick = play;
  document.addEventListener("keydown", (event) => {
    const isOurs = event.key in keys && !(event.altKey || event.ctrlKey || event.metaKey);
    if (!isOurs || (event.key === " " && event.target.tagName === "BUTTON")) return; // which space presses itself
    event.preventDefault();
    keys[event.key]();
  });
  addEventListener("hashchange", recall);
  recall();
}
