// One image, large: zoom and pan, its segments, and beside it ground truth, what differs, or another answer.
import { ask, byId, chip, counted, frame, make, paint, percent } from "./parts.js";

const SIDE = 1600, LARGEST = 4096, MOST = 24;
const dialog = byId("view"), stages = byId("stages"), beside = byId("beside"), least = byId("least");
const place = { zoom: 1, x: 0, y: 0 };
let shown = null, told = null, turn = null, pointers = new Map();

export const isOpen = () => dialog.open;
const style = () => document.querySelector("[name=view-style]:checked").value;

/** Show an image; `next(by)` goes to another one. */
export async function open(image, next, masks) {
  turn = next;
  const first = !dialog.open;
  if (first) {
    document.querySelector(`[name=view-style][value=${masks}]`).checked = true;
    dialog.showModal();
  }
  shown = image;
  told = null;
  byId("view-title").textContent = image.name;
  byId("view-folder").textContent = image.folder;
  byId("side").replaceChildren();
  fit();
  layOut();
  const row = await ask(`row/${image.id}`).catch(error => ({ segments: [], facts: [], others: [], truth: false, failed: error.message }));
  if (shown !== image) return;
  told = row;
  choices();
  describe();
  if (beside.value !== "none") layOut();
}

function choices() {
  const wanted = beside.value;
  const options = [["none", "nothing"], ["photograph", "the photograph"]];
  if (told.truth) options.push(["truth", "ground truth"], ["difference", "difference"]);
  for (const other of told.others) options.push([`row-${other.id}`, `${other.model} (${other.at.slice(0, 16)})`]);
  beside.replaceChildren(...options.map(([value, text]) => make("option", { value }, text)));
  beside.value = options.some(([value]) => value === wanted) ? wanted : "none";
}

function layOut() {
  const wanted = told ? beside.value || "none" : "none";
  stages.replaceChildren(stage(shown, "", element => answer(element, shown.id)));
  if (wanted === "photograph") stages.append(stage(shown, "photograph", () => {}));
  if (wanted === "truth" || wanted === "difference") stages.append(stage(shown, "", element => truth(element, wanted)));
  if (wanted.startsWith("row-")) {
    const other = told.others.find(each => `row-${each.id}` === wanted);
    stages.append(stage(shown, other.model, element => answer(element, other.id)));
  }
  move();
}

function stage(image, said, painted) {
  const element = make("div", { class: "stage" });
  if (image.width) {
    const picture = frame(image, SIDE, reason => element.append(make("p", { class: "why" }, reason)));
    element.append(picture);
    painted(picture);
  } else element.append(make("p", { class: "why" }, image.error || "there is no picture"));
  if (said) element.append(make("p", { class: "said" }, said));
  return element;
}

async function answer(element, id) {
  const masks = style();
  if (masks === "none" || shown.status !== "ok") return paint(element, null);
  const score = told && least.dataset.touched ? { score: least.value } : {};
  const painting = await ask(`painted/${id}`, new URLSearchParams({ side: SIDE, style: masks, ...score })).catch(() => null);
  paint(element, painting);
}

async function truth(element, wanted) {
  const said = make("p", { class: "said" }, "comparing");
  element.parentElement?.append(said);
  queueMicrotask(() => said.isConnected || element.parentElement?.append(said));
  try {
    const found = await ask(`truth/${shown.id}`, `side=${SIDE}`);
    paint(element, found[wanted]);
    const score = found.score === null ? "" : `${found.measure} ${(100 * found.score).toFixed(1)}`;
    if (wanted === "truth") said.replaceChildren("ground truth", score ? `, ${score}` : "");
    else said.replaceChildren(score, key("#408cff"), `missed ${percent(found.missed)}`, key("#ff8000"), `wrong ${percent(found.wrong)}`);
  } catch (error) {
    said.textContent = error.message;
  }
}

