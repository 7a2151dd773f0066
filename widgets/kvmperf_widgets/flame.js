/* Hover details, click to zoom, search, for every flame graph of this document, by keys as well:
   arrows move between frames, Enter zooms, Escape shows all, a slash searches.
   #kvmp-search=REGEX&kvmp-zoom=NAME in the address does so from the start. */
(function () {
  "use strict";
  var ROW = 18, INSET = 3.5, BASELINE = 12.5, GAP = 0.6, ELLIPSIS = "\u2026";

  function attach(svg) {
    if (svg.kvmpAttached) { return; }
    svg.kvmpAttached = true;
    var character = parseFloat(svg.getAttribute("data-character"));
    var detail = svg.querySelector(".detail"), found = svg.querySelector(".found");
    var all = svg.querySelector(".frames");
    var search = svg.querySelector(".search"), reset = svg.querySelector(".reset");
    var serverFound = found.textContent;
    var frames = Array.prototype.map.call(svg.querySelectorAll(".f"), function (g) {
      var rect = g.querySelector("rect"), title = g.querySelector("title");
      var lines = title.textContent.split("\n");
      var x = parseFloat(rect.getAttribute("x"));
      return {
        g: g, rect: rect, text: g.querySelector("text"), lines: lines, name: lines[0], x: x,
        w: parseFloat(rect.getAttribute("width")) + GAP, y: parseFloat(rect.getAttribute("y")),
        above: g.classList.contains("up"), counts: !g.classList.contains("up"), dots: g.classList.contains("dots")
      };
    });
    if (!frames.length) { return; }
    var left = frames[0].x, whole = frames[0].w;
    var focused = frames[0], selected = frames[0], pattern = "", given = Boolean(serverFound);
    /* the first frame is the root: callees stand above it or beneath it, in a sandwich callers
       stand on the other side */
    frames.forEach(function (f) {
      f.side = Math.sign(f.y - frames[0].y);
      f.depth = Math.abs(f.y - frames[0].y);
      f.row = Math.round(f.y / ROW);
    });

    function label(frame, width) {
      var room = Math.floor((width - 2 * INSET) / character);
      if (room < (frame.dots ? 1 : 3)) { return ""; }
      var points = Array.from(frame.name);
      return points.length <= room ? frame.name : points.slice(0, room - 1).join("") + ELLIPSIS;
    }

    function place(frame, x, width) {
      var words = label(frame, width);
      if (words && !frame.text) { /* frames without room for words come without */
        frame.text = document.createElementNS("http://www.w3.org/2000/svg", "text");
        frame.text.setAttribute("y", (frame.y + BASELINE).toFixed(1));
        frame.g.appendChild(frame.text);
      }
      frame.rect.setAttribute("x", x.toFixed(2));
      frame.rect.setAttribute("width", Math.max(width - GAP, 0.2).toFixed(2));
      if (frame.text) {
        frame.text.setAttribute("x", (x + INSET).toFixed(2));
        frame.text.textContent = words;
      }
    }

    function zoom(target) {
      var scale = whole / target.w, slack = 0.02;
      frames.forEach(function (f) {
        var callee = f.depth >= target.depth;
        var beside = Boolean(f.side && target.side) && f.side !== target.side;
        var within = f.x >= target.x - slack && f.x + f.w <= target.x + target.w + slack;
        var around = f.x <= target.x + slack && f.x + f.w >= target.x + target.w - slack;
        var ancestor = !callee && around, shown = !beside && (ancestor || callee && within);
        f.counts = shown && !ancestor && !f.above;
        f.g.classList.toggle("off", !shown);
        f.g.classList.toggle("up", f.above || ancestor);
        if (ancestor) {
          place(f, left, whole);
        } else if (shown) {
          place(f, left + (f.x - target.x) * scale, f.w * scale);
        }
      });
      reset.classList.toggle("off", target.w >= whole - slack);
      focused = target;
      if (given) {
        found.textContent = target === frames[0] ? serverFound : "";
      } else {
        find(pattern);
      }
    }

    function find(wanted) {
      var test = null;
      pattern = wanted;
      given = false;
      if (pattern) {
        try {
          test = new RegExp(pattern);
        } catch (error) {
          found.textContent = "not a regular expression";
          return;
        }
      }
      var intervals = [];
      frames.forEach(function (f) {
        var hit = Boolean(test) && !f.dots && test.test(f.name);
        f.g.classList.toggle("hit", hit);
        if (hit && f.counts) { intervals.push([f.x, f.x + f.w]); }
      });
      all.classList.toggle("dim", Boolean(test));
      /* a match above a match covers no more width: count the union */
      intervals.sort(function (a, b) { return a[0] - b[0]; });
      var covered = 0, end = 0;
      intervals.forEach(function (i) {
        covered += Math.max(0, i[1] - Math.max(end, i[0]));
        end = Math.max(end, i[1]);
      });
      var share = (100 * covered / focused.w).toFixed(2);
      found.textContent = test ? share + " % of what is shown matched" : "";
      search.textContent = test ? "end search" : "search";
    }

    function tell(frame) { detail.textContent = frame ? frame.lines.join("   ") : ""; }

    function select(frame) {
      if (!frame) { return; }
      selected.g.classList.remove("at");
      selected = frame;
      selected.g.classList.add("at");
      tell(frame);
    }

    function drawn(frame) {
      return { x: parseFloat(frame.rect.getAttribute("x")), w: parseFloat(frame.rect.getAttribute("width")) };
    }

    /* The next frame in the direction of an arrow key that is on show. */
    function neighbour(key) {
      var from = drawn(selected), middle = from.x + from.w / 2;
      var sideways = key === "ArrowLeft" ? -1 : key === "ArrowRight" ? 1 : 0;
      var rows = key === "ArrowUp" ? -1 : key === "ArrowDown" ? 1 : 0, best = null, least = Infinity;
      frames.forEach(function (f) {
        if (f === selected || f.g.classList.contains("off") || f.row !== selected.row + rows) { return; }
        var to = drawn(f), off = to.x + to.w / 2 - middle;
        if (rows && (to.x + to.w < from.x || to.x > from.x + from.w)) { return; }
        /* sideways the nearest; onto callers there is one, onto callees the widest */
        var cost = rows ? -to.w : off * sideways > 0 ? Math.abs(off) : Infinity;
        if (cost < least) { best = f; least = cost; }
      });
      return best;
    }

    function ask() {
      if (all.classList.contains("dim")) {
        find("");
      } else {
        find(window.prompt("Regular expression to find in the names of frames") || "");
      }
    }

    function zoomOut() {
      zoom(frames[0]);
      select(frames[0]);
    }

    function frameOf(event) {
      var g = event.target.closest ? event.target.closest(".f") : null;
      return g && frames.find(function (f) { return f.g === g; });
    }

    svg.addEventListener("click", function (event) {
      var frame = frameOf(event);
      if (frame) {
        zoom(frame);
      } else if (event.target === reset) {
        zoomOut();
      } else if (event.target === search) {
        ask();
      }
    });
    svg.addEventListener("mouseover", function (event) { tell(frameOf(event)); });
    svg.addEventListener("keydown", function (event) {
      if (event.ctrlKey || event.metaKey || event.altKey) { return; }
      var key = event.key, pressed = key === "Enter" || key === " ", does = null;
      if (event.target === search && pressed || key === "/") {
        does = ask;
      } else if (event.target === reset && pressed || key === "Escape") {
        does = zoomOut;
      } else if (event.target === all && pressed) {
        does = function () { zoom(selected); };
      } else if (event.target === all && /^Arrow/.test(key)) {
        does = function () { select(neighbour(key)); };
      }
      if (does) {
        event.preventDefault();
        does();
      }
    });
    all.addEventListener("focus", function () { select(selected); });
    all.addEventListener("blur", function () { selected.g.classList.remove("at"); });
    document.addEventListener("kvmperf-search", function (event) {
      var linked = svg.closest("[data-link]");
      if (linked && linked.getAttribute("data-link") === event.detail.link) { find(event.detail.pattern); }
    });
    svg.setAttribute("role", "group");
    all.setAttribute("tabindex", "0");
    all.setAttribute("role", "application");
    all.setAttribute("aria-label", "frames: arrows move, Enter zooms, Escape shows all, slash searches");
    detail.setAttribute("aria-live", "polite");
    [search, reset].forEach(function (tool) {
      tool.setAttribute("tabindex", "0");
      tool.setAttribute("role", "button");
    });
    search.classList.remove("off");
    if (given) { search.textContent = "end search"; }

    var asked = new URLSearchParams(window.location.hash.slice(1));
    if (asked.has("kvmp-search")) { find(asked.get("kvmp-search")); }
    if (asked.has("kvmp-zoom")) {
      var wanted = frames.find(function (f) { return f.name === asked.get("kvmp-zoom"); });
      if (wanted) { zoom(wanted); }
    }
  }

  function start() { document.querySelectorAll("svg.kvmp-flame").forEach(attach); }
  if (document.readyState === "loading") {
    document.addEventListener("DOMContentLoaded", start);
  } else {
    start();
  }
}());
