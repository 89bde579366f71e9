// What a served page does beyond the report: it keeps what was chosen while its content is replaced, follows a log,
// draws curves that can be zoomed, and holds a connection only while its tab is seen.
"use strict";
(() => {
  const LINES = 5000; // of a log that is followed

  // ---------------------------------------------------------------- one stream, open while the tab is seen

  class Stream extends EventTarget {
    constructor(url) {
      super();
      this.url = url;
      this.names = new Set(["changed"]);
      this.forward = (event) => {
        if (event.type === "changed") changed();
        if (event.lastEventId) this.last = event.lastEventId;
        this.dispatchEvent(new MessageEvent(event.type, { data: event.data, lastEventId: event.lastEventId }));
      };
      this.turned = () => (document.hidden ? this.pause() : this.open());
      this.left = () => this.pause();
      document.addEventListener("visibilitychange", this.turned);
      window.addEventListener("pagehide", this.left);
      window.addEventListener("pageshow", this.turned);
      this.open();
    }

    get readyState() {
      return this.inner ? this.inner.readyState : EventSource.CONNECTING;
    }

    open() {
      if (this.inner || document.hidden) return;
      const after = this.last ? `&after=${encodeURIComponent(this.last)}` : "";
      this.inner = new EventSource(this.url + after);
      this.inner.onopen = (event) => {
        connected(true);
        if (this.onopen) this.onopen(event);
      };
      this.inner.onerror = (event) => {
        connected(false);
        if (this.onerror) this.onerror(event);
      };
      for (const name of this.names) this.inner.addEventListener(name, this.forward);
    }

    pause() {
      if (this.inner) this.inner.close();
      this.inner = null;
    }

    addEventListener(name, listener) {
      super.addEventListener(name, listener);
      if (this.names.has(name)) return;
      this.names.add(name);
      if (this.inner) this.inner.addEventListener(name, this.forward);
    }

    close() {
      document.removeEventListener("visibilitychange", this.turned);
      window.removeEventListener("pagehide", this.left);
      window.removeEventListener("pageshow", this.turned);
      this.pause();
    }
  }

  htmx.createEventSource = (url) => new Stream(url);

  function connected(well) {
    const place = document.getElementById("connection");
    const text = well ? "" : `not connected since ${new Date().toLocaleTimeString()}: this is what was there then`;
    if (place && (well || !place.textContent)) place.textContent = text;
  }

  // ---------------------------------------------------------------- what was chosen stays, when the content is replaced

  const shown = () => document.getElementById("shown");
  const nameOf = (control) => {
    const label = control.closest("label");
    const text = control.getAttribute("aria-label") ?? (label ? [...label.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data.trim()).join(" ") : "");
    const part = control.closest("[data-for], section");
    return `${part ? (part.dataset.for ? "explorer" : part.id) : ""} ${text}`;
  };
  const chosenText = (select) => (select.selectedIndex < 0 ? "" : select.options[select.selectedIndex].text);
  const titleOf = (details) => details.id || details.querySelector("summary").textContent;
  let kept = null;

  function keep() {
    const root = shown();
    if (!root) return;
    kept = { controls: new Map(), open: new Set(), scrolled: new Map(), focus: null, sorted: [], rows: new Map(), chosen: new Map() };
    for (const section of root.querySelectorAll("section.runs")) {
      kept.chosen.set(section.id, new Set(section.chosen().map((run) => run.key)));
      kept.rows.set(section.id, section.querySelectorAll("table.list > tbody > tr").length);
    }
    for (const control of root.querySelectorAll("input, select")) {
      if (control.type === "hidden") continue;
      if (control === document.activeElement) kept.focus = { control: nameOf(control), at: control.selectionStart };
      if (control.closest("table.list")) continue; // what chooses runs
      const value = control.type === "checkbox" ? control.checked : control.tagName === "SELECT" ? chosenText(control) : control.value;
      kept.controls.set(nameOf(control), value);
    }
    const active = document.activeElement;
    if (active && root.contains(active) && !kept.focus) kept.focus = { path: placeOf(active, root) };
    for (const cell of root.querySelectorAll("th[aria-sort]")) {
      kept.sorted.push([cell.closest("section").id, cell.textContent, cell.getAttribute("aria-sort")]);
    }
    for (const details of root.querySelectorAll("details[open]")) kept.open.add(titleOf(details));
    for (const box of root.querySelectorAll(".scroll, pre")) kept.scrolled.set(box.getAttribute("aria-label"), [box.scrollLeft, box.scrollTop]);
  }

  function placeOf(element, root) {
    if (element.id) return { id: element.id };
    const text = element.getAttribute("aria-label") ?? element.textContent;
    const alike = [...root.querySelectorAll(element.tagName)].filter((e) => (e.getAttribute("aria-label") ?? e.textContent) === text);
    return { tag: element.tagName, text, nth: alike.indexOf(element) };
  }

  function restore() {
    const root = shown();
    if (!root || !kept) return;
    const was = kept;
    kept = null;
    for (const [part, text, direction] of was.sorted) {
      const cell = [...root.querySelectorAll(`#${CSS.escape(part)} table.list th`)].find((each) => each.textContent === text);
      const button = cell && cell.querySelector("button");
      if (button) for (let k = direction === "descending" ? 2 : 1; k; k--) button.click();
    }
    for (const control of root.querySelectorAll("input, select")) {
      const value = was.controls.get(nameOf(control));
      if (value === undefined || control.type === "hidden" || control.closest("table.list")) continue;
      if (control.type === "checkbox") {
        if (control.checked === value) continue;
        control.checked = value;
        control.dispatchEvent(new Event("change", { bubbles: true }));
      } else if (control.tagName === "SELECT") {
        const at = [...control.options].findIndex((option) => option.text === value);
        if (at < 0 || at === control.selectedIndex) continue;
        control.selectedIndex = at;
        control.dispatchEvent(new Event("change", { bubbles: true }));
      } else if (control.value !== value) {
        control.value = value;
        control.dispatchEvent(new Event("input", { bubbles: true }));
      }
    }
    for (const section of root.querySelectorAll("section.runs")) {
      section.choose(was.chosen.get(section.id) ?? new Set());
      const more = section.querySelector(".more button");
      const count = () => section.querySelectorAll("table.list > tbody > tr").length;
      while (more && !more.parentElement.hidden && count() + 1 < (was.rows.get(section.id) ?? 0)) more.click();
    }
    for (const details of root.querySelectorAll("details")) if (was.open.has(titleOf(details))) details.open = true;
    for (const box of root.querySelectorAll(".scroll, pre")) {
      const at = was.scrolled.get(box.getAttribute("aria-label"));
      if (at) [box.scrollLeft, box.scrollTop] = at;
    }
    const focused = was.focus?.control && [...root.querySelectorAll("input, select")].find((control) => nameOf(control) === was.focus.control);
    if (focused) {
      focused.focus({ preventScroll: true });
      if (was.focus.at !== null && focused.type !== "checkbox" && focused.setSelectionRange) focused.setSelectionRange(was.focus.at, was.focus.at);
    }
    if (was.focus && was.focus.path) {
      const { id, tag, text, nth } = was.focus.path;
      const found = id ? document.getElementById(id) : [...root.querySelectorAll(tag)].filter((e) => (e.getAttribute("aria-label") ?? e.textContent) === text)[nth];
      if (found) found.focus({ preventScroll: true });
    }
  }

  // ---------------------------------------------------------------- when the content is replaced

  // a list that is open, or a text that is marked, is not taken away from under its reader
  const busy = () => {
    const active = document.activeElement;
    const marked = document.getSelection();
    const inside = marked && !marked.isCollapsed && shown().contains(marked.anchorNode);
    return inside || (active && active.tagName === "SELECT" && shown().contains(active));
  };
  const isLive = (event) => event.detail.target?.id === "live"; // and not a line of a log
  let wanted = false; // something has changed since what is shown was asked for
  let asked = 0; // when that was, while the answer is on its way
  let next = 0; // when it may be asked for again: the longer it takes, the later

  function changed() {
    wanted = true;
    refresh();
  }

  function refresh() {
    const now = performance.now();
    if (wanted && !asked && now >= next && shown() && !busy()) htmx.trigger(shown(), "refresh");
  }

  document.addEventListener("htmx:beforeSend", (event) => {
    if (!isLive(event)) return;
    wanted = false; // also by a filter: its answer is as new
    asked = performance.now();
  });
  document.addEventListener("htmx:afterRequest", (event) => {
    if (!isLive(event)) return;
    const took = performance.now() - asked;
    asked = 0;
    next = performance.now() + Math.max(1000, 3 * took);
    if (!event.detail.successful) wanted = true;
  });
  setInterval(refresh, 500);
  // ---------------------------------------------------------------- the address, where the browser goes back or forward

  const place = (address) => {
    const { pathname, searchParams } = new URL(address, location.href);
    return `${pathname}?${[...searchParams].filter(([, value]) => value).map(String).sort().join("&")}`;
  };
  const LOADED = "exca-loaded"; // the address that was loaded again last, so that none is forever

  // htmx loads a page again that the browser goes to, but not while it is itself being loaded
  function catchUp() {
    if (!shown() || place(shown().getAttribute("hx-get")) === place(location.href)) sessionStorage.removeItem(LOADED);
    else if (sessionStorage.getItem(LOADED) !== location.href) {
      sessionStorage.setItem(LOADED, location.href);
      location.reload();
    }
  }

  window.addEventListener("popstate", () => setTimeout(catchUp));
  catchUp();

  document.addEventListener("htmx:beforeSwap", (event) => {
    if (isLive(event)) keep();
  });
  document.addEventListener("htmx:afterSwap", (event) => {
    if (!isLive(event)) return;
    offer();
    restore();
    curves();
  });

  // ---------------------------------------------------------------- what can be done to the runs that are chosen

  function offer() {
    for (const form of document.querySelectorAll("form.chosen-runs")) {
      const section = form.parentElement.querySelector("section.runs");
      if (!section) continue;
      section.querySelector(".controls").append(form);
      form.hidden = false;
      const fitting = (button) => section.chosen().filter((run) => button.dataset.states.split(" ").includes(run.state));
      const show = () => {
        for (const button of form.querySelectorAll("button")) {
          const n = fitting(button).length;
          const most = Number(button.dataset.most);
          button.name_ ??= button.textContent;
          button.textContent = n > most ? `${button.name_} ${most} at most` : n ? `${button.name_} ${n}` : button.name_;
          button.disabled = n < 1 || n > most;
        }
      };
      section.addEventListener("exca:chosen", show);
      form.addEventListener("submit", (event) => {
        form.elements.runs.value = fitting(event.submitter).map((run) => run.key.slice(run.key.lastIndexOf("/") + 1)).join(",");
      });
      show();
    }
  }

  offer();

  // ---------------------------------------------------------------- a log

  function atEnd(log) {
    return log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  }

  let follow = true;
  document.addEventListener("htmx:sseBeforeMessage", (event) => {
    const log = event.target;
    if (log.id !== "log") return;
    follow = atEnd(log);
    const none = document.getElementById("no-log");
    if (none) none.textContent = "";
    if (event.detail.type === "begin") {
      event.preventDefault();
      log.replaceChildren();
    }
  });
  document.addEventListener("htmx:sseMessage", (event) => {
    const log = event.target;
    if (log.id !== "log") return;
    while (log.childNodes.length > LINES) log.firstChild.remove();
    if (follow) log.scrollTop = log.scrollHeight;
  });
  const log = document.getElementById("log");
  if (log) log.scrollTop = log.scrollHeight;

  // ---------------------------------------------------------------- curves that can be zoomed

  function curves() {
    const data = document.getElementById("curves");
    const figures = shown() ? shown().querySelectorAll("figure.chart.curves") : [];
    if (!data || !figures.length) return;
    const style = getComputedStyle(document.documentElement);
    const colour = (variable) => style.getPropertyValue(variable).trim();
    const axis = () => ({ stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } });
    JSON.parse(data.dataset.curves).forEach(({ name, steps, values }, k) => {
      if (!figures[k] || steps.length < 2) return;
      const picture = figures[k].querySelector(".scroll");
      const box = document.createElement("div");
      box.className = "zoomable";
      box.setAttribute("aria-hidden", "true"); // its numbers are in the table below it
      picture.before(box);
      picture.hidden = true;
      new uPlot(
        {
          width: Math.max(240, Math.min(540, figures[k].clientWidth)),
          height: 250,
          scales: { x: { time: false } },
          axes: [axis(), axis()],
          series: [{ label: "step" }, { label: name, stroke: colour("--accent"), width: 2, points: { show: steps.length < 50 } }],
        },
        [steps, values],
        box,
      );
    });
  }

  curves();
})();
