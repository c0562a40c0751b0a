// Search without a server: the index is a script that is read when search is opened for the first time, so that it works
// from a folder, too. Sections that have all words are ranked by where they have them.
(() => {
  "use strict";
  const dialog = document.getElementById("search");
  const input = dialog.querySelector("input");
  const list = dialog.querySelector("[data-results]");
  const count = dialog.querySelector("[data-count]");
  const root = document.body.dataset.root;
  const MOST = 20;
  let sections = null;

  function load() {
    if (sections) return;
    sections = [];
    const script = document.createElement("script");
    script.src = `${root}/search/index.js`;
    script.onload = () => {
      sections = window.searchIndex.map((entry) => ({
        ...entry,
        low: { title: entry.title.toLowerCase(), page: entry.page.toLowerCase(), text: entry.text.toLowerCase() },
      }));
      show();
    };
    document.head.append(script);
  }

  function wordsOf(text) {
    return text.toLowerCase().split(/\s+/).filter(Boolean);
  }

  function score(section, words) {
    let total = 0;
    for (const word of words) {
      const inTitle = section.low.title.indexOf(word);
      const inText = section.low.text.indexOf(word);
      if (inTitle < 0 && inText < 0 && !section.low.page.includes(word)) return 0;
      total += inTitle === 0 ? 12 : inTitle > 0 ? 8 : 0;
      total += section.low.page.includes(word) ? 3 : 0;
      total += inText >= 0 ? 1 + Math.min(section.low.text.split(word).length - 1, 4) / 4 : 0;
    }
    return total;
  }

  function marked(text, words) {
    const found = document.createElement("small");
    const low = text.toLowerCase();
    const first = Math.max(0, Math.min(...words.map((word) => low.indexOf(word)).filter((at) => at >= 0), low.length));
    const start = first > 60 ? first - 60 : 0;
    const part = (start ? "… " : "") + text.slice(start, start + 170) + (start + 170 < text.length ? " …" : "");
    const pattern = new RegExp(`(${words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|")})`, "gi");
    part.split(pattern).forEach((piece, i) => {
      const node = i % 2 ? document.createElement("mark") : document.createTextNode("");
      node.textContent = piece;
      found.append(node);
    });
    return found;
  }

  function show() {
    const words = wordsOf(input.value);
    list.replaceChildren();
    if (!words.length) {
      count.textContent = "";
      return;
    }
    const found = sections
      .map((section) => [score(section, words), section])
      .filter(([points]) => points > 0)
      .sort((a, b) => b[0] - a[0]);
    for (const [, section] of found.slice(0, MOST)) {
      const link = document.createElement("a");
      link.href = `${root}/${section.url}`;
      const title = document.createElement("strong");
      title.textContent = section.title === section.page ? section.title : `${section.page} › ${section.title}`;
      link.append(title, marked(section.text, words));
      const item = document.createElement("li");
      item.append(link);
      list.append(item);
    }
    count.textContent = `${found.length} ${found.length === 1 ? "result" : "results"}`;
    if (!found.length) {
      const nothing = document.createElement("li");
      nothing.textContent = "Nothing found.";
      list.append(nothing);
    }
  }

  document.querySelector('[data-open="search"]').addEventListener("click", load);
  input.addEventListener("input", show);
  dialog.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    list.querySelector("a")?.click();
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    const links = [...list.querySelectorAll("a")];
    const at = links.indexOf(document.activeElement) + (event.key === "ArrowDown" ? 1 : -1);
    event.preventDefault();
    (links[at] || (at < 0 ? input : links.at(-1)))?.focus();
  });
  addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    document.querySelector('[data-open="search"]').click();
  });
})();
