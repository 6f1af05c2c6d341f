// Keeps an open page up to date, and makes confirmations dialogs. Without it everything works, as of loading.
"use strict";
(() => {
  const STALE_S = 3, LOST_S = 10, ANNOUNCE_MS = 10000;
  const byId = (id) => document.getElementById(id);

  // Confirmations: a real dialog has focus and Escape.
  let opener = null;
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#confirm-']");
    if (link) {
      const dialog = byId(link.hash.slice(1));
      if (dialog) {
        event.preventDefault();
        opener = link;
        dialog.querySelector(".moved").hidden = true;
        dialog.showModal();
      }
    }
    const close = event.target.closest("[data-close]");
    if (close) {
      event.preventDefault();
      const dialog = close.closest("dialog");
      if (dialog.open) dialog.close();
      else location.hash = "#main";
      if (opener && opener.isConnected) opener.focus();
    }
    if (event.target.closest("[aria-disabled='true']")) event.preventDefault();
  });
  document.addEventListener("submit", (event) => {
    const button = event.target.querySelector("button[data-pending]");
    if (!button) return;
    if (button.getAttribute("aria-disabled") === "true") event.preventDefault();
    else {
      button.textContent = button.dataset.pending;
      button.setAttribute("aria-disabled", "true");
    }
  });

  const url = document.body.dataset.live;
  if (!url) return;

  // Puts new content into old nodes, so that focus, selection and scroll stay.
  const morph = (old, fresh) => {
    for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
    for (const { name, value } of [...fresh.attributes]) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    children(old, fresh);
  };
  const children = (old, fresh) => {
    const have = [...old.childNodes], want = [...fresh.childNodes];
    want.forEach((node, index) => {
      const is = have[index];
      if (!is) old.appendChild(node);
      else if (is.nodeType !== node.nodeType || is.nodeName !== node.nodeName || is.id !== node.id) old.replaceChild(node, is);
      else if (is.nodeType === Node.ELEMENT_NODE) morph(is, node);
      else if (is.nodeValue !== node.nodeValue) is.nodeValue = node.nodeValue;
    });
    have.slice(want.length).forEach((node) => node.remove());
  };
  const put = (id, html) => {
    const old = byId(id);
    if (!old) return;
    const template = document.createElement("template");
    template.innerHTML = html;
    if (id === "confirms") return putConfirms(old, template.content);
    children(old, template.content);
  };
  // What somebody is reading does not change under their eyes, except what is not known yet.
  const putConfirms = (old, fresh) => {
    const open = old.querySelector("dialog[open]");
    if (!open) {
      if (!old.querySelector("dialog:target")) children(old, fresh);
      return;
    }
    const known = open.querySelector("[id^='unknown-']");
    const now = known && fresh.querySelector("#" + known.id);
    if (now) children(known, now);
    pending = fresh;
    open.addEventListener("close", () => {
      if (pending) children(old, pending);
      pending = null;
    }, { once: true });
  };
  let pending = null;
  const checkOpen = (expect) => {
    const open = document.querySelector("dialog[open]");
    const saw = open && open.querySelector("input[name='expect']");
    if (!saw || saw.value === expect || expect === undefined) return;
    open.querySelector(".moved").hidden = false;
    open.querySelector("button").setAttribute("aria-disabled", "true");
  };

  // Only the verdict is announced, and not every second.
  let announced = null, said = 0;
  const announce = () => {
    const now = document.querySelector("[data-announce]");
    if (!now) return;
    if (announced === null) announced = now.textContent;
    if (now.textContent === announced || Date.now() - said < ANNOUNCE_MS) return;
    announced = now.textContent;
    said = Date.now();
    byId("announce").textContent = announced;
  };

  // Charts.
  let plots = [], data = null;
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const milliseconds = (value) => (value >= 1000 ? value / 1000 + " s" : value + " ms");
  const writers = {
    errors: (value) => (value * 100).toFixed(value >= 0.1 ? 0 : 1) + " %",
    p50: milliseconds,
    p99: milliseconds,
    rate: (value) => value.toLocaleString("en-US"),
  };
  const least = { errors: 0.01, p50: 2, p99: 2, rate: 2 };
  const nice = (most) => {
    const power = 10 ** Math.floor(Math.log10(most));
    return [1, 2, 5, 10].map((step) => step * power).find((top) => top >= most * 0.999);
  };
  const drawMarks = (plot) => {
    const { ctx, bbox } = plot, ratio = devicePixelRatio;
    ctx.save();
    ctx.font = `${12 * ratio}px system-ui, sans-serif`;
    for (const mark of data.marks) {
      const x = Math.round(plot.valToPos(mark.at, "x", true));
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      ctx.strokeStyle = style(mark.bad ? "--bad" : "--control");
      ctx.fillStyle = style(mark.bad ? "--bad" : "--muted");
      ctx.lineWidth = (mark.bad ? 2 : 1) * ratio;
      ctx.setLineDash(mark.bad ? [] : [2 * ratio, 3 * ratio]);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      const right = x > bbox.left + bbox.width * 0.85;
      ctx.textAlign = right ? "right" : "left";
      ctx.fillText(mark.text, x + (right ? -5 : 5) * ratio, bbox.top + 12 * ratio);
    }
    ctx.restore();
  };
  const build = () => {
    plots.forEach(({ plot }) => plot.destroy());
    plots = [];
    if (typeof uPlot === "undefined" || !data || data.seconds.length < 2) return;
    document.querySelectorAll("[data-chart]").forEach((box) => {
      const kind = box.dataset.chart;
      let top = 0;
      const axis = { stroke: style("--muted"), grid: { stroke: style("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
      const options = {
        width: Math.max(box.clientWidth, 200),
        height: 178,
        padding: [8, 30, 0, 0],
        legend: { show: false },
        cursor: { show: false },
        scales: {
          x: { time: true },
          // Never shrinks within a release: nothing jumps.
          y: { range: (_, __, most) => [0, (top = Math.max(top, nice(Math.max(most || 0, least[kind]))))] },
        },
        axes: [
          { ...axis, size: 26, space: 80, values: (_, ticks) => ticks.map((at) => new Date(at * 1000).toLocaleTimeString("en-GB")), incrs: [30, 60, 120, 300] },
          { ...axis, size: 62, splits: (_, __, low, high) => [low, high / 2, high], values: (_, ticks) => ticks.map(writers[kind]) },
        ],
        series: [{}].concat(data.lines.map(([role]) => role === "candidate"
          ? { stroke: style("--candidate"), width: 2.5, points: { show: false } }
          : { stroke: style("--stable"), width: 2, dash: [5, 4], points: { show: false } })),
        hooks: { draw: [drawMarks] },
      };
      box.replaceChildren();
      box.classList.add("drawn");
      const plot = new uPlot(options, [data.seconds, ...data.values[kind]], box);
      plots.push({ plot, kind, box });
    });
  };
  const chart = (fresh) => {
    if (fresh.fresh || !data) {
      data = fresh;
      build();
      return;
    }
    data.seconds.push(...fresh.seconds);
    for (const kind of fresh.kinds) fresh.values[kind].forEach((row, line) => data.values[kind][line].push(...row));
    data.marks = fresh.marks;
    const extra = data.seconds.length - fresh.most;
    if (extra > 0) {
      data.seconds.splice(0, extra);
      for (const kind of fresh.kinds) data.values[kind].forEach((row) => row.splice(0, extra));
    }
    if (plots.length === 0 || document.querySelectorAll("[data-chart]").length !== plots.length) build();
    else if (!document.hidden) plots.forEach(({ plot, kind }) => plot.setData([data.seconds, ...data.values[kind]]));
  };
  new ResizeObserver(() => plots.forEach(({ plot, box }) => {
    if (box.clientWidth !== plot.width && box.clientWidth > 0) plot.setSize({ width: box.clientWidth, height: 178 });
  })).observe(byId("main"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", build);

  // The age of what is seen.
  const live = byId("live"), stale = byId("stale");
  const text = live && live.querySelector("span");
  let heard = Date.now(), at = "", seq = 0;
  const age = () => {
    const seconds = Math.floor((Date.now() - heard) / 1000);
    if (text) {
      const words = seconds < STALE_S ? `<span class="n">${seconds} s</span> ago` : "";
      text.innerHTML = seconds < STALE_S ? `Live<span class="long"> · updated ${words}</span>` : `No update<span class="long"> for ${seconds} s</span>`;
    }
    const lost = seconds >= LOST_S;
    document.body.classList.toggle("stale", lost);
    stale.hidden = !lost;
    const note = `What you see is from ${at}. Trying again; what runs goes on without this page.`;
    if (lost && stale.textContent !== note) stale.textContent = note;
  };
  setInterval(age, 1000);

  let stream = null;
  const received = (event) => {
    const message = JSON.parse(event.data);
    // A missed one: from the start again, which has everything.
    if (message.seq !== seq + 1) return connect();
    seq = message.seq;
    heard = Date.now();
    at = message.at;
    if (message.title) document.title = message.title;
    if (message.bar !== undefined) document.body.classList.toggle("has-bar", message.bar);
    for (const [id, html] of Object.entries(message.parts)) put(id, html);
    for (const [id, name] of Object.entries(message.classes || {})) {
      const row = byId(id);
      if (row && row.className !== name) row.className = name;
    }
    if (message.chart) chart(message.chart);
    checkOpen(message.expect);
    announce();
    age();
    document.documentElement.dataset.seq = seq;
  };
  const connect = () => {
    if (stream) stream.close();
    seq = 0;
    stream = new EventSource(url);
    stream.onmessage = received;
    stream.onerror = () => {
      seq = 0;
      // Refused for good: signed out, or the service is gone. The page itself knows what to show.
      if (stream.readyState === EventSource.CLOSED) setTimeout(() => {
        fetch(location.href, { redirect: "manual", cache: "no-store" }).then((answer) => {
          if (answer.type === "opaqueredirect" || answer.status === 404) location.reload();
          else connect();
        }).catch(connect);
      }, 2000);
    };
  };
  connect();
})();