const key = colour => make("i", { "--colour": colour });

function describe() {
  const side = byId("side"), pixels = shown.width * shown.height;
  const list = make("div", { class: "segments" });
  const segments = [...told.segments].sort((one, two) => two.area - one.area);
  for (const segment of segments) {
    list.append(make("button", { type: "button", "data-score": segment.score, onclick: () => zoomTo(segment.bbox), onpointerenter: () => box(segment.bbox),
      onpointerleave: () => box(null), onfocus: () => box(segment.bbox), onblur: () => box(null) },
      chip(segment.colour), make("bdi", {}, segment.text), make("span", {}, `${segment.score.toFixed(2)} · ${percent(segment.area / pixels)}`)));
  }
  const facts = make("dl", {}, ...told.facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
  if (shown.width) facts.prepend(make("dt", {}, "size"), make("dd", {}, `${shown.width} × ${shown.height}`));
  const why = shown.error || told.failed;
  side.replaceChildren(...(why ? [make("p", { class: "why" }, why)] : [make("h3", {}, `${counted(segments.length, "object")}, score · share`), list]), facts);
  faint();
}

function faint() {
  byId("least-now").textContent = Number(least.value).toFixed(2);
  for (const button of document.querySelectorAll(".segments button")) button.classList.toggle("faint", Number(button.dataset.score) < Number(least.value));
}

function box(bounds) {
  document.querySelectorAll(".box").forEach(old => old.remove());
  if (!bounds) return;
  const [x, y, width, height] = bounds;
  for (const element of stages.querySelectorAll(".frame")) {
    const mark = make("div", { class: "box" });
    mark.style.left = `${100 * x / shown.width}%`;
    mark.style.top = `${100 * y / shown.height}%`;
    mark.style.width = `${100 * width / shown.width}%`;
    mark.style.height = `${100 * height / shown.height}%`;
    element.append(mark);
  }
}

// Zoom and pan: all frames move together. `x` and `y` are in pixels of the page, from where the frame lies when it fits.
function fit() { Object.assign(place, { zoom: 1, x: 0, y: 0 }); move(); }

function move() {
  const first = stages.querySelector(".stage"), picture = first?.querySelector(".frame");
  if (picture) {
    place.x = bounded(place.x, picture.offsetWidth, first.clientWidth);
    place.y = bounded(place.y, picture.offsetHeight, first.clientHeight);
  }
  for (const element of stages.querySelectorAll(".frame")) {
    element.style.setProperty("--x", `${place.x}px`);
    element.style.setProperty("--y", `${place.y}px`);
    element.style.setProperty("--zoom", place.zoom);
    const photograph = element.querySelector(".photograph");
    if (place.zoom > 1.6 && !photograph.dataset.fine && Math.max(shown.width, shown.height) > SIDE) {
      photograph.dataset.fine = "yes";
      const fine = new Image();
      fine.onload = () => { photograph.src = fine.src; };
      fine.src = `photograph/${shown.id}?side=${LARGEST}`;
    }
  }
  byId("zoom-now").textContent = `${Math.round(100 * place.zoom)}%`;
}

/** Keep the picture over the middle of the stage: `extent` is the frame's size before zooming, `room` the stage's. */
function bounded(offset, extent, room) {
  const gap = (room - extent) / 2, half = room / 2;
  return Math.min(half - gap, Math.max(half - gap - extent * place.zoom, offset));
}

/** Zoom so that what is under a point of the page stays there. */
function zoomBy(factor, clientX, clientY, stageElement = stages.querySelector(".stage")) {
  const picture = stageElement?.querySelector(".frame");
  if (!picture) return;
  const zoom = Math.min(MOST, Math.max(1, place.zoom * factor)), bounds = picture.getBoundingClientRect(), around = stageElement.getBoundingClientRect();
  const x = (clientX ?? around.x + around.width / 2) - bounds.x, y = (clientY ?? around.y + around.height / 2) - bounds.y;
  const change = zoom / place.zoom;
  Object.assign(place, { zoom, x: place.x - x * (change - 1), y: place.y - y * (change - 1) });
  if (zoom === 1) fit(); else move();
}

function zoomTo([x, y, width, height]) {
  const first = stages.querySelector(".stage"), picture = first?.querySelector(".frame");
  if (!picture) return;
  const scale = picture.offsetWidth / shown.width;
  place.zoom = Math.min(MOST, Math.max(1, 0.7 * Math.min(first.clientWidth / (width * scale), first.clientHeight / (height * scale))));
  place.x = first.clientWidth / 2 - (first.clientWidth - picture.offsetWidth) / 2 - (x + width / 2) * scale * place.zoom;
  place.y = first.clientHeight / 2 - (first.clientHeight - picture.offsetHeight) / 2 - (y + height / 2) * scale * place.zoom;
  move();
}

stages.addEventListener("wheel", event => {
  event.preventDefault();
  zoomBy(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0018)), event.clientX, event.clientY, event.target.closest(".stage"));
}, { passive: false });
stages.addEventListener("dblclick", event => place.zoom > 1 ? fit() : zoomBy(3, event.clientX, event.clientY, event.target.closest(".stage")));
stages.addEventListener("pointerdown", event => {
  const element = event.target.closest(".stage");
  if (!element) return;
  element.setPointerCapture(event.pointerId);
  element.classList.add("dragged");
  pointers.set(event.pointerId, event);
});
stages.addEventListener("pointermove", event => {
  const before = pointers.get(event.pointerId);
  if (!before) return;
  const others = [...pointers.values()].filter(each => each.pointerId !== event.pointerId);
  pointers.set(event.pointerId, event);
  if (others.length) {
    const [other] = others, apart = each => Math.hypot(each.clientX - other.clientX, each.clientY - other.clientY);
    zoomBy(apart(event) / Math.max(1, apart(before)), (event.clientX + other.clientX) / 2, (event.clientY + other.clientY) / 2, event.target.closest(".stage"));
  } else {
    place.x += event.clientX - before.clientX;
    place.y += event.clientY - before.clientY;
    move();
  }
});
for (const end of ["pointerup", "pointercancel"]) stages.addEventListener(end, event => {
  pointers.delete(event.pointerId);
  event.target.closest(".stage")?.classList.remove("dragged");
});

