(() => {
  "use strict";
  const cases = JSON.parse(document.getElementById("calls").textContent);
  const panel = document.getElementById("evidence");
  let chosen = null;

  const element = (name, text, className) => {
    const made = document.createElement(name);
    made.textContent = text;
    if (className) made.className = className;
    return made;
  };

  const show = (cell) => {
    if (chosen) chosen.removeAttribute("aria-pressed");
    chosen = cell;
    cell.setAttribute("aria-pressed", "true");
    const one = cases[Number(cell.dataset.case)];
    const close = element("button", "close");
    close.type = "button";
    close.addEventListener("click", hide);
    const said = one.observed === null
      ? `predicted: ${one.predicted}; not tried`
      : `predicted: ${one.predicted}; observed: ${one.observed}${one.differs ? " — the kernel differs" : ""}`;
    const list = document.createElement("ol");
    for (const call of one.calls) {
      const line = document.createElement("li");
      line.append(element("span", `${call.host}: `, "who"), element("span", call.call), element("span", ` = ${call.result}`, "result"));
      list.append(line);
    }
    panel.replaceChildren(close, element("h4", one.title), element("p", said), element("p", `${one.rule}: ${one.sentence}`), list);
    panel.hidden = false;
  };

  const hide = () => {
    panel.hidden = true;
    if (chosen) {
      chosen.removeAttribute("aria-pressed");
      chosen.focus({ preventScroll: true });
      panel.hidden = true;
      chosen = null;
    }
  };

  const neighbour = (cell, key) => {
    const here = cell.closest("td");
    const row = here.parentElement;
    const rows = [...row.parentElement.children];
    const place = [...row.children].indexOf(here);
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[key];
    const target = rows[rows.indexOf(row) + step[0]]?.children[place + step[1]];
    return target?.querySelector("button[data-case]");
  };

  document.addEventListener("click", (event) => {
    const cell = event.target.closest("button[data-case]");
    if (cell) show(cell);
  });
  document.addEventListener("focusin", (event) => {
    const cell = event.target.closest("button[data-case]");
    if (cell && cell !== chosen && cell.matches(":focus-visible")) show(cell);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
    const cell = event.target.closest?.("button[data-case]");
    if (!cell || !event.key.startsWith("Arrow")) return;
    const next = neighbour(cell, event.key);
    if (next) {
      event.preventDefault();
      next.focus();
      show(next);
    }
  });
})();
