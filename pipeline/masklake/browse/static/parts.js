// Elements, requests, and a picture with what lies over it. Texts of the table become text nodes: nothing here takes HTML.

export const byId = id => document.getElementById(id);

/** An element with attributes, properties for events, and children; a string among them is text. */
export function make(name, given = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key.startsWith("--")) element.style.setProperty(key, value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter(child => child !== null && child !== undefined));
  return element;
}

/** What the server answers; an Error with its sentence where it refuses. */
export async function ask(path, parameters, signal) {
  const query = parameters ? "?" + parameters : "";
  let response;
  try {
    response = await fetch(path + query, { signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("masklake browse does not answer: is the command still running?");
  }
  const answer = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
  if (!response.ok) throw new Error(answer.error || `the server answered ${response.status}`);
  return answer;
}

const waiting = [], SLOTS = 4;
let busy = 0;

/** Do something that takes the server a while when a place is free, so that pictures never keep questions waiting. */
export function queued(work) {
  return new Promise(done => { waiting.push([work, done]); serve(); });
}

/** Forget what waits: another page is shown. */
export function forget() {
  for (const [, done] of waiting.splice(0)) done(null);
}

function serve() {
  while (busy < SLOTS && waiting.length) {
    const [work, done] = waiting.shift();
    busy += 1;
    work().catch(() => null).then(found => { busy -= 1; done(found); serve(); });
  }
}

export const chip = colour => make("i", colour ? { class: "chip", "--colour": colour } : { class: "chip bare" });
export const figure = number => number.toLocaleString("en");
export const counted = (count, noun) => `${figure(count)} ${noun}${count === 1 ? "" : "s"}`;
export const percent = share => (share >= 0.0995 ? (100 * share).toFixed(0) : (100 * share).toFixed(1)) + "%";

/** A frame of the image's ratio with its photograph; `error` is called with a sentence where there is none. */
export function frame(image, side, error) {
  const photograph = make("img", { class: "photograph", alt: image.name, draggable: "false" });
  const shown = new Promise(done => {
    photograph.addEventListener("load", () => { photograph.classList.add("there"); done(); });
    photograph.addEventListener("error", async () => {
      const found = await ask(`photograph/${image.id}`, `side=${side}`).catch(reason => reason.message);
      error(typeof found === "string" ? found : "the picture cannot be shown");
      done();
    });
  });
  queued(() => { photograph.src = `photograph/${image.id}?side=${side}`; return shown; });
  return make("div", { class: "frame", "--ratio": image.width && image.height ? image.width / image.height : 4 / 3 }, photograph);
}

/** Put a painting (`layer`, `names`) over a frame, in place of what was there. */
export function paint(element, painting) {
  element.querySelectorAll(".layer, .tags").forEach(old => old.remove());
  if (!painting) return;
  const layer = make("img", { class: "layer there", alt: "", draggable: "false", src: painting.layer });
  const tags = make("div", { class: "tags", "aria-hidden": "true" });
  for (const name of painting.names) {
    const score = name.score === null ? null : make("b", {}, name.score.toFixed(2));
    const tag = make("span", { class: name.small ? null : "roomy", "--colour": name.colour }, make("bdi", {}, name.text), score);
    tag.style.left = `${100 * name.x}%`;
    tag.style.top = `${100 * name.y}%`;
    tags.append(tag);
  }
  element.append(layer, tags);
  within(tags);
}

/** Names stand where they were placed for a large picture; on a small one, those at its border move inwards, and none lies over another. */
function within(tags) {
  const width = tags.clientWidth, height = tags.clientHeight, taken = [];
  if (!width) return;
  for (const tag of [...tags.children]) {
    const half = tag.offsetWidth / 2, tall = tag.offsetHeight / 2;
    const x = Math.min(Math.max(tag.offsetLeft, half), Math.max(half, width - half)), y = Math.min(Math.max(tag.offsetTop, tall), height - tall);
    if (!tag.offsetWidth) continue;
    if (taken.some(other => Math.abs(other.x - x) < other.half + half && Math.abs(other.y - y) < 2 * tall)) { tag.remove(); continue; }
    taken.push({ x, y, half });
    tag.style.left = `${(100 * x) / width}%`;
    tag.style.top = `${(100 * y) / height}%`;
  }
}
