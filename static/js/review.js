// The review screen. The server draws everything; this sends decisions one after the other, shows each at once and takes
// it back when it could not be saved, and swaps in the next image, which was fetched while this one was looked at.
// Without this script the same buttons are plain form submits.

const NEXT = { proposed: "rejected", accepted: "rejected", rejected: "accepted", added: "removed" };
const IN_FORCE = ["proposed", "accepted", "added"];
const VERB = { proposed: "reject", accepted: "reject", rejected: "accept", added: "clear" };
const pages = new Map(); // address → promise of { html, url }: the next page, fetched ahead
const jobs = []; // decisions that wait for their turn
let working = false;
let here = location.pathname + location.search;
let leaving = false; // a whole-image decision or a page change is under way

const page = () => document.getElementById("review");
const heading = () => document.getElementById("image-name");

// -- saying what happened -----------------------------------------------------------------------------------------------
function say(text, tone = "quiet") {
  document.getElementById("live").textContent = text;
  const state = document.getElementById("save-state");
  if (state) {
    state.textContent = text;
    state.dataset.tone = tone;
  }
}

function complain(text, retry) {
  note(text, "error", retry);
  say("Not saved", "error");
}

function note(text, tone, retry) {
  const box = document.getElementById("problem");
  if (!box) return;
  box.dataset.tone = tone;
  const message = document.createElement("span");
  message.className = "grow";
  message.textContent = text;
  box.replaceChildren(message);
  if (retry) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "btn btn-small";
    button.textContent = "Try again";
    button.addEventListener("click", () => { quiet(); retry(); });
    box.append(button);
  }
  box.hidden = false;
}

function quiet() {
  const box = document.getElementById("problem");
  if (box) box.hidden = true;
}

// -- talking to the server ----------------------------------------------------------------------------------------------
async function ask(url, options = {}) {
  let response;
  try {
    response = await fetch(url, {
      ...options,
      headers: { "HX-Request": "true", "HX-Current-URL": location.href, ...options.headers },
    });
  } catch {
    throw new Error("The server cannot be reached.");
  }
  if (response.status === 401) {
    location.assign(response.headers.get("HX-Redirect") || "/login/");
    throw new Error("You are signed out.");
  }
  return response;
}

async function post(url, body) {
  const response = await ask(url, { method: "POST", body, headers: { Accept: "application/json" } });
  const json = response.headers.get("Content-Type")?.startsWith("application/json");
  const data = json ? await response.json() : {};
  if (!response.ok) {
    const reason = data.error || (response.status === 403
      ? "You may not decide here, or the page is too old: reload it."
      : `The server answered with ${response.status}.`);
    throw Object.assign(new Error(reason), { data, status: response.status });
  }
  return data;
}

// one job at a time, in order: { body: () => FormData, url, done(data), failed(error) }
function send(job) {
  jobs.push(job);
  if (!working) work();
}

async function work() {
  working = true;
  while (jobs.length) {
    const job = jobs.shift();
    const slow = setTimeout(() => say("Saving…"), 300);
    try {
      const data = await post(job.url, job.body());
      clearTimeout(slow);
      quiet();
      await job.done(data);
    } catch (error) {
      clearTimeout(slow);
      job.failed(error);
    }
  }
  working = false;
}

function saved(data) {
  say(`Saved ${data.at}`);
  if (data.tags) {
    swap("#tags", data.tags);
    jobs.forEach((job) => job.ahead?.()); // decisions that wait stay visible
  }
  if (data.progress) swap("#progress", data.progress);
  if (data.conflicts) {
    note(data.conflicts === 1
      ? "Somebody else changed a tag meanwhile: it is marked."
      : `Somebody else changed ${data.conflicts} tags meanwhile: they are marked.`, "warning");
  }
  refreshMore();
}

function swap(target, html) {
  htmx.swap(target, html, { swapStyle: "outerHTML", swapDelay: 0, settleDelay: 0 });
}

