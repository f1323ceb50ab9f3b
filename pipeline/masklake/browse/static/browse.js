// The grid, its filters, the chart, and "take these". The form is the question: its fields are the parameters of every request.
import { ask, byId, chip, counted, figure, forget, frame, make, paint, percent, queued } from "./parts.js";
import * as view from "./view.js";

const MOST = 24, LONGEST_CHART = 6;
const form = byId("filters"), grid = byId("grid");
const picked = new Map();
let table = null, images = [], first = 0, count = 0, asking = null, colours = new Map(), focused = 0, enlarged = 0;

const style = () => document.querySelector("[name=style]:checked").value;

/** What is asked for, as parameters; empty fields say nothing. Shares are percentages on the page. */
function question() {
  const given = new URLSearchParams();
  for (const [name, value] of new FormData(form)) {
    const text = String(value).trim();
    if (text === "" || name === "style") continue;
    if (name.startsWith("in.")) given.append(name, text === "(none)" ? "" : text);
    else given.append(name, name.startsWith("share_") ? String(Number(text) / 100) : text);
  }
  return given;
}

async function start() {
  try {
    table = await ask("table");
  } catch (error) {
    return notice(error.message, true);
  }
  fillChoices();
  restore();
  watch();
  await find(first);
}

function fillChoices() {
  const order = ["panoptic", "instance", "semantic"];
  const tasks = [...table.tasks].sort((one, two) => order.indexOf(one.value) - order.indexOf(two.value));
  byId("tasks").append(make("div", {}, ...tasks.map((task, number) => make("label", {}, make("input", { type: "radio", name: "task", value: task.value, checked: number === 0 }), make("span", {}, task.value)))));
  for (const [name, values] of Object.entries(table.partitions)) {
    const options = values.map(each => make("option", { value: each.value === null || each.value === "" ? "(none)" : each.value }, `${each.value ?? "(none)"} (${figure(each.rows)})`));
    const many = values.length > 1;
    const choice = make("select", { name: `in.${name}`, id: `in.${name}`, disabled: !many }, make("option", { value: "" }, "all"), ...options);
    byId("partitions").append(make("section", {}, make("h3", {}, make("label", { for: `in.${name}` }, name)), choice));
    byId("by").append(make("option", { value: name }, name));
  }
  byId("show-chart").hidden = !Object.keys(table.partitions).length;
  byId("errors").hidden = !table.errors.length;
  byId("error_code").append(...table.errors.map(each => make("option", { value: each.value }, `${each.value} (${figure(each.rows)})`)));
  byId("truth-choice").hidden = !table.truth.length;
}

/** Models of the task that is looked at; where there is one alone, there is nothing to choose or to compare. */
function fillModels() {
  const task = question().get("task"), models = table.models.filter(each => each.task === task), choice = byId("fingerprint"), wanted = choice.value;
  choice.replaceChildren(choice.options[0], ...models.map(each => make("option", { value: each.fingerprint, title: each.fingerprint }, `${each.model} ${each.fingerprint.slice(0, 8)} (${figure(each.rows)})`)));
  choice.value = models.some(each => each.fingerprint === wanted) ? wanted : "";
  byId("models").hidden = models.length < 2;
  byId("order").querySelector("[value=difference]").disabled = models.length < 2;
}

/** The page's address says what is shown, so that it can be loaded again. */
function remember() {
  const given = question();
  given.set("first", first);
  history.replaceState(null, "", "#" + given);
}

function restore() {
  const given = new URLSearchParams(location.hash.slice(1));
  first = Number(given.get("first")) || 0;
  for (const [name, value] of given) {
    if (name === "label") pending.add(value);
    const fields = [...form.elements].filter(field => field.name === name);
    for (const field of fields) {
      if (field.type === "radio" || field.type === "checkbox") field.checked = field.checked || field.value === value;
      else if (name.startsWith("share_")) field.value = String(Math.round(1e4 * value) / 100);
      else field.value = name.startsWith("in.") && value === "" ? "(none)" : value;
    }
  }
}
const pending = new Set();

async function find(from = 0) {
  first = from;
  asking?.abort();
  asking = new AbortController();
  const { signal } = asking;
  fillModels();
  const given = question();
  for (const label of pending) if (!given.getAll("label").includes(label)) given.append("label", label);
  grid.classList.add("waiting");
  try {
    const page = new URLSearchParams(given);
    page.set("first", first);
    page.set("most", MOST);
    const found = await ask("find", page, signal);
    ({ count, images } = found);
    notice("");
    show();
    remember();
    const counted = new URLSearchParams(given);
    counted.delete("label");
    classes(await ask("classes", counted, signal), new Set(given.getAll("label")));
    pending.clear();
    if (!byId("chart").hidden) await chart(signal);
  } catch (error) {
    if (error.name === "AbortError") return;
    notice(error.message, true);
  }
  if (asking?.signal === signal) grid.classList.remove("waiting");
}

