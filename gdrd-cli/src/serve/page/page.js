"use strict";

const $ = (id) => document.getElementById(id);
const API = "api/v1/recognition";
const PAGE = 60;
let key = "";
let about = null;
let shown = [];
let photograph = null;
let listed = 0;

/** An element with text, attributes and children; text is never read as HTML. */
function make(tag, { text, ...attributes } = {}, ...children) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function svg(tag, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function say(text, wrong = false) {
  $("said").textContent = text;
  $("said").className = wrong ? "wrong" : "";
}

async function ask(path, options = {}) {
  const answer = await fetch(path, { ...options, headers: { "x-api-key": key, ...options.headers } });
  if (!answer.ok) {
    const why = await answer.json().catch(() => ({ message: `the server answered ${answer.status}` }));
    throw new Error(why.message);
  }
  return answer;
}

const asJson = async (path, options) => (await ask(path, options)).json();

/** Does something and says why it did not work. */
async function attempt(work) {
  try {
    await work();
  } catch (error) {
    say(error.message, true);
  }
}

function form(file) {
  const body = new FormData();
  body.append("file", file);
  return body;
}

// The key

async function connect(given) {
  key = given.trim();
  about = await asJson("api/gdrd/about");
  sessionStorage.setItem("gdrd-key", key);
  const { student, detector } = about;
  $("student").textContent = `Student: ${student.kind}, sees faces at ${student.size}x${student.size} pixels.`;
  $("try-how").textContent = detector
    ? `Faces are looked for by ${detector}.`
    : "There is no detector: the image is taken for a face, its square middle if it is not square.";
  $("connect").hidden = true;
  $("main").hidden = false;
  say("");
  sizes();
  threshold(about.threshold ?? usual());
  inUse();
  await people();
  $("try-file").focus();
}

$("connect").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(() => connect($("key").value));
});

// Trying a face

async function look(file) {
  say("Looking …");
  const found = await asJson("api/gdrd/look", { method: "POST", body: form(file) });
  const image = await createImageBitmap(file).catch(() => null);
  photograph = image;
  shown = found.faces;
  say(`${shown.length === 1 ? "One face" : `${shown.length} faces`} in ${file.name}`);
  await draw();
}

/** What was cut out of the photograph. */
function cut(face) {
  const canvas = make("canvas", { width: 128, height: 128, role: "img", "aria-label": "the face in the image" });
  if (photograph) {
    const { x_min: x, y_min: y, x_max, y_max } = face.box;
    const side = Math.max(x_max - x, y_max - y);
    const [left, top] = [(x + x_max - side) / 2, (y + y_max - side) / 2];
    canvas.getContext("2d").drawImage(photograph, left, top, side, side, 0, 0, 128, 128);
  }
  return canvas;
}

async function draw() {
  const now = Number($("slider").value);
  const faces = await Promise.all(shown.map((face) => drawn(face, now)));
  $("faces").replaceChildren(...faces);
}

async function drawn(face, now) {
  const best = face.matches[0];
  const known = best && !face.unknowable && best.similarity >= now;
  const verdict = face.unknowable ? "Too small, or of one colour: nobody knows" : known ? `This is ${best.subject}` : best ? "Nobody who is known" : "Nobody is enrolled yet";
  const size = about.student.size;
  const quality = face.quality === null || face.quality === undefined ? "" : `; of such faces ${Math.round(100 * face.quality)} % are recognised at a false match rate of ${about.quality_false_match_rate}`;
  const small = make("img", { src: face.small, alt: `the face at ${size}x${size} pixels`, class: "small" });
  const matches = await Promise.all(face.matches.map((match) => matched(match, now)));
  return make("div", { class: "face" },
    make("p", { class: `verdict ${known ? "yes" : ""}`, text: verdict }),
    make("div", { class: "seen" },
      make("figure", {}, cut(face), make("figcaption", { text: `in the image: ${face.pixels} pixels${quality}` })),
      make("figure", {}, small, make("figcaption", { text: `as the student sees it: ${size}x${size}` }))),
    make("ol", { class: "matches" }, ...matches));
}

async function matched(match, now) {
  const share = Math.max(0, Math.min(1, match.similarity));
  const fill = make("i");
  fill.style.width = `${100 * share}%`;
  const mark = make("b");
  mark.style.left = `${100 * now}%`;
  return make("li", {},
    await picture(match.image_id, match.subject),
    make("div", {}, make("div", { class: "name", text: match.subject }), make("div", { class: "bar", "aria-hidden": "true" }, fill, mark)),
    make("span", { class: "score", text: match.similarity.toFixed(3) }));
}

/** An enrolled face as the student sees it; the key does not fit into an address. */
async function picture(id, name) {
  const bytes = id ? await (await ask(`api/gdrd/faces/${id}/small`)).blob().catch(() => null) : null;
  if (!bytes || bytes.size === 0) return make("span", { class: "quiet", text: "no image" });
  return make("img", { src: URL.createObjectURL(bytes), alt: `${name}, as the student sees them`, class: "small" });
}