byId("zoom-in").onclick = () => zoomBy(1.5);
byId("zoom-out").onclick = () => zoomBy(1 / 1.5);
byId("zoom-fit").onclick = fit;
byId("view-close").onclick = () => dialog.close();
byId("view-previous").onclick = () => turn(-1);
byId("view-next").onclick = () => turn(1);
byId("view-style").onchange = layOut;
beside.onchange = layOut;
least.oninput = faint;
least.onchange = () => { least.dataset.touched = "yes"; layOut(); };
dialog.addEventListener("close", () => { shown = null; stages.replaceChildren(); });
addEventListener("resize", () => dialog.open && move());
dialog.addEventListener("keydown", event => {
  if (event.target.matches("select, input[type=range]") || event.ctrlKey || event.metaKey || event.altKey) return;
  const keys = {
    ArrowLeft: () => turn(-1), ArrowRight: () => turn(1), "+": () => zoomBy(1.5), "=": () => zoomBy(1.5), "-": () => zoomBy(1 / 1.5), 0: fit,
    m: () => cycle(), d: () => { beside.value = beside.value === "difference" || !told?.truth ? "none" : "difference"; layOut(); },
  };
  if (!keys[event.key]) return;
  event.preventDefault();
  event.stopPropagation();
  keys[event.key]();
});

function cycle() {
  const all = [...document.querySelectorAll("[name=view-style]")];
  all[(all.findIndex(each => each.checked) + 2) % 3].checked = true;
  layOut();
}