function notice(text, bad = false) {
  const element = byId("notice");
  element.hidden = !text;
  element.classList.toggle("bad", bad);
  element.textContent = text;
}

/** While segments are read, what depends on them is asked for again. */
async function watch() {
  const state = await ask("state").catch(() => null);
  if (!state) return;
  if (state.failure) return notice(`Classes and scores are known of ${figure(state.read)} of ${counted(state.files, "file")} alone: ${state.failure}`, true);
  if (state.complete) {
    if (watched) { notice(""); find(first); }
    return;
  }
  watched = true;
  notice(`Reading classes and scores: ${figure(state.read)} of ${counted(state.files, "file")}.`);
  setTimeout(watch, 700);
}
let watched = false;

const seen = new IntersectionObserver(entries => {
  for (const { isIntersecting, target } of entries) if (isIntersecting) { seen.unobserve(target); load(target); }
}, { rootMargin: "300px" });

function show() {
  byId("count").textContent = figure(count);
  byId("described").textContent = (count === 1 ? "image" : "images") + described();
  seen.disconnect();
  forget();
  grid.replaceChildren(...images.map(card));
  if (!images.length) grid.append(make("p", { class: "empty" }, "No image fits. Take a condition away, or reset the filters."));
  grid.classList.remove("waiting");
  const pager = byId("pager");
  pager.hidden = count <= MOST;
  byId("where-now").textContent = `${figure(Math.min(count, first + 1))}–${figure(Math.min(count, first + MOST))} of ${figure(count)}`;
  byId("previous").disabled = first === 0;
  byId("next").disabled = first + MOST >= count;
  byId("take").disabled = !count;
  const active = [...question().keys()].filter(name => !["task", "order", "name"].includes(name)).length;
  byId("active").hidden = !active;
  byId("active").textContent = active;
  focused = Math.min(focused, Math.max(0, images.length - 1));
}

function described() {
  const given = question(), labels = given.getAll("label"), parts = [];
  if (labels.length) parts.push(`with ${labels.join(" or ")}`);
  if (given.has("share_from")) parts.push(`over ${percent(Number(given.get("share_from")))} of the frame`);
  if (given.has("share_to")) parts.push(`up to ${percent(Number(given.get("share_to")))} of the frame`);
  if (given.has("score_from")) parts.push(`score from ${given.get("score_from")}`);
  if (given.has("score_to")) parts.push(`score to ${given.get("score_to")}`);
  return parts.length ? " " + parts.join(", ") : "";
}

function card(image, number) {
  const place = make("div", { class: "place" });
  const box = make("input", { type: "checkbox", "aria-label": `Pick ${image.name}`, tabindex: "-1", onchange: () => pick(image, element) });
  box.checked = picked.has(image.id);
  const labels = image.labels.slice(0, 8).map(label => make("li", { title: `${label.text}: ${label.count} of score up to ${label.score.toFixed(2)}, ${percent(label.share)} of the frame` },
    chip(label.colour), make("bdi", {}, label.text), make("span", {}, label.count > 1 ? `×${label.count} ${label.score.toFixed(2)}` : label.score.toFixed(2))));
  const element = make("article", { class: box.checked ? "card picked-one" : "card", tabindex: "0", "data-number": number, "aria-label": image.name,
    onclick: event => event.target.closest(".pick") || enlarge(number), onfocus: () => { focused = number; } },
    make("label", { class: "pick" }, box), place,
    make("h3", {}, make("bdi", {}, image.name)), make("p", { class: "folder" }, make("bdi", {}, image.folder)), make("ul", {}, ...labels));
  seen.observe(element);
  return element;
}

function load(element) {
  const image = images[element.dataset.number], place = element.querySelector(".place");
  const why = text => place.replaceChildren(make("p", { class: "why" }, text));
  if (image.status !== "ok") {
    if (!image.width) return why(image.error);
    place.append(frame(image, 480, why), make("p", { class: "why" }, image.error));
    return;
  }
  place.append(frame(image, 480, why));
  layer(element, image);
}

