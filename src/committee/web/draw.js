/* The drawing sheet: strokes by mouse, pen, finger or keyboard -> dark ink on white paper. */
(() => {
  "use strict";
  const page = (window.committeePage = window.committeePage || {});

  /* changed() is called after every change; brush is the pen's width as a share of the sheet. */
  page.drawing = (canvas, pen, brush, changed) => {
    const context = canvas.getContext("2d");
    const size = canvas.width;
    const strokes = [];
    let current = null;
    let keyboard = { x: size / 2, y: size / 2, stroke: null };

    function segment(from, to) {
      context.beginPath();
      context.moveTo(from.x, from.y);
      context.lineTo(to.x + (from === to ? 0.01 : 0), to.y);
      context.stroke();
    }
    function redraw() {
      context.fillStyle = "#ffffff";
      context.fillRect(0, 0, size, size);
      context.strokeStyle = "#15181d";
      context.lineWidth = brush * size;
      context.lineCap = context.lineJoin = "round";
      for (const stroke of strokes) stroke.forEach((point, i) => segment(stroke[Math.max(0, i - 1)], point));
    }
    function begin(point) {
      const stroke = [point];
      strokes.push(stroke);
      segment(point, point);
      return stroke;
    }
    function extend(stroke, point) {
      segment(stroke[stroke.length - 1], point);
      stroke.push(point);
    }
    const place = (event) => {
      const box = canvas.getBoundingClientRect();
      return { x: ((event.clientX - box.left) / box.width) * size, y: ((event.clientY - box.top) / box.height) * size };
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (current || event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      pen.hidden = true;
      current = { id: event.pointerId, stroke: begin(place(event)) };
      changed();
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!current || event.pointerId !== current.id) return;
      const events = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
      for (const each of events.length ? events : [event]) extend(current.stroke, place(each));
      changed();
    });
    for (const name of ["pointerup", "pointercancel"])
      canvas.addEventListener(name, (event) => {
        if (current && event.pointerId === current.id) current = null;
      });

    function showPen() {
      pen.hidden = false;
      pen.classList.toggle("down", Boolean(keyboard.stroke));
      pen.style.left = `${(100 * keyboard.x) / size}%`;
      pen.style.top = `${(100 * keyboard.y) / size}%`;
    }
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    canvas.addEventListener("keydown", (event) => {
      if ((event.ctrlKey || event.metaKey || event.altKey)) return;
      if (arrows[event.key]) {
        const step = size / (event.shiftKey ? 60 : 20);
        const within = (value) => Math.min(size - 10, Math.max(10, value));
        keyboard.x = within(keyboard.x + step * arrows[event.key][0]);
        keyboard.y = within(keyboard.y + step * arrows[event.key][1]);
        if (keyboard.stroke) extend(keyboard.stroke, { x: keyboard.x, y: keyboard.y });
      } else if (event.key === " ") {
        keyboard.stroke = keyboard.stroke ? null : begin({ x: keyboard.x, y: keyboard.y });
        page.say(keyboard.stroke ? "Pen down" : "Pen up");
      } else if (event.key === "Delete" || event.key === "Backspace") {
        sheet.clear();
      } else return;
      event.preventDefault();
      showPen();
      changed();
    });
    canvas.addEventListener("blur", () => {
      keyboard.stroke = null;
      pen.hidden = true;
    });

    const sheet = {
      isEmpty: () => !strokes.length,
      undo: () => {
        strokes.pop();
        current = keyboard.stroke = null;
        redraw();
        changed();
      },
      clear: () => {
        strokes.length = 0;
        current = null;
        keyboard = { x: size / 2, y: size / 2, stroke: null };
        redraw();
        changed();
      },
    };
    redraw();
    return sheet;
  };
})();
