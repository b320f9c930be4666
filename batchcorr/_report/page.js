"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);

  // Numbers, as they are read.
  const shown = (value) => {
    if (value === null || Number.isNaN(value)) return "–";
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size < 1e-3 || size >= 1e6) return value.toExponential(2).replaceAll("-", "−");
    return value.toLocaleString("en", { maximumSignificantDigits: 4 }).replace("-", "−");
  };

  // Packed arrays: base64, deflate, one or two bytes a value.
  const inflate = async (text) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).arrayBuffer();
  };
  const values = async (packed) => {
    const buffer = await inflate(packed.data);
    return packed.bytes === 1 ? new Uint8Array(buffer) : new Uint16Array(buffer);
  };
  const STEPS = 65534, NONE = 65535;
  const number = (packed, step) =>
    step === NONE ? NaN : packed.min + (step / STEPS) * (packed.max - packed.min);

  // Colors: eight that color-blind people tell apart, then hues that go around.
  const EIGHT = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a800", "#8a7dff"];
  const RAMP = [[0, 34, 78], [65, 77, 107], [124, 123, 120], [188, 175, 111], [254, 232, 56]]; // cividis
  const MISSING = "#8a929c";
  const colorOfLevel = (k) => {
    if (k < EIGHT.length) return EIGHT[k];
    const turn = (k * 137.508) % 360;
    return `hsl(${turn.toFixed(0)} ${55 + 25 * (k % 2)}% ${[42, 58, 50][k % 3]}%)`;
  };
  const colorOfShare = (share) => {
    const place = share * (RAMP.length - 1), k = Math.min(Math.floor(place), RAMP.length - 2);
    const mixed = RAMP[k].map((c, i) => Math.round(c + (place - k) * (RAMP[k + 1][i] - c)));
    return `rgb(${mixed.join(" ")})`;
  };

  // The pictures.
  const pictures = async () => {
    const canvases = [...document.querySelectorAll("canvas.plot")];
    if (!canvases.length) return;
    const names = data.names ? new TextDecoder().decode(await inflate(data.names)).split("\n") : null;
    const panels = await Promise.all(data.panels.map(async (p) => ({ x: await values(p.x), y: await values(p.y) })));
    const columns = data.columns, select = byId("color"), legend = byId("legend"), hover = byId("hover");
    const codes = new Array(columns.length);
    const load = async (k) => (codes[k] ??= await values(columns[k]));
    // In a random order, so that no level lies on top of the others.
    const order = Uint32Array.from({ length: data.n }, (_, i) => i);
    for (let i = data.n - 1, seed = 7; i > 0; i--) {
      seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
      const j = Math.floor((seed / 4294967296) * (i + 1));
      [order[i], order[j]] = [order[j], order[i]];
    }
    const radius = data.n < 200 ? 4.5 : data.n < 2000 ? 3 : data.n < 20000 ? 1.8 : 1.1;
    let chosen = 0, alone = null, current = -1;

    const missing = (column) => (column.bytes === 1 ? 255 : NONE);
    const colors = () => {
      if (!columns.length) return () => EIGHT[0];
      const column = columns[chosen], code = codes[chosen];
      if (column.kind === "levels") {
        const table = column.levels.map((_, k) => colorOfLevel(k));
        return (i) => table[code[i]] ?? MISSING;
      }
      const table = Array.from({ length: 256 }, (_, k) => colorOfShare(k / 255));
      return (i) => (code[i] === NONE ? MISSING : table[Math.round((code[i] / STEPS) * 255)]);
    };
    const MARGIN = 12;
    // Where a sample lies on a canvas, whose size is asked for once.
    const placing = (canvas, panel) => {
      const height = canvas.clientHeight - MARGIN;
      const right = (canvas.clientWidth - 2 * MARGIN) / STEPS, up = (height - MARGIN) / STEPS;
      return (i) => [MARGIN + panel.x[i] * right, height - panel.y[i] * up];
    };
    const faded = (i) => alone !== null && codes[chosen][i] !== alone;

    const draw = () => {
      const color = colors(), ratio = Math.max(window.devicePixelRatio || 1, 2);
      canvases.forEach((canvas, which) => {
        const panel = panels[which], context = canvas.getContext("2d"), place = placing(canvas, panel);
        canvas.width = Math.round(canvas.clientWidth * ratio);
        canvas.height = Math.round(canvas.clientHeight * ratio);
        context.scale(ratio, ratio);
        for (const later of [false, true]) { // what is faded lies below
          if (!later && alone === null) continue;
          context.globalAlpha = later ? (data.n < 5000 ? 0.85 : 0.7) : 0.12;
          for (const i of order) {
            if (faded(i) === later || panel.x[i] === NONE || panel.y[i] === NONE) continue;
            const [x, y] = place(i);
            context.fillStyle = later ? color(i) : MISSING;
            if (radius < 2) context.fillRect(x - radius, y - radius, 2 * radius, 2 * radius);
            else { context.beginPath(); context.arc(x, y, radius, 0, 6.2832); context.fill(); }
          }
        }
        context.globalAlpha = 1;
        canvas.picture ??= document.createElement("canvas");
        canvas.picture.width = canvas.width;
        canvas.picture.height = canvas.height;
        canvas.picture.getContext("2d").drawImage(canvas, 0, 0);
      });
      ring();
    };
    // The sample that is pointed at, in every picture.
    const ring = () => {
      canvases.forEach((canvas, which) => {
        const context = canvas.getContext("2d");
        if (!canvas.picture) return;
        context.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
        context.drawImage(canvas.picture, 0, 0, canvas.clientWidth, canvas.clientHeight);
        if (current < 0 || panels[which].x[current] === NONE) return;
        const [x, y] = placing(canvas, panels[which])(current);
        context.strokeStyle = getComputedStyle(document.body).color;
        context.lineWidth = 2;
        context.beginPath(); context.arc(x, y, radius + 4, 0, 6.2832); context.stroke();
      });
    };
    const label = (column, code, i) => {
      if (column.kind === "numbers") return shown(number(column, code[i]));
      return code[i] === missing(column) ? "missing" : column.levels[code[i]];
    };
    const describe = async (i) => {
      const listed = [...new Set([chosen, 0, 1, 2, 3, 4])].filter((k) => k < columns.length);
      await Promise.all(listed.map(load));
      const lines = listed.map((k) => `${columns[k].name}: ${label(columns[k], codes[k], i)}`);
      return [names ? names[i] : `sample ${i + 1}`, ...lines];
    };
    const point = async (i, at) => {
      if (i !== current) { current = i; ring(); }
      if (i < 0) { hover.hidden = true; return; }
      const lines = await describe(i);
      if (i !== current) return;
      if (!at) { byId("shown").textContent = lines.join(", "); return; }
      hover.textContent = lines.join("\n");
      hover.hidden = false;
      const { width, height } = hover.getBoundingClientRect();
      hover.style.left = `${Math.max(4, Math.min(at.clientX + 14, innerWidth - width - 6))}px`;
      hover.style.top = `${at.clientY + height + 24 > innerHeight ? at.clientY - height - 14 : at.clientY + 16}px`;
    };
    const nearest = (canvas, panel, event) => {
      const box = canvas.getBoundingClientRect();
      const x = event.clientX - box.left, y = event.clientY - box.top;
      const place = placing(canvas, panel);
      let best = -1, least = 14 ** 2;
      for (let i = 0; i < data.n; i++) {
        if (panel.x[i] === NONE || panel.y[i] === NONE || faded(i)) continue;
        const [px, py] = place(i);
        const far = (px - x) ** 2 + (py - y) ** 2;
        if (far < least) { least = far; best = i; }
      }
      return best;
    };
    canvases.forEach((canvas, which) => {
      let waiting = null;
      const move = (event) => {
        if (!waiting) requestAnimationFrame(() => { point(nearest(canvas, panels[which], waiting), waiting); waiting = null; });
        waiting = event;
      };
      canvas.addEventListener("pointermove", move);
      canvas.addEventListener("pointerdown", move);
      canvas.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") point(-1); });
      canvas.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (!step) return;
        event.preventDefault();
        point((current + step + data.n) % data.n);
      });
      canvas.addEventListener("blur", () => { byId("shown").textContent = ""; point(-1); });
    });

    const element = (tag, text, kind) => {
      const made = document.createElement(tag);
      if (text !== undefined) made.textContent = text;
      if (kind) made.className = kind;
      return made;
    };
    const showLegend = () => {
      legend.replaceChildren();
      const column = columns[chosen];
      if (!column) return;
      if (column.kind === "numbers") {
        const ramp = element("span", undefined, "ramp");
        ramp.style.background = `linear-gradient(to right, ${[0, 0.25, 0.5, 0.75, 1].map(colorOfShare).join(", ")})`;
        legend.append(element("span", shown(column.min)), ramp, element("span", shown(column.max)));
        return;
      }
      column.levels.forEach((level, k) => {
        const button = element("button"), swatch = element("span", undefined, "swatch");
        button.type = "button";
        button.setAttribute("aria-pressed", String(alone === k));
        swatch.style.background = colorOfLevel(k);
        const text = element("span", level, "text");
        text.dir = "auto";
        button.append(swatch, text, element("span", `(${column.counts[k].toLocaleString("en")})`));
        button.addEventListener("click", () => {
          alone = alone === k ? null : k;
          [...legend.children].forEach((each, j) => each.setAttribute("aria-pressed", String(alone === j)));
          draw();
        });
        legend.append(button);
      });
    };
    const recolor = async () => {
      if (columns.length) {
        const wanted = Number(select.value);
        await load(wanted);
        if (wanted !== Number(select.value)) return;
        chosen = wanted;
      }
      alone = null;
      showLegend();
      draw();
      document.body.dataset.drawn = columns.length ? columns[chosen].name : "";
    };
    select.addEventListener("change", recolor);
    let resizing = 0;
    window.addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(draw, 120); });
    window.addEventListener("beforeprint", () => { current = -1; draw(); });
    window.addEventListener("afterprint", draw);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
    await recolor();
  };

  // The table of features: sorted, searched, a page at a time.
  const features = () => {
    const { columns, rows } = data.features, PAGE = 20;
    const table = byId("feature-table"), head = table.tHead.rows[0], body = table.tBodies[0];
    const ofP = (k) => columns[k] === "p" || columns[k] === "adjusted p";
    let sorted = -1, falling = false, first = 0, found = rows;
    const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);
    const select = () => {
      const wanted = byId("search").value.trim().toLowerCase();
      found = rows.filter((row) => row[0].toLowerCase().includes(wanted));
      if (sorted >= 0) {
        found.sort((a, b) => {
          const x = a[sorted], y = b[sorted];
          if (x === null || y === null) return (x === null) - (y === null);
          return falling ? compare(y, x) : compare(x, y);
        });
      }
      first = 0;
      show();
    };
    const show = () => {
      body.replaceChildren(...found.slice(first, first + PAGE).map((row) => {
        const line = document.createElement("tr");
        row.forEach((value, k) => {
          const cell = document.createElement(k ? "td" : "th");
          if (k) cell.className = "number";
          else { cell.scope = "row"; cell.dir = "auto"; }
          if (k === 0) cell.textContent = value;
          else cell.textContent = value === 0 && ofP(k) ? "< 1e−300" : shown(value);
          line.append(cell);
        });
        return line;
      }));
      const last = Math.min(first + PAGE, found.length);
      byId("page").textContent = found.length ? `${(first + 1).toLocaleString("en")} to ${last.toLocaleString("en")} of ${found.length.toLocaleString("en")}` : "none found";
      byId("previous").disabled = first === 0;
      byId("next").disabled = last >= found.length;
    };
    columns.forEach((name, k) => {
      const cell = document.createElement("th"), button = document.createElement("button");
      cell.scope = "col";
      if (k) cell.className = "number";
      button.type = "button";
      button.textContent = name;
      button.addEventListener("click", () => {
        falling = sorted === k ? !falling : k > 0 && !ofP(k);
        sorted = k;
        [...head.cells].forEach((each) => each.removeAttribute("aria-sort"));
        cell.setAttribute("aria-sort", falling ? "descending" : "ascending");
        select();
      });
      cell.append(button);
      head.append(cell);
    });
    byId("search").addEventListener("input", select);
    byId("previous").addEventListener("click", () => { first -= PAGE; show(); });
    byId("next").addEventListener("click", () => { first += PAGE; show(); });
    show();
  };

  byId("copy").addEventListener("click", async () => {
    const told = byId("copied");
    try {
      await navigator.clipboard.writeText(byId("methods-text").innerText);
      told.textContent = "Copied.";
    } catch {
      getSelection().selectAllChildren(byId("methods-text"));
      told.textContent = "Selected: copy it with Ctrl-C.";
    }
  });
  features();
  pictures().catch((error) => {
    byId("shown").textContent = `The figures need a newer browser (${error.message}).`;
  });
})();