async function layer(element, image) {
  const over = element.querySelector(".frame"), masks = style();
  if (!over || image.status !== "ok") return;
  const painting = masks === "none" ? null : await queued(() => ask(`painted/${image.id}`, `side=480&style=${masks}`));
  if (masks === style()) paint(over, painting);
}

async function enlarge(number) {
  enlarged = number;
  const turn = async by => {
    const wanted = enlarged + by;
    if (wanted >= 0 && wanted < images.length) return enlarge(wanted);
    const page = first + by * MOST;
    if (page < 0 || page >= count) return;
    await find(page);
    if (images.length) enlarge(by > 0 ? 0 : images.length - 1);
  };
  await view.open(images[number], turn, style());
}

function classes(found, wanted) {
  colours = new Map(found.map(each => [each.label, each.colour]));
  for (const label of wanted) if (!found.some(each => each.label === label)) found.unshift({ label, text: label, colour: null, images: 0 });
  byId("classes").replaceChildren(...found.map(each => {
    const box = make("input", { type: "checkbox", name: "label", value: each.label });
    box.checked = wanted.has(each.label);
    return make("label", { title: each.text }, box, chip(each.colour), make("bdi", {}, each.text), make("b", {}, figure(each.images)));
  }));
  if (!found.length) byId("classes").append(make("p", { class: "muted" }, "none among these images"));
  byId("class-search").hidden = found.length < 12;
  byId("no-classes").hidden = !wanted.size;
  sift();
}

function sift() {
  const text = byId("class-search").value.toLowerCase();
  for (const label of byId("classes").querySelectorAll("label")) label.hidden = !label.textContent.toLowerCase().includes(text);
}

async function chart(signal) {
  const by = byId("by").value, given = question();
  given.set("by", by);
  const bars = await ask("chart", given, signal);
  const totals = new Map();
  for (const bar of bars) for (const [label, number] of bar.classes) totals.set(label, (totals.get(label) || 0) + number);
  const most = [...totals].sort((one, two) => two[1] - one[1]).slice(0, LONGEST_CHART).map(([label]) => label);
  const sums = bars.map(bar => bar.classes.reduce((sum, [, number]) => sum + number, 0)), tallest = Math.max(1, ...sums);
  const every = Math.max(1, Math.ceil(bars.length / Math.max(2, Math.floor(byId("bars").clientWidth / 92))));
  byId("bars").replaceChildren(...bars.map((bar, number) => {
    const known = new Map(bar.classes), rest = sums[number] - most.reduce((sum, label) => sum + (known.get(label) || 0), 0);
    const parts = [...most.map(label => [label, known.get(label) || 0, colours.get(label)]), ["others", rest, "var(--muted)"]];
    const stack = make("div", { class: "stack" }, ...parts.map(([, value, colour]) => {
      const part = make("i", { "--colour": colour || "var(--line)" });
      part.style.height = `${(160 * value) / tallest}px`;
      return part;
    }));
    const name = bar.value ?? "(none)";
    const title = [`${name}: ${counted(bar.images, "image")}, ${counted(sums[number], "object")}`, ...parts.filter(([, value]) => value).map(([label, value]) => `${label} ${figure(value)}`)].join("\n");
    const choose = () => { byId(`in.${by}`).value = bar.value === null || bar.value === "" ? "(none)" : bar.value; find(); };
    return make("button", { type: "button", title, "aria-label": title, onclick: choose, class: number && number === bars.length - 1 ? "last" : null }, stack, number % every === 0 && number + every / 2 < bars.length ? make("small", {}, name) : null);
  }));
  byId("chart-legend").replaceChildren(...most.map(label => make("li", {}, chip(colours.get(label)), make("bdi", {}, label))), ...(totals.size > most.length ? [make("li", {}, chip("var(--muted)"), "others")] : []));
}

function pick(image, element) {
  if (!picked.delete(image.id)) picked.set(image.id, image);
  const chosen = picked.has(image.id);
  element?.classList.toggle("picked-one", chosen);
  const box = element?.querySelector("input");
  if (box) box.checked = chosen;
  byId("picked").hidden = !picked.size;
  byId("picked-count").textContent = `${figure(picked.size)} picked`;
}

async function take(ids) {
  const given = question();
  if (ids) given.set("ids", ids.join(","));
  const body = byId("take-body");
  try {
    const told = await ask("take", given);
    byId("taken").textContent = counted(told.count, "image");
    const parts = [make("a", { class: "primary", href: `${told.list}?${given}`, download: told.list }, "Download the list of images")];
    if (told.where) parts.push(make("div", {}, make("h3", {}, "As an SQL condition (--where)"), copyable(told.where)));
    body.replaceChildren(...parts, ...told.commands.map(each => make("div", {}, make("h3", {}, each.title), copyable(each.command))));
  } catch (error) {
    body.replaceChildren(make("p", {}, error.message));
  }
  byId("taking").showModal();
}

