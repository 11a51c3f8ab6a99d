/* A photograph of something written -> its ink: data/ink.py step by step, in 32-bit floats as there, which also tells
   the whys. An image is a list of planes of bytes (planes.js): 1 or 3, and alpha. It also runs in node. */
(() => {
  "use strict";
  const page = (globalThis.committeePage = globalThis.committeePage || {});
  const { f32, rint, clipped, modulo, mean3, median, quantile } = page.planes;
  const { BOX, BICUBIC, resampled, filled, ofEach, transposed, cut, boxOf, grown } = page.planes;

  const WORKING_SIDE = 384,
    PAPER_SIDE = 32,
    STROKE = 96,
    MARGIN = 0.6; // as in data/ink.py
  const LINE_SLOPES = Array.from({ length: 57 }, (_, i) => -0.14 + (i * 0.28) / 56);

  /* {ink, height, width}: how much of each pixel is ink where something is written; null where nothing is. */
  function findInk(image, height, width) {
    const first = inkOf(...scaled(image, height, width));
    if (!first) return null;
    const box = boxOf(first.ink, first.height, first.width, 0.5);
    const scale = Math.max(height, width) / Math.max(first.height, first.width),
      around = MARGIN * box.longer;
    const [top, bottom] = [box.top - around, box.bottom + around].map((row) => clipped(rint(scale * row), 0, height));
    const [left, right] = [box.left - around, box.right + around].map((x) => clipped(rint(scale * x), 0, width));
    const part = image.map((plane) => cut(plane, height, width, top, bottom, left, right));
    return inkOf(...scaled(part, bottom - top, right - left)) || first;
  }

  /* [three planes from 0 to 1, their height, their width, the scale]; what is transparent becomes paper. */
  function scaled(image, height, width) {
    const scale = WORKING_SIDE / Math.max(height, width);
    const [h, w] = [Math.max(8, rint(height * scale)), Math.max(8, rint(width * scale))];
    const small = image.map((plane) => {
      const bytes = resampled(plane, height, width, h, w, scale < 1 ? BOX : BICUBIC);
      return filled(h * w, (i) => bytes[i] / 255);
    });
    const alpha = image.length % 2 ? null : small.pop();
    const colours = small.length === 3 ? small : [small[0], small[0], small[0]];
    if (!alpha) return [colours, h, w, scale];
    let sum = 0,
      opaque = 0;
    for (let i = 0; i < h * w; i++)
      if (alpha[i] > 0.5) {
        opaque += 3;
        sum += colours[0][i] + colours[1][i] + colours[2][i];
      }
    const paper = sum > 0.5 * opaque ? 0 : 1;
    const onPaper = (plane) => filled(h * w, (i) => f32(plane[i] * alpha[i]) + f32(paper * f32(1 - alpha[i])));
    return [ofEach(colours, onPaper), h, w, scale];
  }

  function inkOf(colours, height, width, grain) {
    const [raw, room] = contrastOf(colours, height, width);
    const acrossDone = transposed(withoutLines(raw, height, width), height, width);
    const contrast = transposed(withoutLines(acrossDone, width, height), width, height);
    const apart = 1 + Math.max(1, rint(grain)),
      [red, green, blue] = colours;
    const grey = filled(height * width, (i) => mean3(red[i], green[i], blue[i]));
    const steps = new Float32Array(height * Math.max(0, width - apart));
    for (let row = 0, n = 0; row < height; row++)
      for (let i = row * width; i < (row + 1) * width - apart; i++) steps[n++] = Math.abs(grey[i + apart] - grey[i]);
    const limit = (6 * 1.05 * median(steps)) / room; // NaN on an image that is too narrow: no ink
    const candidates = contrast.filter((value) => value > f32(limit < 0.06 ? 0.06 : limit));
    if (candidates.length < 8) return null;
    const threshold = otsu(candidates);
    const kept = keptParts(contrast, height, width, f32(0.6 * threshold));
    const core = median(contrast.filter((value, i) => kept[i] && value > threshold));
    if (!(core >= 0.08)) return null;
    const near = grown(kept, height, width, 2);
    const ink = filled(near.length, (i) => (near[i] ? clipped(f32(f32(contrast[i] / core) - 0.25) / 0.5, 0, 1) : 0));
    return { ink, height, width };
  }

  /* [how much each pixel differs from the paper in the ink's direction, the brightness, mostly, of which 1 is all] */
  function contrastOf(colours, height, width) {
    const size = height * width;
    const sides = ofEach(colours, (plane) => {
      const paper = paperOf(plane, height, width);
      const closed = extreme(extreme(plane, height, width, 1), height, width, -1);
      const opened = extreme(extreme(plane, height, width, -1), height, width, 1);
      const lit = filled(size, (i) => Math.min(paper[i], closed[i])),
        unlit = filled(size, (i) => Math.max(paper[i], opened[i]));
      const dark = filled(size, (i) => Math.max(lit[i] - plane[i], 0)),
        light = filled(size, (i) => Math.max(plane[i] - unlit[i], 0));
      return { lit, unlit, dark, light };
    });
    const [one, two, three] = sides;
    let darker = 0;
    for (let row = 0, i = 0; row < height; row++)
      for (let column = 0; column < width; column++, i++) {
        const inside = Math.min(row, height - 1 - row, column, width - 1 - column) / STROKE;
        const weight = Math.min(inside, 0.5) ** 2;
        const dark = mean3(one.dark[i], two.dark[i], three.dark[i]),
          light = mean3(one.light[i], two.light[i], three.light[i]);
        darker += weight * (dark * dark * dark - light * light * light);
      }
    const isDark = darker > 0;
    const ratios = ofEach(sides, ({ lit, unlit, dark, light }) => {
      const room = filled(size, (i) => Math.max(isDark ? lit[i] : 1 - unlit[i], 0.25)),
        difference = isDark ? dark : light;
      return { room, ratio: filled(size, (i) => difference[i] / room[i]) };
    });
    const rooms = ratios.map(({ room }) => room),
      [r, g, b] = ratios.map(({ ratio }) => ratio);
    const strength = filled(size, (i) => mean3(r[i], g[i], b[i]));
    const strong = quantile(strength.slice(), 0.99);
    const direction = new Float32Array(3);
    let count = 0;
    for (let i = 0; i < size; i++)
      if (strength[i] >= strong) {
        count++;
        direction[0] += r[i];
        direction[1] += g[i];
        direction[2] += b[i];
      }
    direction.forEach((sum, c) => (direction[c] = sum / count));
    const length = Math.max(f32(Math.hypot(...direction)), 1e-6);
    direction.forEach((value, c) => (direction[c] = value / length));
    const [x, y, z] = direction,
      whole = Math.max(f32(f32(x + y) + z), 1);
    const contrast = filled(size, (i) => f32(r[i] * x + g[i] * y + b[i] * z) / whole);
    if (rooms[0] === rooms[1]) return [contrast, median(rooms[0])];
    const all = new Float32Array(3 * size);
    rooms.forEach((plane, c) => all.set(plane, c * size));
    return [contrast, median(all)];
  }

  /* The paper without what is written on it: a running median of a small copy, enlarged again. */
  function paperOf(plane, height, width) {
    const scale = PAPER_SIDE / Math.max(height, width),
      reach = PAPER_SIDE / 4;
    const [h, w] = [Math.max(4, rint(height * scale)), Math.max(4, rint(width * scale))];
    const small = resampled(plane, height, width, h, w, BOX);
    const mirrored = (i, n) => Math.min(modulo(i, 2 * n), 2 * n - 1 - modulo(i, 2 * n));
    const rows = Array.from({ length: h + 2 * reach }, (_, i) => mirrored(i - reach, h) * w);
    const columns = Array.from({ length: w + 2 * reach }, (_, i) => mirrored(i - reach, w));
    const medians = new Float32Array(h * w),
      around = new Float32Array((2 * reach + 1) ** 2);
    for (let i = 0; i < h * w; i++) {
      const top = Math.floor(i / w),
        left = i % w;
      let n = 0;
      for (let y = top; y <= top + 2 * reach; y++)
        for (let x = left; x <= left + 2 * reach; x++) around[n++] = small[rows[y] + columns[x]];
      medians[i] = median(around);
    }
    return resampled(medians, h, w, height, width, BICUBIC);
  }

  /* The largest (sign 1) or smallest (-1) value in the square around each pixel (van Herk, 1992). */
  function extreme(plane, height, width, sign) {
    const along = (source, rows, length) => {
      // one direction; what it makes is transposed
      const reach = STROKE / 2,
        span = 2 * reach + 1,
        n = length + 2 * reach;
      const ahead = new Float32Array(n),
        back = new Float32Array(n),
        made = new Float32Array(source.length);
      for (let row = 0; row < rows; row++) {
        const start = row * length;
        for (let i = 0; i < length; i++) back[i + reach] = sign * source[start + i];
        back.fill(back[reach], 0, reach);
        back.fill(back[reach + length - 1], reach + length);
        for (let first = 0; first < n; first += span) {
          // the extremes of the beginnings and ends of blocks
          const last = Math.min(first + span, n) - 1;
          ahead[first] = back[first];
          for (let i = first + 1; i <= last; i++) ahead[i] = ahead[i - 1] > back[i] ? ahead[i - 1] : back[i];
          for (let i = last - 1; i >= first; i--) if (back[i + 1] > back[i]) back[i] = back[i + 1];
        }
        for (let i = 0; i < length; i++) made[i * rows + row] = sign * Math.max(back[i], ahead[i + span - 1]);
      }
      return made;
    };
    return along(along(plane, height, width), width, height);
  }

  /* Contrast without the lines of ruled paper that run along its rows, more or less. */
  function withoutLines(contrast, height, width) {
    const some = [];
    for (let column = 0; column < width; column += Math.max(1, Math.floor(width / 40))) some.push(column);
    const values = new Float32Array(Math.max(width, some.length));
    const shiftOf = (slope, column) => modulo(rint(slope * (column - width / 2)), height);
    const columns = filled(
      height * some.length,
      (i) => contrast[Math.floor(i / some.length) * width + some[i % some.length]],
    );
    const memory = new Map();
    function lined(slope) {
      if (memory.has(slope)) return memory.get(slope);
      const shifts = Int32Array.from(some, (column) => shiftOf(slope, column)),
        count = some.length;
      let sum = 0;
      for (let row = 0; row < height; row++) {
        let zeros = 0;
        for (let k = 0; k < count; k++) {
          const at = row + shifts[k],
            value = columns[(at < height ? at : at - height) * count + k];
          values[k] = value;
          if (value <= 0) zeros++;
        }
        if (2 * zeros < count + 2) sum += Math.max(median(values, count), 0) ** 2; // else it is 0
      }
      memory.set(slope, sum);
      return sum;
    }
    const best = (slopes) => slopes.reduce((a, b) => (lined(b) > lined(a) ? b : a));
    const coarse = best(LINE_SLOPES),
      slope = best([coarse, coarse - 0.0025, coarse + 0.0025]);
    const shift = Int32Array.from({ length: width }, (_, column) => shiftOf(slope, column));
    const sheared = new Float32Array(contrast.length),
      rest = new Float32Array(contrast.length);
    const line = new Float32Array(height),
      spread = new Float32Array(height),
      outer = Math.max(Math.floor(width / 5), 1);
    for (let row = 0; row < height; row++) {
      const own = sheared.subarray(row * width, (row + 1) * width);
      for (let column = 0; column < width; column++)
        own[column] = contrast[((row + shift[column]) % height) * width + column];
      line[row] = Math.min(
        ...[own, own.subarray(0, outer), own.subarray(width - outer)].map((part) => median(part.slice())),
      );
      for (let column = 0; column < width; column++) rest[row * width + column] = Math.abs(own[column] - line[row]);
    }
    for (let row = 0; row < height; row++) spread[row] = median(rest.slice(row * width, (row + 1) * width));
    const noise = 1.4826 * median(rest),
      isLine = line.map((value) => (value > f32(Math.max(0.03, 1.5 * noise)) ? 1 : 0));
    const lines = isLine.reduce((a, b) => a + b, 0);
    if (!lines || lines > 0.5 * height) return contrast;
    const kept = sheared.slice();
    for (let row = 0; row < height; row++) {
      const most = f32(f32(f32(1.6) * line[row]) + f32(3 * spread[row]));
      if (isLine[row]) for (let i = row * width; i < (row + 1) * width; i++) if (sheared[i] < most) kept[i] = 0;
    }
    for (let first = 0, last; first < height; first = last + 1) {
      for (last = first; last < height && isLine[last]; last++);
      if (last === first || first === 0 || last === height) continue;
      for (let column = 0; column < width; column++) {
        let joined = Infinity; // what is above and below
        for (let row = Math.max(first - 3, 0); row < Math.min(last + 3, height); row++)
          if (row < first || row >= last) joined = Math.min(joined, sheared[row * width + column]);
        for (let row = first; row < last; row++)
          kept[row * width + column] = Math.max(kept[row * width + column], joined);
      }
    }
    return filled(
      kept.length,
      (i) => kept[modulo(Math.floor(i / width) - shift[i % width], height) * width + (i % width)],
    );
  }

  /* The threshold between two kinds of values (Otsu, 1979), with the bins of numpy.histogram. */
  function otsu(values) {
    const bins = 128,
      low = values.reduce((a, b) => Math.min(a, b)),
      high = values.reduce((a, b) => Math.max(a, b));
    const first = low === high ? f32(low - 0.5) : low,
      last = low === high ? f32(high + 0.5) : high;
    const step = f32(f32(last - first) / bins),
      counts = new Float64Array(bins);
    const edges = Float32Array.from({ length: bins + 1 }, (_, i) => f32(i * step) + first);
    edges[bins] = last;
    for (const value of values) {
      let bin = Math.min(Math.trunc(f32(f32(f32(value - first) / f32(last - first)) * bins)), bins - 1);
      if (value < edges[bin]) bin--;
      else if (bin < bins - 1 && value >= edges[bin + 1]) bin++;
      counts[bin]++;
    }
    const middles = counts.map((_, i) => f32(f32(edges[i + 1] + edges[i]) / 2));
    const total = counts.reduce((sum, count, i) => sum + count * middles[i], 0);
    let below = 0,
      sum = 0,
      most = -1,
      threshold = 0;
    for (let i = 0; i < bins - 1; i++) {
      below += counts[i];
      sum += counts[i] * middles[i];
      const above = values.length - below;
      const between = below * above * ((total - sum) / Math.max(above, 1) - sum / Math.max(below, 1)) ** 2;
      if (between > most) [most, threshold] = [between, edges[i + 1]];
    }
    return threshold;
  }

  /* 1 in the connected parts above a threshold that are writing: the heaviest, and those near it that are no specks. */
  function keptParts(contrast, height, width, threshold) {
    const labels = new Int32Array(height * width),
      stack = new Int32Array(height * width);
    let count = 0;
    for (let start = 0; start < labels.length; start++) {
      if (labels[start] || !(contrast[start] > threshold)) continue;
      labels[start] = ++count;
      stack[0] = start;
      for (let n = 1; n > 0; ) {
        const at = stack[--n],
          row = Math.floor(at / width),
          column = at % width;
        for (let y = Math.max(row - 1, 0); y <= Math.min(row + 1, height - 1); y++)
          for (let x = Math.max(column - 1, 0); x <= Math.min(column + 1, width - 1); x++) {
            const next = y * width + x;
            if (labels[next] || !(contrast[next] > threshold)) continue;
            labels[next] = count;
            stack[n++] = next;
          }
      }
    }
    const weight = new Float64Array(count + 1),
      inside = new Uint8Array(count + 1).fill(1),
      isNear = new Uint8Array(count + 1);
    for (let row = 0, i = 0; row < height; row++)
      for (let column = 0; column < width; column++, i++) {
        weight[labels[i]] += Math.max(contrast[i], 0);
        if (row === 0 || column === 0 || row === height - 1 || column === width - 1) inside[labels[i]] = 0;
      }
    let main = 1;
    const rank = (label) => weight[label] * (inside[label] ? 1 : 0.02);
    for (let label = 2; label <= count; label++) if (rank(label) > rank(main)) main = label;
    const box = boxOf(
        filled(labels.length, (i) => (labels[i] === main ? 1 : 0)),
        height,
        width,
        0,
      ),
      reach = Math.floor(box.longer / 3);
    for (let row = Math.max(box.top - reach, 0); row < Math.min(box.bottom + reach, height); row++)
      for (let x = Math.max(box.left - reach, 0); x < Math.min(box.right + reach, width); x++)
        isNear[labels[row * width + x]] = 1;
    const isGood = weight.map((each, label) =>
      label && (label === main || (each >= 0.04 * weight[main] && isNear[label] && (inside[label] || !inside[main])))
        ? 1
        : 0,
    );
    return filled(labels.length, (i) => isGood[labels[i]]);
  }

  page.findInk = findInk;
})();
