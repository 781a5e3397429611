(() => {
  "use strict";
  const { texts, cases, tables } = JSON.parse(document.getElementById("calls").textContent);
  const panel = document.getElementById("evidence");
  const matrix = panel.querySelector(".matrix");
  const details = panel.querySelector(".details");
  const classes = { "#": "good", x: "bad", ".": "lost", "!": "lost" };
  // The cell of the page that is open, and the one in the panel's own table.
  let opened = null;
  let chosen = null;

  const element = (name, text, className) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  };

  const press = (cell) => {
    if (chosen) chosen.removeAttribute("aria-pressed");
    chosen = cell;
    if (cell) cell.setAttribute("aria-pressed", "true");
  };

  const show = (cell) => {
    press(cell);
    if (!panel.contains(cell)) {
      opened = cell;
      matrix.replaceChildren();
    }
    const [title, predicted, observed, differs, rule, sentence, calls] = cases[Number(cell.dataset.case)];
    const said = observed === null
      ? `predicted: ${texts[predicted]}; not tried`
      : `predicted: ${texts[predicted]}; observed: ${texts[observed]}${differs ? " \u2014 the kernel differs" : ""}`;
    const list = element("ol");
    for (let at = 0; at < calls.length; at += 3) {
      const [who, call, result] = calls.slice(at, at + 3).map((place) => texts[place]);
      const line = element("li");
      line.append(element("span", `${who}: `, "who"), element("span", call), element("span", ` = ${result}`, "result"));
      list.append(line);
    }
    const because = element("p");
    because.append(element("code", texts[rule]), element("span", ` ${texts[sentence]}`));
    details.replaceChildren(element("h4", texts[title]), element("p", said), because, list);
    panel.hidden = false;
  };

  // A table that stands behind a stamp: built when it is asked for.
  const open = (stamp) => {
    press(null);
    opened = stamp;
    stamp.setAttribute("aria-pressed", "true");
    const { title, columns, rows } = tables[Number(stamp.dataset.table)];
    const table = element("table", undefined, "glyphs");
    const head = element("tr");
    head.append(element("th", "first, then second"));
    for (const column of columns) {
      const cell = element("th");
      cell.scope = "col";
      cell.append(element("span", column));
      head.append(cell);
    }
    table.append(head);
    for (const [name, cells] of rows) {
      const line = element("tr");
      const cell = element("th", name);
      cell.scope = "row";
      line.append(cell);
      cells.forEach((one, place) => {
        const cell = element("td");
        if (one === null) {
          cell.append(element("span", "-", "glyph none"));
        } else {
          const [number, glyph] = one;
          const button = element("button", glyph, `glyph ${classes[glyph] ?? "none"}`);
          button.type = "button";
          button.dataset.case = number;
          button.setAttribute("aria-label", `${name}, then ${columns[place]}: ${glyph}`);
          cell.append(button);
        }
        line.append(cell);
      });
      table.append(line);
    }
    const scroll = element("div", undefined, "scroll");
    scroll.append(table);
    matrix.replaceChildren(element("h4", title), scroll);
    details.replaceChildren(element("p", "Choose a pair to see its system calls."));
    panel.hidden = false;
    table.querySelector("button")?.focus({ preventScroll: true });
  };

  const hide = () => {
    if (panel.hidden) return;
    panel.hidden = true;
    press(null);
    if (opened) {
      opened.removeAttribute("aria-pressed");
      opened.focus({ preventScroll: true });
      panel.hidden = true;
      press(null);
      opened = null;
    }
  };

  const neighbour = (cell, key) => {
    const here = cell.closest("td");
    const row = here.parentElement;
    const rows = [...row.parentElement.children];
    const place = [...row.children].indexOf(here);
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[key];
    const target = rows[rows.indexOf(row) + step[0]]?.children[place + step[1]];
    return target?.querySelector("button[data-case], button[data-table]");
  };

  document.addEventListener("click", (event) => {
    if (event.target.closest("#evidence .close")) return hide();
    const cell = event.target.closest("button[data-case]");
    if (cell) return show(cell);
    const stamp = event.target.closest("button[data-table]");
    if (stamp) {
      if (opened && opened !== stamp) opened.removeAttribute("aria-pressed");
      open(stamp);
    }
  });
  document.addEventListener("focusin", (event) => {
    const cell = event.target.closest("button[data-case]");
    if (cell && cell !== chosen && cell.matches(":focus-visible")) show(cell);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return hide();
    const cell = event.target.closest?.("button[data-case], button[data-table]");
    if (!cell || !event.key.startsWith("Arrow")) return;
    const next = neighbour(cell, event.key);
    if (next) {
      event.preventDefault();
      next.focus();
      if (next.dataset.case) show(next);
    }
  });
})();
