// The course of one response as a drawing: curves by token, and where the reader is.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 900, LEFT = 52, RIGHT = 12;

function drawn(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function roundStep(span) {
  const size = 10 ** Math.floor(Math.log10(span));
  return [1, 2, 2.5, 5, 10].map((factor) => factor * size).find((step) => span <= step * 1.0001);
}

// curves: [{ name, css, numbers }] on common axes; one point a column of pixels at most, its lowest and highest.
function course(title, yLabel, curves, height, decimals, last) {
  const svg = drawn("svg", { viewBox: `0 0 ${WIDTH} ${height}`, class: "panel course", role: "img", "aria-label": title });
  const length = curves[0].numbers.length;
  let low = Infinity, high = -Infinity;
  for (const { numbers } of curves) for (const x of numbers) if (Number.isFinite(x)) { low = Math.min(low, x); high = Math.max(high, x); }
  if (low > high) { low = 0; high = 1; }
  const step = roundStep((high - low) / 3 || 1);
  low = Math.floor(low / step + 1e-9) * step;
  high = Math.max(low + step, Math.ceil(high / step - 1e-9) * step);
  const top = 22, bottom = height - (last ? 34 : 10);
  const across = (t) => LEFT + ((t + 0.5) / Math.max(1, length)) * (WIDTH - LEFT - RIGHT);
  const up = (y) => bottom - ((y - low) / (high - low)) * (bottom - top);
  const ticks = Math.round((high - low) / step);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) + (String(step).includes("25") ? 1 : 0);
  for (let i = 0; i <= ticks; i++) {
    const y = low + i * step;
    svg.append(drawn("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: up(y), y2: up(y) }));
    svg.append(drawn("text", { class: "tick", x: LEFT - 5, y: up(y) + 3.5, "text-anchor": "end" }, shown(y, Math.min(digits, 6))));
  }
  if (last) {
    const every = Math.max(1, Math.round(roundStep(length / 6)));
    for (let t = 0; t < length; t += every) {
      svg.append(drawn("text", { class: "tick", x: across(t), y: bottom + 13, "text-anchor": "middle" }, shown(t, 0)));
    }
    svg.append(drawn("text", { class: "axis-label", x: (LEFT + WIDTH - RIGHT) / 2, y: height - 4, "text-anchor": "middle" }, "token"));
  }
  svg.append(drawn("path", { class: "axis", d: `M${LEFT} ${top}V${bottom}H${WIDTH - RIGHT}` }));
  svg.append(drawn("text", { class: "axis-label", x: 12, y: (top + bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${(top + bottom) / 2})` }, yLabel));
  let legend = LEFT;
  for (const { name, css, numbers } of curves) {
    svg.append(drawn("path", { class: `line ${css}`, d: pathOf(numbers, across, up) }));
    svg.append(drawn("path", { class: `line ${css}`, d: `M${legend} 9h20` }));
    svg.append(drawn("text", { class: "label", x: legend + 25, y: 13 }, name));
    legend += 40 + 6.6 * name.length;
  }
  const cursor = drawn("line", { class: "cursor", y1: top, y2: bottom });
  svg.append(cursor);
  svg.moveTo = (t) => { cursor.setAttribute("x1", across(t)); cursor.setAttribute("x2", across(t)); };
  svg.tokenAt = (fraction) => Math.min(length - 1, Math.max(0, Math.floor(((fraction * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT)) * length)));
  return svg;
}

function pathOf(numbers, across, up) {
  const stride = Math.max(1, Math.ceil(numbers.length / 900));
  const parts = [];
  let pen = "M";
  for (let from = 0; from < numbers.length; from += stride) {
    let low = from, high = from, known = false;
    for (let t = from; t < Math.min(numbers.length, from + stride); t++) {
      if (!Number.isFinite(numbers[t])) continue;
      if (!known || numbers[t] < numbers[low]) low = t;
      if (!known || numbers[t] > numbers[high]) high = t;
      known = true;
    }
    if (!known) { pen = "M"; continue; }
    for (const t of low === high ? [low] : low < high ? [low, high] : [high, low]) {
      parts.push(`${pen}${across(t).toFixed(1)} ${up(numbers[t]).toFixed(1)}`);
      pen = "L";
    }
  }
  return parts.join("") || "M0 0";
}
