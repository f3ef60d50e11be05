// The page: an image goes to /predict, its run lengths come back, and are drawn over it.
"use strict";

const at = (id) => document.getElementById(id);
const canvas = at("picture"), ink = canvas.getContext("2d", { willReadFrequently: false });
let model = null;
let shown = null; // {bitmap, answer, index: Int16Array of segments, colors, blob, name, hidden: Set of classes, chosen}
let turn = 0; // an answer to an older image than the newest is not shown

function say(text, bad = false) {
  at("status").textContent = text;
  at("status").classList.toggle("bad", bad);
}

async function sentence(answer) {
  try { return (await answer.json()).detail ?? answer.statusText; } catch { return answer.statusText; }
}

async function ask(blob, accept, query = "") {
  const body = new FormData();
  body.append("image", blob, blob.name || "image");
  for (let attempt = 0; ; attempt++) {
    const answer = await fetch("predict" + query, { method: "POST", body, headers: { Accept: accept } });
    if (answer.status !== 503 || attempt === 5) {
      if (!answer.ok) throw new Error(await sentence(answer));
      return answer;
    }
    const seconds = Number(answer.headers.get("Retry-After")) || 1;
    say(`The server is busy; again in ${seconds} s …`);
    await new Promise((done) => setTimeout(done, 1000 * seconds));
  }
}

async function label(blob) {
  const mine = ++turn;
  stopCamera();
  stopLive();
  say("Labelling …");
  const begin = performance.now();
  try {
    const answer = await (await ask(blob, "application/json")).json();
    const seconds = (performance.now() - begin) / 1000;
    let bitmap;
    try { bitmap = await createImageBitmap(blob); } catch { bitmap = null; }
    if (!bitmap || bitmap.width !== answer.width || bitmap.height !== answer.height) // TIFF, HEIC, many bands …
      bitmap = await createImageBitmap(await (await ask(blob, "image/png", "?what=image")).blob());
    if (mine !== turn) return;
    shown = { blob, answer, bitmap, index: decoded(answer), colors: colored(answer), hidden: new Set(), chosen: null,
              name: (blob.name || "image").replace(/\.[^.]*$/, "") };
    say(`${answer.width} × ${answer.height} pixels in ${seconds.toFixed(2)} s`);
    listFound();
    draw();
  } catch (error) {
    if (mine === turn) say(error.message, true);
  }
}

// COCO's run lengths run down the columns, and begin with pixels outside.
function decoded({ width, height, segments }) {
  const index = new Int16Array(width * height).fill(-1);
  segments.forEach((segment, k) => {
    let place = 0, inside = false;
    for (const count of segment.segmentation.counts) {
      if (inside)
        for (let i = place; i < place + count; i++) index[(i % height) * width + Math.floor(i / height)] = k;
      place += count;
      inside = !inside;
    }
  });
  return index;
}

// Stuff in its class's colour, every thing in a shade of its own.
function colored({ classes, segments }) {
  const seen = {};
  return segments.map((segment) => {
    const hex = classes.find((c) => c.name === segment.category)?.color ?? "#888888";
    const rgb = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
    if (!segment.isthing) return rgb;
    const nth = (seen[segment.category] = (seen[segment.category] ?? -1) + 1);
    return rgb.map((v, i) => Math.max(0, Math.min(255, v + 96 * ((0.5 + nth * [0.618, 0.414, 0.732][i]) % 1 - 0.5))));
  });
}

function draw() {
  const { bitmap, answer, index, colors, hidden, chosen } = shown, { width, height, segments } = answer;
  canvas.width = width;
  canvas.height = height;
  ink.drawImage(bitmap, 0, 0, width, height);
  const opacity = at("opacity").value / 100, pixels = ink.getImageData(0, 0, width, height), data = pixels.data;
  const visible = segments.map((s, k) => !hidden.has(s.category) && (chosen === null || chosen === k));
  for (let i = 0; i < index.length; i++) {
    const k = index[i];
    if (k < 0 || !visible[k]) continue;
    const color = colors[k], edge = (i % width && index[i - 1] !== k) || (i >= width && index[i - width] !== k);
    const share = edge ? Math.min(1, opacity * 1.4) : opacity;
    for (let c = 0; c < 3; c++) {
      const over = edge ? 255 : color[c];
      data[4 * i + c] += share * (over - data[4 * i + c]);
    }
  }
  ink.putImageData(pixels, 0, 0);
  at("hint").hidden = true;
  canvas.hidden = false;
  at("drop").classList.add("filled");
  canvas.setAttribute("aria-label", "The labelled image: " +
    answer.classes.map((c) => `${c.name} ${percent(c.share)}`).join(", "));
}

const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;

function row(color, name, number, pressed, act) {
  const item = document.createElement("li"), button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-pressed", pressed);
  const swatch = document.createElement("span"), text = document.createElement("span"), value = document.createElement("span");
  swatch.className = "swatch";
  swatch.style.background = color;
  text.textContent = name;
  value.className = "number";
  value.textContent = number;
  button.append(swatch, text, value);
  button.addEventListener("click", () => act(button));
  item.append(button);
  return item;
}

function listFound() {
  const { answer, hidden, colors } = shown;
  at("found").hidden = false;
  at("legend").replaceChildren(...answer.classes.map((c) => row(c.color, c.name, percent(c.share), true, (button) => {
    hidden.has(c.name) ? hidden.delete(c.name) : hidden.add(c.name);
    button.setAttribute("aria-pressed", !hidden.has(c.name));
    draw();
  })));
  const things = answer.segments.map((s, k) => [s, k]).filter(([s]) => s.isthing);
  at("things-title").hidden = !things.length;
  at("things").replaceChildren(...things.map(([s, k]) => {
    const item = row(`rgb(${colors[k].map(Math.round)})`, s.category, s.score === null ? "" : percent(s.score), false,
                     () => choose(shown.chosen === k ? null : k));
    item.firstChild.dataset.segment = k;
    return item;
  }));
}