$("try-file").addEventListener("change", () => {
  const [file] = $("try-file").files;
  if (file) attempt(() => look(file));
});

for (const zone of document.querySelectorAll(".drop")) {
  const input = $(zone.dataset.for);
  zone.addEventListener("dragover", (event) => { event.preventDefault(); zone.classList.add("over"); });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    input.files = event.dataTransfer.files;
    input.dispatchEvent(new Event("change"));
  });
}

// People

async function people(more = false) {
  if (!more) {
    $("people").replaceChildren();
    listed = 0;
  }
  const { subjects } = await asJson(`${API}/subjects`);
  $("count").textContent = subjects.length ? `(${subjects.length})` : "";
  about.subjects = subjects.length;
  const next = subjects.slice(listed, listed + PAGE);
  $("people").append(...await Promise.all(next.map(person)));
  listed += next.length;
  $("more").hidden = listed >= subjects.length;
  explain();
}

async function person(name) {
  const { faces, total_elements: count } = await asJson(`${API}/faces?size=6&subject=${encodeURIComponent(name)}`);
  const thumbs = await Promise.all(faces.map((face) => picture(face.image_id, name)));
  const remove = make("button", { type: "button", class: "bad", text: "Delete", "aria-label": `Delete ${name}` });
  remove.addEventListener("click", () => {
    if (!confirm(`Delete ${name} with every image and embedding?`)) return;
    attempt(async () => {
      const answer = await ask(`${API}/subjects/${encodeURIComponent(name)}`, { method: "DELETE" });
      const missed = answer.headers.has("warning");
      say(missed ? `${name} is deleted here, but not yet from a backup that could not be reached` : `${name} is deleted`, missed);
      await people();
      $("name").focus();
    });
  });
  return make("li", {},
    make("span", { class: "name", text: name }),
    make("span", { class: "thumbs" }, ...thumbs),
    make("span", { class: "quiet", text: count === 1 ? "1 face" : `${count} faces` }),
    remove);
}

$("more").addEventListener("click", () => attempt(() => people(true)));

$("enrol").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(async () => {
    const [name, files] = [$("name").value.trim(), [...$("enrol-files").files]];
    const wrong = [];
    for (const [at, file] of files.entries()) {
      say(`Enrolling ${name}: ${at + 1} of ${files.length} …`);
      const path = `${API}/faces?subject=${encodeURIComponent(name)}`;
      await ask(path, { method: "POST", body: form(file) }).catch((error) => wrong.push(`${file.name}: ${error.message}`));
    }
    const count = files.length - wrong.length;
    say([`${name}: ${count} of ${files.length} images enrolled`, ...wrong].join("; "), wrong.length > 0);
    if (count > 0) $("enrol").reset();
    await people();
  });
});

// The threshold along the measured errors

const measured = () => about.calibration?.sizes.find((one) => String(one.size) === $("size").value)?.thresholds ?? [];

function sizes() {
  const all = about.calibration?.sizes ?? [];
  $("size").replaceChildren(...all.map((one) => make("option", { value: one.size, text: one.size })));
  const usual = all.filter((one) => one.size <= about.student.size).pop() ?? all[0];
  if (usual) $("size").value = usual.size;
  $("size-row").hidden = all.length < 2;
  for (const id of ["curve", "legend"]) $(id).toggleAttribute("hidden", all.length === 0);
  axes();
}

/** The threshold at one in a thousand, or at the next rate that was measured. */
function usual() {
  const points = measured();
  return (points.find((point) => Math.abs(point.false_match_rate - 1e-3) < 1e-9) ?? points[points.length - 1])?.similarity ?? 0.5;
}

// A plot of 480x240: similarities to the right, rates from 1 in 10,000 to all upwards.
const [LEFT, RIGHT, TOP, BOTTOM, DECADES] = [58, 470, 10, 205, 4];
const right = (similarity) => LEFT + similarity * (RIGHT - LEFT);
const up = (rate) => TOP + Math.min(DECADES, -Math.log10(Math.max(rate, 1e-9))) / DECADES * (BOTTOM - TOP);
const parts = (rate) => (rate >= 0.995 ? "all" : rate >= 0.1 ? `${Math.round(100 * rate)} in 100` : `1 in ${Number((1 / rate).toPrecision(2)).toLocaleString("en")}`);

