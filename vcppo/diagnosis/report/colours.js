// Numbers to colours: a level from -10 to 10, which page.css paints for both themes, and the scale that explains it.

const LEVELS = 10;

function quantile(sorted, q) {
  return sorted.length ? sorted[Math.min(sorted.length - 1, Math.max(0, Math.round(q * (sorted.length - 1))))] : NaN;
}

// Ends of a scale for these numbers: "around" 0, of the same reach on both sides; "between" two ends; "up" or "down"
// from 0, where only one side is coloured. Outliers, a hundredth at either end, are painted as the ends are.
function scaleFor(kind, columns) {
  const sample = [];
  for (const column of columns) {
    const stride = Math.max(1, Math.floor((column.length * columns.length) / 20000));
    for (let t = 0; t < column.length; t += stride) if (Number.isFinite(column[t])) sample.push(column[t]);
  }
  sample.sort((a, b) => a - b);
  const low = quantile(sample, 0.01), high = quantile(sample, 0.99);
  if (!sample.length) return { kind, low: -1, high: 1 };
  const reach = Math.max(Math.abs(low), Math.abs(high)) || 1;
  if (kind === "around") return { kind, low: -reach, high: reach };
  if (kind === "up") return { kind, low: 0, high: high > 0 ? high : 1 };
  if (kind === "down") return { kind, low: low < 0 ? low : -1, high: 0 };
  return { kind, low, high: high > low ? high : low + 1 };
}

function level(scale, x) {
  if (!Number.isFinite(x)) return "nan";
  const fraction = Math.min(1, Math.max(0, (x - scale.low) / (scale.high - scale.low)));
  const signed = scale.kind === "up" ? fraction : scale.kind === "down" ? fraction - 1 : 2 * fraction - 1;
  const place = Math.round(LEVELS * signed);
  return place === 0 ? "z" : place > 0 ? `p${place}` : `n${-place}`;
}