function copyable(text) {
  const button = make("button", { type: "button", onclick: async () => {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  } }, "Copy");
  return make("div", { class: "copy" }, make("code", {}, text), button);
}

let later = 0;
const soon = () => { clearTimeout(later); later = setTimeout(() => find(), 250); };
addEventListener("input", event => { if (event.target.form === form && event.target.matches("[type=search], [type=number], textarea")) soon(); });
addEventListener("change", event => { if (event.target.form === form && !event.target.matches("[type=search], [type=number], textarea")) find(); });
form.addEventListener("submit", event => { event.preventDefault(); find(); });
form.addEventListener("reset", () => { pending.clear(); setTimeout(() => { byId("classes").querySelectorAll("input").forEach(box => { box.checked = false; }); find(); }); });
byId("class-search").addEventListener("input", event => { event.stopPropagation(); sift(); });
byId("no-classes").onclick = () => { byId("classes").querySelectorAll("input").forEach(box => { box.checked = false; }); find(); };
byId("style").onchange = () => grid.querySelectorAll(".card").forEach(element => layer(element, images[element.dataset.number]));
byId("show-filters").onclick = () => drawer(true);
byId("hide-filters").onclick = () => drawer(false);
byId("previous").onclick = () => page(-1);
byId("next").onclick = () => page(1);
byId("take").onclick = () => take();
byId("take-picked").onclick = () => take([...picked.keys()]);
byId("unpick").onclick = () => { for (const image of [...picked.values()]) pick(image, null); grid.querySelectorAll(".picked-one").forEach(element => { element.classList.remove("picked-one"); element.querySelector("input").checked = false; }); };
byId("help-button").onclick = () => byId("help").showModal();
byId("by").onchange = () => chart().catch(error => notice(error.message, true));
byId("show-chart").onclick = () => {
  const element = byId("chart");
  element.hidden = !element.hidden;
  byId("show-chart").setAttribute("aria-expanded", String(!element.hidden));
  if (!element.hidden) chart().catch(error => notice(error.message, true));
};
for (const button of document.querySelectorAll("[data-close]")) button.onclick = () => button.closest("dialog").close();
for (const sheet of document.querySelectorAll(".sheet")) sheet.addEventListener("click", event => event.target === sheet && sheet.close());
byId("view").addEventListener("close", () => grid.children[enlarged]?.focus()); // the browser itself goes back to where it was opened

function drawer(open) {
  form.classList.toggle("open", open);
  byId("show-filters").setAttribute("aria-expanded", String(open));
  (open ? byId("hide-filters") : byId("show-filters")).focus();
}

async function page(by) {
  const wanted = first + by * MOST;
  if (wanted < 0 || wanted >= count) return;
  focused = 0;
  await find(wanted);
  scrollTo(0, 0);
  grid.children[0]?.focus();
}

addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.key === "Escape") {
    if (form.classList.contains("open")) return drawer(false);
    return document.activeElement?.blur();
  }
  if (event.target.matches("input:not([type=checkbox], [type=radio]), select, textarea")) return;
  const columns = getComputedStyle(grid).gridTemplateColumns.split(" ").length, current = grid.children[focused];
  const inGrid = grid.contains(document.activeElement);
  const to = number => {
    const target = grid.children[inGrid ? Math.min(images.length - 1, Math.max(0, number)) : focused];
    target?.focus();
    target?.scrollIntoView({ block: "nearest" });
  };
  const keys = {
    "/": () => byId("name").focus(), "?": () => byId("help").showModal(), n: () => page(1), p: () => page(-1),
    m: () => { const all = [...document.querySelectorAll("[name=style]")]; all[(all.findIndex(each => each.checked) + 2) % 3].click(); },
    ArrowRight: () => to(focused + 1), ArrowLeft: () => to(focused - 1), ArrowDown: () => to(focused + columns), ArrowUp: () => to(focused - columns),
    Enter: () => inGrid && images[focused] && enlarge(focused), x: () => inGrid && images[focused] && pick(images[focused], current),
  };
  if (!keys[event.key] || (event.key === "Enter" && !inGrid) || (event.key.startsWith("Arrow") && event.target.matches("input"))) return;
  event.preventDefault();
  keys[event.key]();
});

start();