// -- tags ---------------------------------------------------------------------------------------------------------------
function toggle(chip) {
  const before = chip.dataset.state;
  const verb = VERB[before];
  const id = chip.value;
  const after = before === "rejected" && chip.dataset.own !== undefined ? "added" : NEXT[before];
  draw(chip, after);
  const name = chip.querySelector(".chip-name").textContent;
  sendChange(new Map([[verb, id]]), {
    what: `${name}: ${after}`,
    ahead: () => draw(document.getElementById(chip.id), after),
    done: () => see(id, IN_FORCE.includes(after)),
    takeBack: () => draw(document.getElementById(chip.id), before),
    again: () => { const now = document.getElementById(chip.id); if (now?.dataset.state === before) toggle(now); },
  });
}

// keep what the page shows in force in step, so that one's own change does not come back as somebody else's
function see(id, inForce) {
  const field = document.getElementById("seen");
  const ids = new Set(field.value.split(",").filter(Boolean));
  if (inForce) ids.add(id);
  else ids.delete(id);
  field.value = [...ids].join(",");
}

function draw(chip, state) {
  if (!chip) return;
  chip.toggleAttribute("hidden", state === "removed");
  if (state === "removed") return;
  chip.dataset.state = state;
  chip.name = VERB[state];
  const spoken = chip.querySelector(".chip-state");
  if (spoken) spoken.textContent = `, ${state}`;
}

function sendChange(values, { what, ahead, done, takeBack, again }) {
  const { decide } = page().dataset;
  send({
    url: decide,
    ahead,
    body: () => {
      const form = new FormData(document.getElementById("decide"));
      for (const [name, value] of values) form.append(name, value);
      return form;
    },
    done: (data) => {
      done?.();
      saved(data);
      if (!data.conflicts) document.getElementById("live").textContent = `Saved. ${what}`;
    },
    failed: (error) => {
      takeBack?.();
      complain(`Not saved (${what}). ${error.message}`, again);
    },
  });
}

function add(name) {
  say(`Adding ${name}…`);
  sendChange(new Map([["add", name]]), { what: `${name}: added`, again: () => add(name) });
}

// -- the whole image ----------------------------------------------------------------------------------------------------
const DONE = { accept: "Accepted", reject: "Rejected", skip: "Skipped" };

function decideImage(verb) {
  if (leaving) return;
  leaving = true;
  saveCaption();
  const { decide, next } = page().dataset;
  const name = heading().textContent;
  send({
    url: decide,
    body: () => {
      const form = new FormData(document.getElementById("decide"));
      form.append("verb", verb);
      return form;
    },
    done: async (data) => {
      leaving = false;
      if (data.conflicts) { saved(data); return; }
      await go(next, `${DONE[verb]} ${name}`, data.progress);
    },
    failed: (error) => {
      leaving = false;
      complain(`Not saved. ${error.message}`, () => decideImage(verb));
    },
  });
}

function undo() {
  if (leaving) return;
  leaving = true;
  const { undo: url } = page().dataset;
  send({
    url,
    body: () => new FormData(document.getElementById("undo-form")),
    done: async (data) => {
      leaving = false;
      pages.clear();
      await go(data.url, data.message);
    },
    failed: (error) => {
      leaving = false;
      say(error.message, "warning");
    },
  });
}

// -- from image to image ------------------------------------------------------------------------------------------------
async function fetchPage(url) {
  const response = await ask(url, { headers: { Accept: "text/html" } });
  if (!response.ok) throw new Error(`The server answered with ${response.status}.`);
  const at = new URL(response.url);
  return { html: await response.text(), url: at.pathname + at.search };
}

function ahead(url) {
  // not the end of the list: what it answers depends on the decision that is made here
  if (!url?.startsWith("/images/") || pages.has(url)) return;
  const promise = fetchPage(url);
  promise.catch(() => pages.delete(url));
  pages.set(url, promise);
}

async function go(url, message = "", progress = "") {
  if (leaving || !url) return;
  leaving = true;
  saveCaption();
  try {
    const cached = pages.get(url);
    pages.clear();
    const next = await (cached || fetchPage(url));
    if (next.url === here && !message) { say("There is no other image this way"); return; }
    history.pushState(null, "", next.url);
    here = next.url;
    htmx.swap("#main", next.html, { swapStyle: "innerHTML", swapDelay: 0, settleDelay: 0 });
    if (progress && document.getElementById("progress")) swap("#progress", progress);
    window.scrollTo(0, 0);
    heading()?.focus({ preventScroll: true });
    if (message) say(message);
    arrived();
  } catch (error) {
    complain(`The page could not be fetched. ${error.message}`, () => go(url, message, progress));
  } finally {
    leaving = false;
  }
}

