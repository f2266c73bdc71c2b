// Before the first paint: the theme that the reader has chosen. Runs in the head, so that no page flashes.
"use strict";
try {
  const theme = localStorage.getItem("rosetta.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch { /* no storage: as the system says */ }
document.documentElement.classList.add("js");
