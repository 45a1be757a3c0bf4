// What is computed in the page: advantages at any lambda, and what is odd about a response. T tokens.

// GAE with gamma 1 from values and Monte-Carlo returns, whose differences are the rewards; V = 0 after the last token.
function advantages(values, returns, lambda) {
  const found = new Float64Array(values.length);
  let nextValue = 0, nextReturn = 0, next = 0;
  for (let t = values.length - 1; t >= 0; t--) {
    const delta = returns[t] - nextReturn + nextValue - values[t];
    next = lambda === 0 ? delta : delta + lambda * next;
    found[t] = next;
    nextValue = values[t];
    nextReturn = returns[t];
  }
  return found;
}

function mean(length, at) {
  let sum = 0, n = 0;
  for (let t = 0; t < length; t++) {
    const x = at(t);
    if (Number.isFinite(x)) { sum += x; n += 1; }
  }
  return n ? sum / n : NaN;
}

function greatest(length, at) {
  let found = NaN;
  for (let t = 0; t < length; t++) {
    const x = at(t);
    if (Number.isFinite(x) && !(x <= found)) found = x;
  }
  return found;
}

// Share of tokens whose advantage at lambda has another sign than return - V, that of lambda 1.
function disagreement(values, returns, lambda) {
  const found = advantages(values, returns, lambda);
  return mean(values.length, (t) => {
    const truth = returns[t] - values[t];
    return Number.isFinite(truth) && Number.isFinite(found[t]) ? Number(Math.sign(truth) !== Math.sign(found[t])) : NaN;
  });
}

// Each: a name, how its number is shown, and the number of a response from `r` = {v, w, g, p, h, lambda, response}:
// values of both critics, returns, log-probabilities, entropy. The first in the list is the one with the largest.
const ODDITIES = [
  { id: "error", name: "largest mean |V − return|", needs: "v", of: (r) => mean(r.v.length, (t) => Math.abs(r.v[t] - r.g[t])) },
  { id: "drop", name: "largest drop of V at one token", needs: "v", of: (r) => greatest(r.v.length - 1, (t) => r.v[t] - r.v[t + 1]) },
  { id: "rise", name: "largest rise of V at one token", needs: "v", of: (r) => greatest(r.v.length - 1, (t) => r.v[t + 1] - r.v[t]) },
  { id: "sign", name: "advantage at λ of the wrong sign", needs: "v", percent: true, of: (r) => disagreement(r.v, r.g, r.lambda) },
  { id: "sure", name: "most hopeful of what failed", needs: "v", of: (r) => mean(r.v.length, (t) => r.v[t] - r.g[t]) },
  { id: "doubt", name: "least hopeful of what went well", needs: "v", of: (r) => mean(r.v.length, (t) => r.g[t] - r.v[t]) },
  { id: "nan", name: "values that are not finite", needs: "v", count: true, of: (r) => r.v.filter((x) => !Number.isFinite(x)).length },
  { id: "apart", name: "critics furthest apart", needs: "w", of: (r) => mean(r.v.length, (t) => Math.abs(r.v[t] - r.w[t])) },
  { id: "unlikely", name: "least likely text", needs: "p", of: (r) => -mean(r.p.length, (t) => r.p[t]) },
  { id: "unsure", name: "highest mean entropy", needs: "h", of: (r) => mean(r.h.length, (t) => r.h[t]) },
  { id: "longest", name: "longest", count: true, of: (r) => r.response.length },
  { id: "shortest", name: "shortest", count: true, up: true, of: (r) => r.response.length },
  { id: "best", name: "highest score", of: (r) => r.response.score ?? NaN },
  { id: "worst", name: "lowest score", up: true, of: (r) => r.response.score ?? NaN },
  { id: "file", name: "as in the file", count: true, up: true, of: (r) => r.response.line || r.response.place + 1 },
];
