// Uploading many files: dropped or chosen, sent in portions so that any number fits, with one bar for all of them.
// Without this file the form sends the chosen files as they are.

const FILES = 40; // a portion
const BYTES = 48 * 1024 * 1024;

const form = document.getElementById("upload");
const input = document.getElementById("id_files");
const drop = document.getElementById("drop");
const meter = document.getElementById("upload-meter");
const bar = meter.querySelector("progress");
const text = meter.querySelector(".meter-text");
const refused = document.getElementById("refused");
const send = document.getElementById("send");
const stop = document.getElementById("stop");
const on = document.getElementById("on");
let request = null;
let stopped = false;

document.querySelector(".drop-hint").hidden = false;
drop.classList.add("is-live");

const megabytes = (n) => `${(n / 1e6).toFixed(n < 1e7 ? 1 : 0)} MB`;

function portions(files) {
  const found = [[]];
  let bytes = 0;
  for (const file of files) {
    if (found.at(-1).length && (found.at(-1).length >= FILES || bytes + file.size > BYTES)) {
      found.push([]);
      bytes = 0;
    }
    found.at(-1).push(file);
    bytes += file.size;
  }
  return found;
}

function post(files, moved) {
  return new Promise((resolve, reject) => {
    const data = new FormData();
    data.append("csrfmiddlewaretoken", form.elements.csrfmiddlewaretoken.value);
    for (const file of files) data.append("files", file, file.name);
    request = new XMLHttpRequest();
    request.open("POST", form.action || location.href);
    request.setRequestHeader("Accept", "application/json");
    request.upload.addEventListener("progress", (event) => moved(event.loaded));
    request.addEventListener("load", () => {
      let answer = {};
      try { answer = JSON.parse(request.responseText); } catch { /* said below */ }
      if (request.status === 200) resolve(answer);
      else reject(new Error(answer.error || `The server refused (${request.status}).`));
    });
    request.addEventListener("error", () => reject(new Error("The connection was lost. What was sent is kept; choose the rest again.")));
    request.addEventListener("abort", () => reject(new Error("Stopped. What was sent is kept.")));
    request.send(data);
  });
}

function refuse(name, error) {
  refused.hidden = false;
  const item = document.createElement("li");
  item.textContent = name ? `${name}: ${error}` : error;
  refused.append(item);
}

async function upload(files) {
  if (!files.length || request) return;
  const total = files.reduce((sum, file) => sum + file.size, 0) || 1;
  let before = 0;
  let stored = 0;
  let next = "";
  stopped = false;
  refused.replaceChildren();
  refused.hidden = true;
  on.hidden = true;
  meter.hidden = false;
  send.hidden = true;
  stop.hidden = false;
  drop.hidden = true;
  try {
    for (const portion of portions(files)) {
      const size = portion.reduce((sum, file) => sum + file.size, 0);
      const answer = await post(portion, (loaded) => {
        const sent = before + Math.min(loaded, size);
        bar.value = sent / total;
        text.textContent = `${megabytes(sent)} of ${megabytes(total)} · ${stored} of ${files.length} files`;
      });
      before += size;
      stored += answer.stored;
      next = answer.next;
      answer.refused.forEach((one) => refuse(one.name, one.error));
      if (stopped) throw new Error("Stopped. What was sent is kept.");
    }
    bar.value = 1;
    text.textContent = `${stored} file${stored === 1 ? "" : "s"} received.`;
    if (refused.hidden) {
      request = null; // nothing is lost by leaving
      stop.hidden = true;
      location.assign(next);
      return;
    }
  } catch (error) {
    refuse("", error.message);
    text.textContent = `${stored} of ${files.length} files received.`;
  }
  request = null;
  stop.hidden = true;
  send.hidden = false;
  drop.hidden = false;
  form.reset();
  if (next) on.hidden = false;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  upload([...input.files]);
});
input.addEventListener("change", () => {
  const n = input.files.length;
  send.textContent = n ? `Upload ${n} file${n === 1 ? "" : "s"}` : "Upload";
});
stop.addEventListener("click", () => { stopped = true; request?.abort(); });
window.addEventListener("beforeunload", (event) => { if (request && !stop.hidden) event.preventDefault(); });

// -- dropping, folders too
async function read(entry) {
  if (entry.isFile) return [await new Promise((done, fail) => entry.file(done, fail))];
  const reader = entry.createReader();
  const files = [];
  for (;;) {
    const entries = await new Promise((done, fail) => reader.readEntries(done, fail));
    if (!entries.length) return files;
    for (const one of entries) if (!one.name.startsWith(".")) files.push(...await read(one));
  }
}

for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    drop.classList.add("is-over");
  });
}
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("is-over"); });
document.addEventListener("drop", async (event) => {
  event.preventDefault();
  drop.classList.remove("is-over");
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const found = entries.length ? (await Promise.all(entries.map(read))).flat() : [...event.dataTransfer.files];
  upload(found);
});
