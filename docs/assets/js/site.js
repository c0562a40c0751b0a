// What every page does: the theme, the dialogs, copying commands, and where the reader is. Without it, pages still read.
(() => {
  "use strict";
  const root = document.documentElement;

  function isDark() {
    return root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }

  document.querySelector("[data-theme-toggle]").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem("theme", root.dataset.theme);
    } catch {
      // A browser that stores nothing forgets the choice, and that is all.
    }
  });

  for (const button of document.querySelectorAll("[data-open]")) {
    button.addEventListener("click", () => document.getElementById(button.dataset.open).showModal());
  }
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => {
      const outside = event.target === dialog;
      if (outside || event.target.closest("a")) dialog.close();
    });
  }

  for (const block of document.querySelectorAll(".highlight")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(block.querySelector("code").textContent.trimEnd());
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 1500);
    });
    block.append(button);
  }

  // What can be scrolled sideways can be reached by keyboard; what cannot is no stop on the way.
  const wide = document.querySelectorAll("pre, .scroll, .equation");
  function reach() {
    for (const part of wide) {
      if (part.scrollWidth > part.clientWidth + 1) {
        part.tabIndex = 0;
        part.setAttribute("role", "region");
        part.setAttribute("aria-label", part.dataset.label || "Scrollable");
      } else {
        part.removeAttribute("tabindex");
        part.removeAttribute("role");
        part.removeAttribute("aria-label");
      }
    }
  }
  reach();
  addEventListener("resize", reach);

  const links = [...document.querySelectorAll(".toc a")];
  const headings = links.map((link) => document.getElementById(decodeURIComponent(link.hash.slice(1))));
  function place() {
    const passed = headings.filter((heading) => heading && heading.getBoundingClientRect().top < 130).length;
    links.forEach((link, i) => link.classList.toggle("here", i === passed - 1));
  }
  if (links.length) {
    place();
    addEventListener("scroll", () => requestAnimationFrame(place), { passive: true });
  }

  const current = document.querySelector(".page > .tree [aria-current]");
  if (current) {
    const tree = current.closest(".tree");
    tree.scrollTop = Math.max(0, current.offsetTop - tree.clientHeight / 2);
  }
})();
