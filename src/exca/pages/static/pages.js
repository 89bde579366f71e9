// What a table of runs can do beyond being read: sort, filter, group, choose columns, compare, draw.
// The page is whole without it. Nothing is fetched, and texts reach the page as text only.
"use strict";
(() => {
  const PAGE = 100; // rows that are shown at first
  const SHADES = 5;

  function make(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name in element && name !== "list") element[name] = value;
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  const SVG = "http://www.w3.org/2000/svg";
  function draw(tag, attributes, text) {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    return element;
  }

  const count = (n) => n.toLocaleString("en");
  const short = (number) => String(Number(number.toPrecision(4)));

  // ---------------------------------------------------------------- the data of a table

  function dataOf(section) {
    const raw = JSON.parse(section.querySelector("script.data").textContent);
    const rows = []; // those that the page came with; others are made when they are shown
    section.querySelectorAll("table.list > tbody > tr").forEach((row, k) => (rows[(raw.first ?? 0) + k] = row));
    const ids = raw.ids ?? rows.map((row) => row.cells[0].textContent.trim());
    const links = raw.links ?? rows.map((row) => row.cells[0].querySelector("a")?.getAttribute("href"));
    const columns = [
      { name: "run", role: "id", numeric: false, values: ids },
      { name: "state", role: "fact", numeric: false, values: raw.state.map((k) => raw.states[k]) },
      ...raw.columns.map((column) => ({
        ...column,
        values: column.numeric ? column.values : column.index.map((k) => column.texts[k]),
      })),
    ];
    const order = ids.map((_, k) => k);
    return { rows, ids, links, columns, order, shown: order, words: [] };
  }

  // what a cell holds, where the page does not hold the row
  const textOf = (column, k) => (column.numeric ? column.texts[k] : (column.values[k] ?? ""));

  function wordsOf(data, k) {
    data.words[k] ??= (data.rows[k] ? data.rows[k].textContent : data.columns.map((column) => textOf(column, k)).join("\n")).toLowerCase();
    return data.words[k];
  }

  // a row like those that the page came with
  function rowOf(data, k) {
    if (data.rows[k]) return data.rows[k];
    const state = data.columns[1].values[k];
    const row = make("tr", {}, make("th", { scope: "row" }, data.links[k] ? make("a", { href: data.links[k] }, data.ids[k]) : data.ids[k]));
    row.append(make("td", {}, make("span", { className: `state ${state}` }, state)));
    for (const column of data.columns.slice(2)) {
      row.append(make("td", { className: `${column.numeric ? "n" : ""} ${column.defaults?.[k] === "1" ? "d" : ""}`.trim() }, textOf(column, k)));
    }
    data.rows[k] = row;
    return row;
  }

  const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

  function compare(a, b) {
    const empty = (value) => value === null || value === "";
    if (empty(a) || empty(b)) return empty(a) - empty(b); // what has none comes last
    if (isNumber(a) && isNumber(b)) return a - b;
    const [x, y] = [Number(a), Number(b)];
    if (!Number.isNaN(x) && !Number.isNaN(y)) return x - y;
    return String(a).localeCompare(String(b), "en", { numeric: true });
  }

  // ---------------------------------------------------------------- filters: words, and name=value, name<value...

  const CONDITION = /^([^\s=<>!~]+)(<=|>=|!=|=|<|>|~)(.*)$/;

  function conditionOf(word, data) {
    const found = CONDITION.exec(word);
    const column = found && data.columns.find((c) => c.name === found[1] || c.name.endsWith(`.${found[1]}`));
    if (!column) {
      const wanted = word.toLowerCase();
      return (k) => wordsOf(data, k).includes(wanted);
    }
    const [, , sign, text] = found;
    if (sign === "~") return (k) => String(column.values[k] ?? "").toLowerCase().includes(text.toLowerCase());
    const wanted = text !== "" && !Number.isNaN(Number(text)) ? Number(text) : text;
    const tests = {
      "=": (d) => d === 0, "!=": (d) => d !== 0, "<": (d) => d < 0, ">": (d) => d > 0, "<=": (d) => d <= 0, ">=": (d) => d >= 0,
    };
    return (k) => {
      const value = column.values[k];
      if (value === null || value === undefined || value === "") return sign === "!=" || (sign === "=" && text === "");
      return tests[sign](compare(value, wanted));
    };
  }

  // ---------------------------------------------------------------- one table

  function enhance(section) {
    if (section.dataset.enhanced) return;
    section.dataset.enhanced = "yes";
    const table = section.querySelector("table.list");
    const body = table.tBodies[0];
    const head = [...table.tHead.rows[0].cells];
    const data = dataOf(section);
    const countLine = section.querySelector(".countline");
    const controls = section.querySelector(".controls");
    const chosen = new Set();
    const hiddenColumns = new Set();
    const listeners = [];
    let sorted = null; // {column, down}
    let grouped = null;
    let most = PAGE;

    // sorting: a button in each head
    head.forEach((cell, k) => {
      const button = make("button", { type: "button" }, cell.textContent);
      cell.replaceChildren(button);
      button.addEventListener("click", () => {
        sorted = sorted && sorted.column === k ? (sorted.down ? null : { column: k, down: true }) : { column: k, down: false };
        head.forEach((other, i) => {
          if (sorted && i === k) other.setAttribute("aria-sort", sorted.down ? "descending" : "ascending");
          else other.removeAttribute("aria-sort");
        });
        update();
      });
    });

    // a way to the details of each run, and a box to choose it, made when the row is first shown
    const prepared = new Set();
    function prepare(k) {
      if (prepared.has(k)) return;
      prepared.add(k);
      const row = rowOf(data, k);
      for (const hidden of hiddenColumns) row.cells[hidden].hidden = true;
      const cell = row.cells[0];
      if (!cell.querySelector("a")) {
        const button = make("button", { type: "button", className: "rowname" }, data.ids[k]);
        button.addEventListener("click", () => showRuns(data, [k]));
        cell.replaceChildren(button);
      }
      const box = make("input", { type: "checkbox", "aria-label": `choose ${data.ids[k]}` });
      box.checked = chosen.has(k);
      row.classList.toggle("chosen", box.checked);
      box.addEventListener("change", () => choose([k], box.checked));
      cell.prepend(box, " ");
    }

    const keyOf = (k) => data.links[k] ?? data.ids[k];
    function choose(which, wanted) {
      for (const k of which) {
        if (wanted) chosen.add(k);
        else chosen.delete(k);
        if (!prepared.has(k)) continue;
        data.rows[k].classList.toggle("chosen", wanted);
        data.rows[k].cells[0].querySelector("input").checked = wanted;
      }
      compareButton.disabled = chosen.size < 2;
      compareButton.textContent = chosen.size < 2 ? "Compare" : `Compare ${count(chosen.size)}`;
      const all = data.shown.length > 0 && data.shown.every((k) => chosen.has(k));
      allBox.checked = all;
      allBox.indeterminate = !all && chosen.size > 0;
      section.dispatchEvent(new Event("exca:chosen", { bubbles: true }));
    }
    // for pages that are served: what was chosen, by the address of the run
    section.chosen = () => [...chosen].map((k) => ({ key: keyOf(k), state: data.columns[1].values[k] }));
    section.choose = (keys) => choose(data.order.filter((k) => keys.has(keyOf(k))), true);
    const allBox = make("input", { type: "checkbox", "aria-label": "choose all that fit" });
    allBox.addEventListener("change", () => choose(data.shown, allBox.checked));
    head[0].prepend(allBox, " ");

    const search = make("input", { type: "search", placeholder: "words, state=failed, rate>0.1", autocomplete: "off", spellcheck: false });
    search.addEventListener("input", () => update());
    const groupBy = make("select", {}, make("option", { value: "" }, "nothing"));
    data.columns.forEach((column, k) => {
      const distinct = new Set(column.values).size;
      if (k > 0 && distinct > 1 && distinct <= Math.max(12, data.order.length / 4)) {
        groupBy.append(make("option", { value: String(k) }, column.name));
      }
    });
    groupBy.addEventListener("change", () => {
      grouped = groupBy.value === "" ? null : Number(groupBy.value);
      update();
    });
    const menu = make("div", { className: "menu", role: "group", "aria-label": "Columns" });
    data.columns.forEach((column, k) => {
      if (k === 0) return;
      const box = make("input", { type: "checkbox", checked: true });
      box.addEventListener("change", () => {
        if (box.checked) hiddenColumns.delete(k);
        else hiddenColumns.add(k);
        head[k].hidden = !box.checked;
        for (const row of data.rows) if (row) row.cells[k].hidden = !box.checked;
        update();
      });
      menu.append(make("label", {}, box, column.name));
    });
    const columns = make("details", { className: "choice" }, make("summary", { className: "button" }, "Columns"), menu);
    columns.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        columns.open = false;
        columns.querySelector("summary").focus();
      }
    });
    document.addEventListener("click", (event) => {
      if (!columns.contains(event.target)) columns.open = false;
    });
    const compareButton = make("button", { type: "button", className: "button", disabled: true }, "Compare");
    compareButton.addEventListener("click", () => showRuns(data, [...chosen].sort((a, b) => a - b)));
    controls.append(
      make("label", { className: "filter" }, "Filter", search),
      make("label", {}, "Group by", groupBy),
      columns,
      compareButton,
    );
    controls.hidden = false;
    for (const pages of section.parentElement.querySelectorAll("nav.pages")) pages.hidden = true;
    const moreButton = make("button", { type: "button", className: "button" });
    const more = make("p", { className: "more" }, moreButton);
    moreButton.addEventListener("click", () => {
      const before = body.rows.length;
      most *= 10;
      update();
      if (more.hidden) body.rows[before]?.querySelector("a, button")?.focus(); // the button is gone
    });
    const none = section.querySelector(".none") ?? make("p", { className: "none" }, "No run fits.");
    table.parentElement.after(none, more);

    function update() {
      const tests = search.value.split(/\s+/).filter(Boolean).map((word) => conditionOf(word, data));
      let shown = data.order.filter((k) => tests.every((test) => test(k)));
      if (sorted) {
        const values = data.columns[sorted.column].values;
        const turn = sorted.down ? -1 : 1;
        const none = (k) => values[k] === null || values[k] === undefined || values[k] === "";
        shown.sort((a, b) => (none(a) || none(b) ? none(a) - none(b) : turn * compare(values[a], values[b])) || a - b);
      }
      data.shown = shown;
      const fragment = document.createDocumentFragment();
      let left = most;
      let place = 1; // in all of the table, its head being the first row
      const partly = shown.length > most;
      const placed = (row) => {
        place += 1;
        if (partly) row.setAttribute("aria-rowindex", place);
        else row.removeAttribute("aria-rowindex");
        fragment.append(row);
      };
      const groups = groupsOf(shown);
      if (partly) table.setAttribute("aria-rowcount", 1 + shown.length + (grouped === null ? 0 : groups.length));
      else table.removeAttribute("aria-rowcount");
      for (const [title, part] of groups) {
        if (left <= 0) break;
        if (title !== null) {
          const across = head.length - hiddenColumns.size;
          placed(make("tr", { className: "group" }, make("th", { colSpan: across, scope: "rowgroup" }, title)));
        }
        for (const k of part.slice(0, left)) {
          prepare(k);
          placed(data.rows[k]);
        }
        left -= part.length;
      }
      body.replaceChildren(fragment);
      const all = data.order.length;
      const noun = all === 1 ? "run" : "runs";
      countLine.textContent = shown.length === all ? `${count(all)} ${noun}` : `${count(shown.length)} of ${count(all)} ${noun}`;
      none.hidden = shown.length > 0;
      more.hidden = shown.length <= most;
      moreButton.textContent = `Show ${count(Math.min(9 * most, shown.length - most))} more of ${count(shown.length)}`;
      choose([], true);
      for (const listener of listeners) listener();
    }

    function groupsOf(shown) {
      if (grouped === null) return [[null, shown]];
      const column = data.columns[grouped];
      const found = new Map();
      for (const k of shown) {
        const value = column.values[k] ?? "";
        if (!found.has(value)) found.set(value, []);
        found.get(value).push(k);
      }
      const result = data.columns.find((c) => c.role === "result" && c.numeric);
      const ordered = [...found].sort(([a], [b]) => compare(a, b));
      return ordered.map(([value, part]) => {
        const numbers = result ? part.map((k) => result.values[k]).filter(isNumber).sort((a, b) => a - b) : [];
        const middle = numbers.length ? `, ${result.name} ${short(numbers[0])} to ${short(numbers[numbers.length - 1])}, median ${short(median(numbers))}` : "";
        return [`${column.name} = ${value === "" ? "-" : isNumber(value) ? short(value) : value}: ${count(part.length)} ${part.length === 1 ? "run" : "runs"}${middle}`, part];
      });
    }

    const explorer = document.querySelector(`.explorer[data-for="${CSS.escape(section.dataset.group)}"]`);
    if (explorer) listeners.push(explore(explorer, data));
    update();
  }

  const median = (ordered) => {
    const half = ordered.length >> 1;
    return ordered.length % 2 ? ordered[half] : (ordered[half - 1] + ordered[half]) / 2;
  };

  // ---------------------------------------------------------------- one run, or several side by side

  function showRuns(data, which) {
    const one = which.length === 1;
    const title = one ? `Run ${data.ids[which[0]]}` : `${which.length} runs side by side`;
    const text = (column, k) => {
      const value = column.values[k];
      return value === null || value === undefined || value === "" ? "-" : isNumber(value) ? short(value) : String(value);
    };
    const body = make("tbody");
    const order = data.columns.slice(1).map((column) => {
      const texts = which.map((k) => text(column, k));
      return { column, texts, differs: texts.some((each) => each !== texts[0]) };
    });
    order.sort((a, b) => b.differs - a.differs);
    for (const { column, texts, differs } of order) {
      body.append(make("tr", {}, make("th", { scope: "row" }, column.name), ...texts.map((each) => make("td", { className: differs ? "differs" : "d" }, each))));
    }
    const head = make("tr", {}, make("th", { scope: "col" }, "field"), ...which.map((k) => make("th", { scope: "col" }, data.ids[k])));
    const close = make("button", { type: "button", className: "button" }, "Close");
    const dialog = make(
      "dialog",
      { "aria-label": title },
      make("div", { className: "bar-of-dialog" }, make("h2", {}, title), close),
      make("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": title }, make("table", {}, make("caption", { className: "hidden" }, title), make("thead", {}, head), body)),
    );
    close.addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close();
    });
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
  }

  // ---------------------------------------------------------------- any column against any other

  function explore(box, data) {
    const drawable = data.columns.filter((c, k) => k > 0 && c.name !== "error" && new Set(c.values).size > 1 && (c.numeric || new Set(c.values).size <= 12));
    const results = drawable.filter((c) => c.role === "result" && c.numeric);
    const parameters = drawable.filter((c) => c.role === "parameter");
    parameters.sort((a, b) => a.name.endsWith("seed") - b.name.endsWith("seed")); // which tells the least
    if (!results.length || !parameters.length) return () => {};
    const select = (label, options, value) => {
      const made = make("select", {}, ...options.map((c) => make("option", { value: String(drawable.indexOf(c)) }, c.name)));
      made.value = String(drawable.indexOf(value));
      made.addEventListener("change", redraw);
      return [made, make("label", {}, label, made)];
    };
    const [x, xLabel] = select("Across", drawable, parameters[0]);
    const [y, yLabel] = select("Up", drawable.filter((c) => c.numeric), results[0]);
    const [shade, shadeLabel] = select("Shade", drawable, parameters[1] ?? results[0]);
    const svg = draw("svg", { role: "img" });
    const told = make("p", { className: "told" });
    const legend = make("div", { className: "legend" });
    box.append(make("div", { className: "choose" }, xLabel, yLabel, shadeLabel), make("figure", { className: "chart" }, svg), legend, told);
    box.hidden = false;
    svg.addEventListener("pointerover", (event) => {
      if (!event.target.dataset.run) return;
      told.textContent = at(event.target).map((dot) => dot.dataset.told).join("; ");
    });
    svg.addEventListener("click", (event) => {
      if (event.target.dataset.run) showRuns(data, at(event.target).map((dot) => Number(dot.dataset.run)));
    });

    function at(dot) {
      const place = (one, name) => one.getAttribute(name);
      const same = [...svg.querySelectorAll("circle")].filter((one) => place(one, "cx") === place(dot, "cx") && place(one, "cy") === place(dot, "cy"));
      return same.slice(0, 5);
    }

    function redraw() {
      const [across, up, by] = [x, y, shade].map((each) => drawable[Number(each.value)]);
      const there = data.shown.filter((k) => isNumber(up.values[k]) && (across.numeric ? isNumber(across.values[k]) : true));
      const width = Math.min(1100, Math.max(300, box.clientWidth - 26)); // a unit is a pixel, so that texts stay readable
      const right = width - 14;
      drawn = box.clientWidth;
      svg.setAttribute("viewBox", `0 0 ${width} 340`);
      svg.replaceChildren();
      legend.replaceChildren();
      svg.setAttribute("aria-label", `${up.name} against ${across.name}, ${there.length} runs; the same numbers are in the table of runs`);
      told.textContent = there.length ? "Point at a dot to read it, click it for all of the run." : "No run that is shown has both values.";
      if (!there.length) return;
      const vertical = scaleOf(there.map((k) => up.values[k]), 300, 14);
      const horizontal = across.numeric ? scaleOf(there.map((k) => across.values[k]), 60, right) : placesOf(there.map((k) => String(across.values[k] ?? "")), 60, right);
      for (const [at, text] of vertical.ticks) svg.append(draw("path", { class: "grid", d: `M60 ${at}H${right}` }), draw("text", { class: "mark", x: 54, y: at + 3.5, "text-anchor": "end" }, text));
      for (const [at, text] of horizontal.ticks) svg.append(draw("path", { class: "grid", d: `M${at} 300v4` }), draw("text", { class: "mark", x: at, y: 316, "text-anchor": "middle" }, text));
      svg.append(draw("path", { class: "axis", d: `M60 300H${right}` }), draw("text", { class: "name", x: (60 + right) / 2, y: 334, "text-anchor": "middle" }, across.name));
      const kinds = shadesOf(by, there);
      for (const [text, k] of kinds.legend) legend.append(make("span", {}, swatch(k), ` ${text}`));
      const r = there.length > 500 ? 2.5 : 4;
      for (const k of there) {
        const value = across.numeric ? across.values[k] : String(across.values[k] ?? "");
        const dot = draw("circle", { class: `dot shade${kinds.of(k)}`, cx: horizontal.at(value).toFixed(1), cy: vertical.at(up.values[k]).toFixed(1), r });
        dot.dataset.run = String(k);
        const told = [...new Set([across, up, by])].map((c) => `${c.name} ${isNumber(c.values[k]) ? short(c.values[k]) : (c.values[k] ?? "-")}`);
        dot.dataset.told = `${data.ids[k]}: ${told.join(", ")}`;
        svg.append(dot);
      }
    }
    let drawn = 0; // for which width
    new ResizeObserver(() => {
      if (box.clientWidth !== drawn) redraw();
    }).observe(box);
    return redraw;
  }

  function swatch(k) {
    const svg = draw("svg", { viewBox: "0 0 10 10", width: 10, height: 10, "aria-hidden": "true" });
    svg.append(draw("circle", { class: `swatch shade${k}`, cx: 5, cy: 5, r: 5 }));
    return svg;
  }

  function shadesOf(column, there) {
    const texts = [...new Set(there.map((k) => column.values[k] ?? ""))].sort(compare);
    if (texts.length <= SHADES) {
      const name = (value) => (value === "" ? `${column.name} -` : `${column.name} ${isNumber(value) ? short(value) : value}`);
      return { of: (k) => Math.round((texts.indexOf(column.values[k] ?? "") * (SHADES - 1)) / Math.max(1, texts.length - 1)), legend: texts.map((value, i) => [name(value), Math.round((i * (SHADES - 1)) / Math.max(1, texts.length - 1))]) };
    }
    const rank = new Map(texts.map((value, i) => [value, Math.min(SHADES - 1, Math.floor((i * SHADES) / texts.length))]));
    const label = (i) => {
      const of = texts.filter((value) => rank.get(value) === i);
      const text = (value) => (isNumber(value) ? short(value) : value);
      return `${column.name} ${text(of[0])} to ${text(of[of.length - 1])}`;
    };
    return { of: (k) => rank.get(column.values[k] ?? ""), legend: [...Array(SHADES).keys()].map((i) => [label(i), i]) };
  }

  function scaleOf(values, start, end) {
    let low = Math.min(...values);
    let high = Math.max(...values);
    const logarithmic = low > 0 && high / low >= 50;
    if (low === high) {
      const room = Math.abs(low) * 0.1 || 1;
      low -= room;
      high += room;
    }
    const f = logarithmic ? Math.log10 : (value) => value;
    const room = (f(high) - f(low)) * 0.04;
    const [from, to] = [f(low) - room, f(high) + room];
    const at = (value) => start + ((f(value) - from) / (to - from)) * (end - start);
    const ticks = [];
    const few = [...new Set(values)].sort((a, b) => a - b);
    const apart = few.length <= 8 && few.every((value, i) => i === 0 || Math.abs(at(value) - at(few[i - 1])) >= 24);
    if (apart) {
      for (const value of few) ticks.push([at(value), short(value)]);
    } else if (logarithmic && Math.floor(to) - Math.ceil(from) >= 1) {
      for (let p = Math.ceil(from); p <= Math.floor(to); p++) ticks.push([at(10 ** p), String(Number((10 ** p).toPrecision(3)))]);
    } else {
      const [a, b] = logarithmic ? [10 ** from, 10 ** to] : [from, to];
      const rough = (b - a) / 7;
      const power = 10 ** Math.floor(Math.log10(rough));
      const step = [1, 2, 5, 10].map((n) => n * power).find((each) => each >= rough * 0.999);
      for (let n = Math.ceil(a / step); n * step <= b; n++) if (n * step > 0 || !logarithmic) ticks.push([at(n * step), short(n * step)]);
    }
    return { at, ticks };
  }

  function placesOf(texts, start, end) {
    const names = [...new Set(texts)].sort(compare);
    const step = (end - start) / names.length;
    const places = new Map(names.map((name, i) => [name, start + (i + 0.5) * step]));
    return { at: (text) => places.get(text), ticks: names.map((name) => [places.get(name), name.length > 12 ? `${name.slice(0, 11)}…` : name || "-"]) };
  }

  // ---------------------------------------------------------------- all of the page

  function openTarget() {
    const target = location.hash.length > 1 ? document.getElementById(decodeURIComponent(location.hash.slice(1))) : null;
    if (target instanceof HTMLDetailsElement) {
      target.open = true;
      target.scrollIntoView();
    }
  }

  function enhanceAll(root) {
    for (const section of root.querySelectorAll("section.runs")) enhance(section);
  }

  enhanceAll(document);
  openTarget();
  window.addEventListener("hashchange", openTarget);
  document.addEventListener("htmx:afterSwap", () => enhanceAll(document)); // pages that are served
})();
