// <code-area><textarea></textarea></code-area>: line numbers beside a text area, marks on the lines with errors.
// With the attribute `lines` lines are not wrapped and the numbers scroll along: quick for a hundred thousand lines.
// Without it lines are wrapped and the area grows with its text; a copy of the text behind it carries the numbers.
// problems = [{line, message}] marks lines; goTo(line) puts the caret there.

class CodeArea extends HTMLElement {
  connectedCallback() {
    this.text = this.querySelector("textarea");
    if (!this.text || this.back) return;
    this.flat = this.hasAttribute("lines");
    this.bad = new Map();
    this.back = document.createElement("div");
    this.back.className = "code-back";
    this.back.setAttribute("aria-hidden", "true");
    this.prepend(this.back);
    this.classList.add("is-live");
    this.text.addEventListener("input", () => this.draw());
    this.text.addEventListener("scroll", () => { if (this.flat) this.back.scrollTop = this.text.scrollTop; });
    this.draw();
  }

  // by script: keeps the caret's undo history where the browser allows it
  insert(text, select = 0) {
    const { selectionStart: start, selectionEnd: end } = this.text;
    this.text.focus();
    this.text.setRangeText(text, start, end, "end");
    if (select) this.text.setSelectionRange(start + text.length - select, start + text.length);
    this.text.dispatchEvent(new Event("input", { bubbles: true }));
  }

  set value(text) {
    this.text.value = text;
    this.draw();
  }

  set problems(found) {
    this.bad = new Map(found.filter((p) => p.line).map((p) => [p.line, p.message]));
    this.text.toggleAttribute("aria-invalid", found.length > 0);
    this.draw();
  }

  goTo(line) {
    const lines = this.text.value.split("\n");
    const start = lines.slice(0, line - 1).reduce((n, l) => n + l.length + 1, 0);
    this.text.focus();
    this.text.setSelectionRange(start, start + (lines[line - 1] || "").length);
    if (this.flat) {
      const height = parseFloat(getComputedStyle(this.text).lineHeight) || 20;
      this.text.scrollTop = Math.max(0, (line - 4) * height);
    }
  }

  draw() {
    const lines = this.text.value.split("\n");
    if (this.flat) {
      if (this.drawn === lines.length && !this.bad.size && !this.marked) return;
      this.drawn = lines.length;
      this.marked = this.bad.size > 0;
      const parts = [];
      let plain = "";
      for (let i = 1; i <= lines.length; i++) {
        if (!this.bad.has(i)) { plain += `${i}\n`; continue; }
        const mark = document.createElement("b");
        mark.textContent = `${i}`;
        parts.push(plain, mark, "\n");
        plain = "";
      }
      this.back.replaceChildren(...parts, plain);
      this.back.scrollTop = this.text.scrollTop;
      return;
    }
    this.back.replaceChildren(...lines.map((line, i) => {
      const row = document.createElement("div");
      row.className = "code-line";
      row.dataset.n = i + 1;
      if (this.bad.has(i + 1)) row.classList.add("is-bad");
      row.textContent = line || "\u200b";
      return row;
    }));
  }
}

customElements.define("code-area", CodeArea);
