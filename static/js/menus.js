// Menus and panels that open from a <summary>: a click elsewhere or Esc closes them.

import { typing } from "./keys.js";

const OPEN = "details.menu[open], details.panel-fold[open]";

document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll(OPEN)) {
    if (!menu.contains(event.target) && event.target.isConnected) menu.open = false;
  }
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.defaultPrevented || typing(event.target)) return;
  const menu = document.querySelector(OPEN);
  if (!menu) return;
  event.preventDefault();
  menu.open = false;
  menu.querySelector("summary").focus();
}, true); // before the page's own meaning of Esc