function arrived() {
  if (!page()) return;
  const more = document.getElementById("more");
  if (more && remembered()) more.open = true;
  // after this page's own pictures
  const fetchNext = () => ahead(page()?.dataset.next);
  const image = document.querySelector("zoom-view img");
  if (!image || image.complete) fetchNext();
  else image.addEventListener("load", fetchNext, { once: true });
}

// -- caption and rating -------------------------------------------------------------------------------------------------
let captionTimer;

function saveCaption() {
  clearTimeout(captionTimer);
  const field = document.getElementById("caption");
  if (!field || field.readOnly || field.value === field.dataset.saved) return;
  const text = field.value;
  field.dataset.saved = text;
  const form = new FormData(field.form);
  const { decide } = page().dataset;
  send({
    url: decide,
    body: () => form,
    done: (data) => {
      field.form.elements.caption_seen.value = data.caption;
      if (document.activeElement !== field && field.value === text) field.value = data.caption;
      field.dataset.saved = field.value === text ? field.value : data.caption;
      saved(data);
    },
    failed: (error) => {
      field.dataset.saved = error.data?.caption ?? "\0"; // differs from any text, so that leaving the field tries again
      if (error.data?.caption !== undefined) field.form.elements.caption_seen.value = error.data.caption;
      complain(`The caption is not saved. ${error.message}`, () => saveCaption());
    },
  });
}

function saveRating(select) {
  const before = select.dataset.saved;
  const form = new FormData(select.form);
  const value = select.value;
  const { decide } = page().dataset;
  send({
    url: decide,
    body: () => form,
    done: (data) => { select.dataset.saved = value; saved(data); },
    failed: (error) => {
      select.value = before;
      complain(`The rating is not saved. ${error.message}`, () => { select.value = value; saveRating(select); });
    },
  });
}

// -- the fold with what is known about the image ------------------------------------------------------------------------
function remembered() {
  try { return sessionStorage.getItem("iwtag-more") === "1"; } catch { return false; }
}

function refreshMore() {
  const more = document.getElementById("more");
  if (more?.open) htmx.trigger(more, "more");
}

// -- events -------------------------------------------------------------------------------------------------------------
document.addEventListener("submit", (event) => {
  const { submitter } = event;
  if (!page() || !["decide", "undo-form", "add-form"].includes(event.target.id)) return;
  event.preventDefault();
  if (event.target.id === "undo-form") undo();
  else if (event.target.id === "add-form") event.target.querySelector("tag-box").take(false);
  else if (!submitter) return;
  else if (submitter.matches(".chip")) { if (!leaving) toggle(submitter); }
  else if (submitter.name === "verb") decideImage(submitter.value);
});

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[data-go]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  go(link.getAttribute("href"));
});

document.addEventListener("tag-chosen", (event) => { if (page()) add(event.detail.name); });

document.addEventListener("input", (event) => {
  if (event.target.id !== "caption") return;
  clearTimeout(captionTimer);
  captionTimer = setTimeout(saveCaption, 1000);
});

document.addEventListener("change", (event) => { if (event.target.id === "rating") saveRating(event.target); });
document.addEventListener("focusout", (event) => { if (event.target.id === "caption") saveCaption(); });

document.addEventListener("toggle", (event) => {
  if (event.target.id !== "more") return;
  try { sessionStorage.setItem("iwtag-more", event.target.open ? "1" : "0"); } catch { /* private window */ }
  if (event.target.open) htmx.trigger(event.target, "more");
}, true);

window.addEventListener("popstate", () => {
  if (location.pathname + location.search !== here) location.reload(); // not for a mere #main
});

window.addEventListener("beforeunload", (event) => {
  saveCaption();
  if (jobs.length || working) event.preventDefault();
});

arrived();