function axes() {
  const chart = $("curve");
  for (const old of [...chart.children].slice(1)) old.remove();
  const points = measured();
  if (!points.length) return;
  for (let decade = 0; decade <= DECADES; decade += 1) {
    const y = up(10 ** -decade);
    chart.append(svg("line", { x1: LEFT, x2: RIGHT, y1: y, y2: y, class: "grid" }));
    chart.append(svg("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, decade ? `1:${(10 ** decade).toLocaleString("en")}` : "all"));
  }
  for (let similarity = 0; similarity <= 1.001; similarity += 0.2) {
    chart.append(svg("text", { x: right(similarity), y: BOTTOM + 18, "text-anchor": "middle" }, similarity.toFixed(1)));
  }
  chart.append(svg("text", { x: (LEFT + RIGHT) / 2, y: BOTTOM + 33, "text-anchor": "middle" }, "similarity"));
  const line = (rate, name) => {
    const all = points.filter((point) => rate(point) !== null).map((point) => [right(point.similarity), up(rate(point))]);
    chart.append(svg("polyline", { points: all.map((at) => at.join(",")).join(" "), class: name }));
    for (const [cx, cy] of all) chart.append(svg("circle", { cx, cy, r: 4, class: name }));
  };
  line((point) => point.false_match_rate, "strangers");
  line((point) => (point.true_match_rate === undefined || point.true_match_rate === null ? null : 1 - point.true_match_rate), "missed");
  chart.append(svg("line", { y1: TOP, y2: BOTTOM, class: "handle", id: "handle" }));
  chart.append(svg("circle", { cy: TOP + 8, r: 8, class: "knob", id: "knob" }));
  $("curve-title").textContent = `Measured errors: ${points.map((point) => `at similarity ${point.similarity.toFixed(3)} ${parts(point.false_match_rate)} strangers`).join("; ")}`;
}

/** A rate between two measured points, straight in its logarithm; beyond them, which side it is on. */
function between(similarity, rate) {
  const points = measured().filter((point) => rate(point) !== null);
  const after = points.findIndex((point) => point.similarity >= similarity);
  if (!points.length) return null;
  if (after === 0) return { side: "more than", rate: rate(points[0]) };
  if (after < 0) return { side: "fewer than", rate: rate(points[points.length - 1]) };
  const [a, b] = [points[after - 1], points[after]];
  const part = (similarity - a.similarity) / (b.similarity - a.similarity || 1);
  const log = (point) => Math.log(Math.max(rate(point), 1e-9));
  return { side: "about", rate: Math.exp(log(a) + part * (log(b) - log(a))) };
}

function explain() {
  const now = Number($("slider").value);
  $("value").textContent = now.toFixed(3);
  if ($("handle")) {
    for (const [id, names] of [["handle", ["x1", "x2"]], ["knob", ["cx"]]]) names.forEach((name) => $(id).setAttribute(name, right(now)));
  }
  const strangers = between(now, (point) => point.false_match_rate);
  if (!strangers) {
    $("means").textContent = "The student's file has no measured errors (gdrd calibrate measures them), so that nothing is known of what a threshold means.";
    return;
  }
  const missed = between(now, (point) => (point.true_match_rate === undefined || point.true_match_rate === null ? null : 1 - point.true_match_rate));
  const many = Math.min(1, strangers.rate * Math.max(1, about.subjects));
  const text = [`Of strangers ${strangers.side} ${parts(strangers.rate)} are taken for a given person`];
  if (about.subjects > 1) text.push(`, and with ${about.subjects} people enrolled ${strangers.side} ${parts(many)} for somebody`);
  // More strangers is fewer of the person's own who are missed, and the other way round.
  const turned = { "more than": "fewer than", "fewer than": "more than", about: "about" };
  if (missed) text.push(`; of a person's own faces ${turned[missed.side]} ${Math.round(100 * missed.rate)} in 100 are not recognised`);
  $("means").textContent = `${text.join("")}.`;
}

function threshold(similarity) {
  $("slider").value = similarity;
  explain();
}

function inUse() {
  $("in-use").textContent = about.threshold === null ? "None in use: the nearest person is named, however far." : `In use: ${about.threshold.toFixed(3)}`;
  $("off").disabled = about.threshold === null;
}

async function keep(similarity) {
  const body = JSON.stringify({ similarity });
  await ask("api/gdrd/threshold", { method: "PUT", body, headers: { "Content-Type": "application/json" } });
  about.threshold = similarity;
  inUse();
  say(similarity === null ? "No threshold is in use" : `The threshold is ${similarity.toFixed(3)} now`);
}

$("slider").addEventListener("input", explain);
$("slider").addEventListener("change", () => attempt(draw));
$("size").addEventListener("change", () => { axes(); explain(); });
$("keep").addEventListener("click", () => attempt(() => keep(Number($("slider").value))));
$("off").addEventListener("click", () => attempt(() => keep(null)));

const drag = (event) => {
  const chart = $("curve").getBoundingClientRect();
  // The picture may be narrower than its place.
  const scale = Math.min(chart.width / 480, chart.height / 240);
  const x = (event.clientX - chart.left - (chart.width - 480 * scale) / 2) / scale;
  threshold(Math.max(0, Math.min(1, (x - LEFT) / (RIGHT - LEFT))));
};
$("curve").addEventListener("pointerdown", (event) => {
  $("curve").setPointerCapture(event.pointerId);
  drag(event);
});
$("curve").addEventListener("pointermove", (event) => {
  if ($("curve").hasPointerCapture(event.pointerId)) drag(event);
});
$("curve").addEventListener("pointerup", () => attempt(draw));

const kept = sessionStorage.getItem("gdrd-key");
if (kept) attempt(() => connect(kept).catch(() => sessionStorage.removeItem("gdrd-key")));