function choose(k) {
  shown.chosen = k;
  for (const button of at("things").querySelectorAll("button"))
    button.setAttribute("aria-pressed", Number(button.dataset.segment) === k);
  draw();
}

function under(event) {
  if (!shown) return null;
  const box = canvas.getBoundingClientRect(), { width, height } = shown.answer;
  const x = Math.floor((event.clientX - box.left) / box.width * width);
  const y = Math.floor((event.clientY - box.top) / box.height * height);
  if (x < 0 || y < 0 || x >= width || y >= height) return null;
  return { x, y, k: shown.index[y * width + x] };
}

canvas.addEventListener("pointermove", (event) => {
  const place = under(event);
  if (!place) return;
  const segment = shown.answer.segments[place.k];
  const score = segment?.isthing && segment.score !== null ? ` (${percent(segment.score)})` : "";
  at("under").textContent = `${segment ? segment.category + score : "nothing"} at ${place.x}, ${place.y}`;
});
canvas.addEventListener("pointerleave", () => { at("under").textContent = "\u00a0"; });
canvas.addEventListener("click", (event) => {
  const place = under(event);
  if (place) choose(place.k >= 0 && shown.answer.segments[place.k].isthing && shown.chosen !== place.k ? place.k : null);
});
canvas.addEventListener("keydown", (event) => { if (event.key === "Escape") choose(null); });
at("opacity").addEventListener("input", () => { if (shown) draw(); });

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

const failing = (act) => async () => { try { await act(); } catch (error) { say(error.message, true); } };
at("png").addEventListener("click", failing(async () =>
  save(await (await ask(shown.blob, "image/png", "?what=" + model.outputs[0])).blob(), shown.name + ".png")));
at("overlay").addEventListener("click", failing(async () =>
  save(await (await ask(shown.blob, "image/png", "?what=overlay")).blob(), shown.name + "_overlay.png")));
at("json").addEventListener("click", () =>
  save(new Blob([JSON.stringify(shown.answer)], { type: "application/json" }), shown.name + ".json"));

// ways in
at("file").addEventListener("change", (event) => { if (event.target.files[0]) label(event.target.files[0]); event.target.value = ""; });
at("drop").addEventListener("dragover", (event) => { event.preventDefault(); at("drop").classList.add("over"); });
at("drop").addEventListener("dragleave", () => at("drop").classList.remove("over"));
for (const kind of ["dragover", "drop"]) window.addEventListener(kind, (event) => event.preventDefault());
window.addEventListener("drop", (event) => {
  at("drop").classList.remove("over");
  const file = event.dataTransfer.files[0];
  file ? label(file) : say("What was dropped is no file; save the image first, then drop it.", true);
});
window.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files][0];
  if (file) label(file);
});
at("drop").addEventListener("keydown", (event) => {
  if (event.target === at("drop") && (event.key === "Enter" || event.key === " ")) at("file").click();
});

// the camera of whoever looks at the page: the first press shows it, the second takes the picture
let camera = null;
at("camera").addEventListener("click", failing(async () => {
  const video = at("video");
  if (camera) {
    const frame = document.createElement("canvas");
    frame.width = video.videoWidth;
    frame.height = video.videoHeight;
    frame.getContext("2d").drawImage(video, 0, 0);
    frame.toBlob((blob) => label(new File([blob], "camera.jpg", { type: "image/jpeg" })), "image/jpeg", 0.95);
    return;
  }
  if (!navigator.mediaDevices) throw new Error("The camera needs https, or a page of this machine (localhost).");
  stopLive();
  try { camera = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } }); }
  catch (error) { throw new Error(`The camera cannot be used: ${error.message}`); }
  video.srcObject = camera;
  await video.play();
  show(video);
  at("camera").textContent = "Take the picture";
}));

function show(element) {
  for (const other of [canvas, at("video"), at("stream")]) other.hidden = other !== element;
  at("hint").hidden = true;
  at("drop").classList.add("filled");
}

function stopCamera() {
  camera?.getTracks().forEach((track) => track.stop());
  camera = null;
  at("video").hidden = true;
  at("camera").textContent = "Camera";
}

// the server's own camera
at("live").addEventListener("click", () => {
  if (!at("stream").hidden) { stopLive(); if (shown) draw(); return; }
  turn++;
  stopCamera();
  at("stream").src = "live?" + Date.now();
  at("live").setAttribute("aria-pressed", true);
  at("found").hidden = true;
  show(at("stream"));
  say("The server's camera, labelled.");
});
at("stream").addEventListener("error", () => { if (!at("stream").hidden) { stopLive(); say("The camera sends nothing.", true); } });

function stopLive() {
  at("stream").hidden = true;
  at("stream").removeAttribute("src");
  at("live").setAttribute("aria-pressed", false);
}

(async () => {
  try {
    const answer = await fetch("model");
    if (!answer.ok) throw new Error(await sentence(answer));
    model = await answer.json();
    document.title = `${model.name} · panfpn`;
    at("title").textContent = model.name;
    at("about").textContent = `${model.architecture}, ${model.classes.length} classes (${model.table}); ${model.about}; ` +
      `images of up to ${model.megapixels} megapixels`;
    at("live").hidden = !model.live;
  } catch (error) { say(error.message, true); }
})();
