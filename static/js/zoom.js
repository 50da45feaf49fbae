// <zoom-view natural-width="4000" original="/images/1/original"><img></zoom-view>
// Fits the picture; wheel, pinch, double click and keys zoom; dragging and keys pan. The original replaces the preview
// once the preview has fewer pixels than the screen asks for. Buttons inside: data-zoom=in|out|fit|full|left|right|up|down.

const MAX = 8; // screen pixels per image pixel
const STEP = 80; // screen pixels that a key moves the picture
const ENLARGE = 2; // how far a small picture grows to fill the stage

class ZoomView extends HTMLElement {
  connectedCallback() {
    this.image = this.querySelector("img");
    if (!this.image) return;
    this.scale = 1; // 1 = fits
    this.x = 0;
    this.y = 0;
    this.pointers = new Map();
    this.stage = this.querySelector(".zoom-stage") || this;
    this.stage.addEventListener("wheel", (e) => this.onWheel(e), { passive: false });
    this.stage.addEventListener("dblclick", (e) => this.toggleFull(e));
    for (const type of ["pointerdown", "pointermove", "pointerup", "pointercancel"]) {
      this.stage.addEventListener(type, (e) => this.onPointer(e));
    }
    this.addEventListener("click", (e) => {
      const button = e.target.closest("[data-zoom]");
      if (!button) return;
      this[button.dataset.zoom]();
      if (e.detail) button.blur(); // clicked, not pressed by key: Enter stays free for the page
    });
    this.image.draggable = false;
    this.resize = new ResizeObserver(() => this.draw());
    this.resize.observe(this.stage);
    if (!this.image.complete) this.image.addEventListener("load", () => this.draw(), { once: true });
  }

  disconnectedCallback() {
    this.resize?.disconnect();
  }

  // size of the fitted picture on the stage, and the scale at which one image pixel is one screen pixel
  get fitted() {
    const w = this.image.naturalWidth || 1;
    const h = this.image.naturalHeight || 1;
    const box = this.stage.getBoundingClientRect();
    const k = Math.min(box.width / w, box.height / h, Math.max(1, this.naturalWidth / w) * ENLARGE);
    return { w: w * k, h: h * k, box };
  }

  get naturalWidth() {
    return Number(this.getAttribute("natural-width")) || this.image.naturalWidth || 1;
  }

  get fullScale() {
    return Math.max(1, this.naturalWidth / this.fitted.w / window.devicePixelRatio);
  }

  get maxScale() {
    return Math.max(4, this.fullScale * MAX);
  }

  in() { this.zoomTo(this.scale * 1.4); }
  out() { this.zoomTo(this.scale / 1.4); }
  fit() { this.zoomTo(1); }
  left() { this.panBy(STEP, 0); }
  right() { this.panBy(-STEP, 0); }
  up() { this.panBy(0, STEP); }
  down() { this.panBy(0, -STEP); }
  full() { this.zoomTo(this.scale > 1.01 ? 1 : Math.max(this.fullScale, 2)); }

  toggleFull(event) {
    if (event.target.closest("button, a")) return;
    this.zoomTo(this.scale > 1.01 ? 1 : Math.max(this.fullScale, 2), event.clientX, event.clientY);
  }

  // zoom so that the point of the picture under (cx, cy) stays there
  zoomTo(scale, cx, cy) {
    const { box } = this.fitted;
    const px = (cx ?? box.left + box.width / 2) - box.left - box.width / 2;
    const py = (cy ?? box.top + box.height / 2) - box.top - box.height / 2;
    const next = Math.min(this.maxScale, Math.max(1, scale));
    this.x = px - ((px - this.x) * next) / this.scale;
    this.y = py - ((py - this.y) * next) / this.scale;
    this.scale = next;
    this.draw();
  }

  panBy(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.draw();
  }

  draw() {
    const { w, h, box } = this.fitted;
    const limitX = Math.max(0, (w * this.scale - box.width) / 2);
    const limitY = Math.max(0, (h * this.scale - box.height) / 2);
    this.x = Math.min(limitX, Math.max(-limitX, this.x));
    this.y = Math.min(limitY, Math.max(-limitY, this.y));
    this.image.style.width = `${w}px`;
    this.image.style.height = `${h}px`;
    this.image.style.transform = `translate(${this.x}px, ${this.y}px) scale(${this.scale})`;
    this.toggleAttribute("zoomed", this.scale > 1.01);
    const label = this.querySelector(".zoom-level");
    if (label) label.textContent = `${Math.round((w * this.scale * window.devicePixelRatio * 100) / this.naturalWidth)} %`;
    if (w * this.scale * window.devicePixelRatio > this.image.naturalWidth * 1.05) this.sharpen();
  }

  sharpen() {
    const original = this.getAttribute("original");
    if (!original || this.loading || this.scale <= 1.01) return;
    this.loading = true;
    this.setAttribute("loading", "");
    const sharp = new Image();
    sharp.addEventListener("load", () => {
      this.image.src = sharp.src;
      this.removeAttribute("loading");
    });
    sharp.addEventListener("error", () => this.removeAttribute("loading"));
    sharp.src = original;
  }

  onWheel(event) {
    event.preventDefault();
    const step = event.deltaMode === 1 ? 16 : 1;
    const factor = Math.exp((-event.deltaY * step) / (event.ctrlKey ? 120 : 400));
    this.zoomTo(this.scale * factor, event.clientX, event.clientY);
  }

  onPointer(event) {
    if (event.target.closest("button, a")) return;
    if (event.type === "pointerdown") {
      if (event.button) return;
      this.stage.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
      this.toggleAttribute("panning", true);
      return;
    }
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    if (event.type !== "pointermove") {
      this.pointers.delete(event.pointerId);
      this.toggleAttribute("panning", this.pointers.size > 0);
      return;
    }
    const now = [event.clientX, event.clientY];
    const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1];
    this.pointers.set(event.pointerId, now);
    if (other) {
      const ratio = distance(now, other) / Math.max(1, distance(before, other));
      this.zoomTo(this.scale * ratio, (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    } else {
      this.panBy(now[0] - before[0], now[1] - before[1]);
    }
  }
}

function distance(a, b) {
  return Math.hypot(a[0] - b[0], a[1] - b[1]);
}

customElements.define("zoom-view", ZoomView);
