// The project page: tabs, and the slider over drawings.
(() => {
  "use strict";
  for (const tabs of document.querySelectorAll(".tabs")) {
    const buttons = [...tabs.querySelectorAll('[role="tab"]')];
    const choose = (chosen) => {
      for (const button of buttons) {
        const is = button === chosen;
        button.setAttribute("aria-selected", String(is));
        button.tabIndex = is ? 0 : -1;
        document.getElementById(button.getAttribute("aria-controls")).hidden = !is;
      }
      dispatchEvent(new Event("resize")); // what is shown now may have to be scrolled
    };
    buttons.forEach((button, i) => {
      button.addEventListener("click", () => choose(button));
      button.addEventListener("keydown", (event) => {
        const steps = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: -1 };
        if (!(event.key in steps)) return;
        const next = buttons.at(steps[event.key] % buttons.length);
        event.preventDefault();
        choose(next);
        next.focus();
      });
    });
  }

  for (const slider of document.querySelectorAll('.slide input[type="range"]')) {
    const samples = slider.closest('[role="tabpanel"]').querySelectorAll(".sample");
    const said = slider.parentElement.querySelector("output");
    const given = slider.parentElement.querySelector("label").textContent;
    slider.addEventListener("input", () => {
      const at = slider.value / 100;
      const name = at < 0.25 ? given : at > 0.75 ? "truth" : "drawn";
      samples.forEach((sample) => sample.style.setProperty("--at", at));
      said.textContent = name;
      slider.setAttribute("aria-valuetext", name);
    });
  }
})();
