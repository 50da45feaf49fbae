// <tag-box src="/tags/search/?collection=holiday"><input …></tag-box>: type-ahead for one tag (an ARIA combobox).
// Enter or Tab takes the marked line: the best match, or what was typed when nothing starts like it; Shift+Enter always
// takes what was typed. Each choice is a "tag-chosen" event that bubbles, with detail.name.

let boxes = 0;

class TagBox extends HTMLElement {
  connectedCallback() {
    this.input = this.querySelector("input");
    this.list = document.createElement("ul");
    this.list.id = `tag-box-${++boxes}`;
    this.list.className = "suggestions";
    this.list.hidden = true;
    this.list.setAttribute("role", "listbox");
    this.list.setAttribute("aria-label", "Suggested tags");
    this.append(this.list);
    const attributes = {
      role: "combobox", "aria-autocomplete": "list", "aria-expanded": "false", "aria-controls": this.list.id,
      autocomplete: "off", autocapitalize: "none", spellcheck: "false", enterkeyhint: "done",
    };
    for (const [name, value] of Object.entries(attributes)) this.input.setAttribute(name, value);
    this.known = new Map(); // text → hits, for this page
    this.asked = new Map(); // text → promise of hits
    this.options = [];
    this.active = -1;
    this.input.addEventListener("input", () => this.search());
    this.input.addEventListener("focus", () => { if (this.text) this.search(); });
    this.input.addEventListener("blur", () => this.close());
    this.input.addEventListener("keydown", (e) => this.onKey(e));
    this.list.addEventListener("pointerdown", (e) => e.preventDefault()); // keeps the focus in the field
    this.list.addEventListener("click", (e) => {
      const option = e.target.closest("[role=option]");
      if (!option) return;
      const { name } = this.options[Number(option.dataset.index)];
      this.input.value = "";
      this.close();
      this.choose(name);
    });
  }

  disconnectedCallback() {
    this.list?.remove();
  }

  get text() {
    return this.input.value.replace(/\s+/g, " ").trim();
  }

  search() {
    const text = this.text;
    if (!text) { this.close(); return; }
    const key = text.toLowerCase();
    if (this.known.has(key)) { this.show(text, this.known.get(key)); return; }
    this.show(text, this.guess(key)); // at once, from what is known; the server's answer replaces it
    this.lookUp(key).then((hits) => {
      if (this.text.toLowerCase() === key && this.active < 1) this.show(text, hits);
    });
  }

  // the server's answer, asked for once; nothing when it cannot be reached
  lookUp(key) {
    if (this.known.has(key)) return Promise.resolve(this.known.get(key));
    if (!this.asked.has(key)) {
      const url = new URL(this.getAttribute("src"), location.href);
      url.searchParams.set("q", key);
      this.asked.set(key, fetch(url, { headers: { Accept: "application/json" } })
        .then((response) => (response.ok ? response.json() : Promise.reject(new Error(response.status))))
        .then(({ hits }) => { this.known.set(key, hits); return hits; })
        .catch(() => [])
        .finally(() => this.asked.delete(key)));
    }
    return this.asked.get(key);
  }

  // lines of the longest known beginning that still fit
  guess(key) {
    for (let n = key.length - 1; n > 0; n--) {
      const hits = this.known.get(key.slice(0, n));
      if (hits) return hits.filter((hit) => hit.name.toLowerCase().startsWith(key)).map((hit) => ({ ...hit, match: "prefix" }));
    }
    return [];
  }

  show(text, hits) {
    if (document.activeElement !== this.input) return;
    this.options = ordered(text, hits);
    this.list.replaceChildren(...this.options.map((hit, i) => this.line(hit, i)));
    this.list.hidden = false;
    this.input.setAttribute("aria-expanded", "true");
    this.mark(0);
  }

  line(hit, index) {
    const item = document.createElement("li");
    item.id = `${this.list.id}-${index}`;
    item.setAttribute("role", "option");
    item.dataset.index = index;
    const name = document.createElement("span");
    name.className = "grow";
    name.textContent = hit.match === "typed" ? `New tag “${hit.name}”` : hit.name;
    item.append(name);
    if (hit.alias) item.append(small(`also “${hit.alias}”`));
    if (hit.category && hit.category !== "general") item.append(small(hit.category));
    if (hit.count) item.append(small(hit.count.toLocaleString("en-GB"), "num"));
    return item;
  }

  mark(index) {
    this.active = index;
    [...this.list.children].forEach((item, i) => item.setAttribute("aria-selected", String(i === index)));
    const item = this.list.children[index];
    if (item) {
      this.input.setAttribute("aria-activedescendant", item.id);
      item.scrollIntoView({ block: "nearest" });
    } else {
      this.input.removeAttribute("aria-activedescendant");
    }
  }

  close() {
    this.options = [];
    this.list.hidden = true;
    this.list.replaceChildren();
    this.input.setAttribute("aria-expanded", "false");
    this.mark(-1);
  }

  onKey(event) {
    if (event.isComposing) return;
    const open = !this.list.hidden;
    if ((event.key === "ArrowDown" || event.key === "ArrowUp") && this.text) {
      event.preventDefault();
      if (!open) { this.search(); return; }
      const n = this.options.length;
      this.mark((this.active + (event.key === "ArrowDown" ? 1 : n - 1)) % n);
    } else if (event.key === "Enter") {
      event.preventDefault();
      if (this.text) this.take(event.shiftKey);
    } else if (event.key === "Tab" && !event.shiftKey && this.text) {
      event.preventDefault();
      this.take(false);
    } else if (event.key === "Escape" && (open || this.text)) {
      event.preventDefault();
      this.input.value = "";
      this.close();
    }
  }

  // a quick typist is ahead of the server: the field is free for the next tag while the answer to this one comes
  async take(asTyped) {
    const text = this.text;
    if (!text) { this.input.focus(); return; }
    const marked = this.active > 0 ? this.options[this.active].name : null;
    this.input.value = "";
    this.close();
    if (asTyped || marked) this.choose(asTyped ? text : marked);
    else this.choose(ordered(text, await this.lookUp(text.toLowerCase()))[0].name);
  }

  choose(name) {
    this.dispatchEvent(new CustomEvent("tag-chosen", { bubbles: true, detail: { name } }));
  }
}

// what was typed comes first unless something begins like it
function ordered(text, hits) {
  const typed = { name: text, match: "typed" };
  if (hits.some((hit) => hit.match === "exact" || hit.name.toLowerCase() === text.toLowerCase())) return [...hits];
  return hits.length && ["prefix", "alias"].includes(hits[0].match) ? [...hits, typed] : [typed, ...hits];
}

function small(text, extra = "") {
  const element = document.createElement("span");
  element.className = `muted small ${extra}`;
  element.textContent = text;
  return element;
}

customElements.define("tag-box", TagBox);
