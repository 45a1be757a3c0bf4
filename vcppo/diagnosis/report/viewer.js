// The viewer of single responses. Only the chosen response is in the document; every text goes in as text.

const PAGE_TOKENS = 4000; // tokens of a response that are in the document at once
const LONG_TOKEN = 400; // characters of one token that are shown in the text; the readout has all
const SHORT_PROMPT = 600; // characters; a prompt of no more is unfolded at first
const SCALE_RESPONSES = 200; // of the list, evenly: what the ends of the colours are taken from
const INVISIBLE = /[^\n\t -~]/gu;
const IS_INVISIBLE = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u;

const byId = (id) => document.getElementById(id);

function node(tag, css, text) {
  const element = document.createElement(tag);
  if (css) element.className = css;
  if (text !== undefined) element.textContent = text;
  return element;
}

function escapeOf(character) {
  return `[U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}]`;
}

// As `visible` of text.py.
function visible(text) {
  return text.replace(INVISIBLE, (character) => (IS_INVISIBLE.test(character) ? escapeOf(character) : character));
}

function shown(x, decimals) {
  if (x === null || x === undefined || Number.isNaN(x)) return "NaN";
  if (!Number.isFinite(x)) return x > 0 ? "∞" : "−∞";
  const text = x.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
  return (/[1-9]/.test(text) ? text : text.replace("-", "")).replace("-", "−");
}

async function viewer() {
  const text = byId("packed").textContent;
  if (!text) return;
  const data = await decoded(text);
  data.vocabularySeen = data.vocabulary.map((token) => (token.length <= LONG_TOKEN ? token : token.slice(0, LONG_TOKEN)));
  new Viewer(data).begin();
  document.documentElement.dataset.readyAt = performance.now().toFixed(0); // ms since the page was opened, for tests
}

class Viewer {
  constructor(data) {
    this.data = data;
    this.series = (kind, critic) => data.series.find((one) => one.kind === kind && (critic === undefined || one.critic === critic));
    this.steps = [...new Set(data.responses.map((one) => one.step).filter((step) => step !== null))].sort((a, b) => a - b);
    const usual = data.lambdas.filter((x) => x < 1);
    this.lambda = usual.includes(0.95) || !usual.length ? 0.95 : usual[usual.length - 1];
    this.step = this.steps.length ? this.steps[this.steps.length - 1] : null;
    this.left = 0;
    this.right = data.critics.length > 1 ? 1 : -1;
    this.colour = data.critics.length ? "value" : "return";
    this.sort = data.critics.length ? "error" : "longest";
    this.token = 0;
    this.hovered = null;
  }

  begin() {
    byId("viewer").hidden = false;
    this.controls();
    this.order();
    this.choose(this.listed[0].response);
    this.listen();
  }

  // ---- what is where

  column(kind, response, critic) {
    const series = this.series(kind, critic);
    if (!series || ((kind === "logprobs" || kind === "entropy") && !response.has.includes(kind))) return null;
    return series.numbers.subarray(response.start, response.end);
  }

  quantities() {
    const critics = this.data.critics.length > 0;
    return [
      { id: "value", name: "value", scale: "between", needs: critics },
      { id: "advantage", name: "advantage at λ", scale: "around", needs: critics },
      { id: "error", name: "value − return", scale: "around", needs: critics },
      { id: "return", name: "Monte-Carlo return", scale: "between", needs: true },
      { id: "logprob", name: "log-probability", scale: "down", needs: Boolean(this.series("logprobs")) },
      { id: "entropy", name: "entropy", scale: "up", needs: Boolean(this.series("entropy")) },
    ].filter((one) => one.needs);
  }

  decimals(id, critic) {
    const kind = { return: "returns", logprob: "logprobs", entropy: "entropy" }[id];
    if (kind) return this.series(kind)?.decimals ?? 0;
    const value = this.series("values", critic)?.decimals ?? 0;
    return id === "value" ? value : Math.max(value, this.series("returns").decimals);
  }

  numbersOf(id, response, critic) {
    const returns = this.column("returns", response);
    if (id === "return") return returns;
    if (id === "logprob") return this.column("logprobs", response);
    if (id === "entropy") return this.column("entropy", response);
    const values = this.column("values", response, critic);
    if (!values || id === "value") return values;
    return id === "error" ? values.map((v, t) => v - returns[t]) : advantages(values, returns, this.lambda);
  }

  // ---- controls

  controls() {
    const options = (id, rows, chosen) => {
      const select = byId(id);
      for (const [value, name] of rows) {
        const option = node("option", "", visible(name));
        option.value = value;
        select.append(option);
      }
      select.value = chosen;
    };
    const has = { v: this.data.critics.length > 0, w: this.data.critics.length > 1, p: this.series("logprobs"), h: this.series("entropy") };
    this.oddities = ODDITIES.filter((one) => !one.needs || has[one.needs]);
    options("sort", this.oddities.map((one) => [one.id, one.name]), this.sort);
    options("colour", this.quantities().map((one) => [one.id, one.name]), this.colour);
    const critics = this.data.critics.map((name, i) => [i, `${letterOf(i)} ${name}`]);
    options("left", critics, this.left);
    options("right", [[-1, "none"], ...critics], this.right);
    byId("left-control").hidden = !critics.length;
    byId("right-control").hidden = critics.length < 2;
    byId("lambda-control").hidden = !critics.length;
    byId("step-control").hidden = this.steps.length < 2;
    byId("step").max = Math.max(0, this.steps.length - 1);
    byId("step").value = Math.max(0, this.steps.length - 1);
    byId("step-shown").textContent = this.step === null ? "" : String(this.step);
    byId("lambda").value = Math.round(1000 * this.lambda);
    byId("lambda-shown").textContent = this.lambda.toFixed(3);
    for (const mark of this.data.lambdas) {
      const option = node("option");
      option.value = Math.round(1000 * mark);
      byId("lambda-marks").append(option);
    }
  }

  listen() {
    const on = (id, event, act) => byId(id).addEventListener(event, act);
    on("sort", "change", () => { this.sort = byId("sort").value; this.order(); this.choose(this.listed[0].response); });
    on("colour", "change", () => { this.colour = byId("colour").value; this.draw(); });
    on("left", "change", () => { this.left = Number(byId("left").value); this.order(); this.draw(); });
    on("right", "change", () => { this.right = Number(byId("right").value); this.order(); this.draw(); });
    on("lambda", "input", () => {
      this.lambda = Number(byId("lambda").value) / 1000;
      byId("lambda-shown").textContent = this.lambda.toFixed(3);
      if (this.colour === "advantage") this.paint();
      this.tell();
    });
    on("lambda", "change", () => { if (this.sort === "sign") this.order(); });
    on("step", "input", () => this.toStep(this.steps[Number(byId("step").value)]));
    on("list", "keydown", (event) => this.listKey(event));
    on("list", "click", (event) => {
      const item = event.target.closest("[data-place]");
      if (item) this.choose(this.data.responses[Number(item.dataset.place)]);
    });
    on("panes", "keydown", (event) => this.textKey(event));
    on("panes", "mouseover", (event) => {
      const span = event.target.closest("[data-t]");
      this.hovered = span ? Number(span.dataset.t) : null;
      this.tell();
    });
    on("panes", "mouseleave", () => { this.hovered = null; this.tell(); });
    on("panes", "click", (event) => {
      const span = event.target.closest("[data-t]");
      if (span) this.moveTo(Number(span.dataset.t));
    });
    on("earlier", "click", () => this.moveTo(Math.max(0, this.firstShown - PAGE_TOKENS)));
    on("later", "click", () => this.moveTo(Math.min(this.response.length - 1, this.firstShown + PAGE_TOKENS)));
    on("course", "click", (event) => {
      const svg = event.target.closest("svg");
      const box = svg?.getBoundingClientRect();
      if (svg) this.moveTo(svg.tokenAt((event.clientX - box.left) / box.width));
    });
  }

  // Another iteration: the same prompt where it has a response there.
  toStep(step) {
    this.step = step;
    byId("step-shown").textContent = String(step);
    this.order();
    const same = this.listed.find((one) => one.response.problem === this.response.problem);
    this.choose((same ?? this.listed[0]).response);
  }

  // ---- the list

  order() {
    const oddity = this.oddities.find((one) => one.id === this.sort);
    const here = this.data.responses.filter((one) => this.step === null || one.step === null || one.step === this.step);
    this.listed = here.map((response) => ({
      response,
      odd: oddity.of({
        response,
        lambda: this.lambda,
        v: this.column("values", response, this.left) ?? [],
        w: this.column("values", response, this.right < 0 ? 1 - this.left : this.right) ?? [],
        g: this.column("returns", response),
        p: this.column("logprobs", response) ?? [],
        h: this.column("entropy", response) ?? [],
      }),
    }));
    const rank = (x) => (Number.isNaN(x) ? -Infinity : oddity.up ? -x : x);
    this.listed.sort((a, b) => rank(b.odd) - rank(a.odd) || a.response.place - b.response.place);
    byId("list-title").textContent = `${this.listed.length} responses, ${oddity.name} first`;
    byId("list").replaceChildren(...this.listed.map(({ response, odd }) => {
      const item = node("div", "item");
      item.id = `response-${response.place}`;
      item.dataset.place = response.place;
      item.setAttribute("role", "option");
      item.append(node("span", "odd", oddity.percent ? `${shown(100 * odd, 0)} %` : oddity.count ? shown(odd, 0) : shown(odd, 3)));
      item.append(node("span", "who", visible(`#${response.place + 1} ${response.problem}`)));
      item.append(node("span", "what", `score ${shown(response.score, this.decimals("return"))} · ${shown(response.length, 0)} tokens${response.truncated ? " · cut" : ""}`));
      return item;
    }));
    this.mark();
  }

  mark() {
    const list = byId("list");
    for (const item of list.children) item.setAttribute("aria-selected", String(Number(item.dataset.place) === this.response?.place));
    const chosen = list.querySelector('[aria-selected="true"]');
    if (!chosen) return list.removeAttribute("aria-activedescendant");
    list.setAttribute("aria-activedescendant", chosen.id);
    const above = chosen.offsetTop - list.scrollTop, below = above + chosen.offsetHeight - list.clientHeight;
    if (above < 0) list.scrollTop += above;
    else if (below > 0) list.scrollTop += below;
  }

  listKey(event) {
    const at = this.listed.findIndex((one) => one.response === this.response);
    const last = this.listed.length - 1;
    const to = { ArrowUp: at - 1, ArrowDown: at + 1, PageUp: at - 10, PageDown: at + 10, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.choose(this.listed[Math.min(last, Math.max(0, to))].response);
  }

  // ---- the text

  choose(response) {
    const began = performance.now();
    this.response = response;
    this.token = 0;
    this.hovered = null;
    this.mark();
    this.draw();
    document.documentElement.dataset.drewIn = (performance.now() - began).toFixed(1); // ms
  }

  draw() {
    const { response } = this;
    const facts = [
      `Response #${response.place + 1}`, response.problem, response.line ? `line ${response.line}` : "",
      response.step === null ? "" : `iteration ${response.step}`, `score ${shown(response.score, this.decimals("return"))}`,
      `${shown(response.length, 0)} tokens`, response.truncated ? "cut at the length limit" : "",
    ];
    byId("about").textContent = visible(facts.filter(Boolean).join(" · "));
    const prompt = this.data.prompts[response.prompt];
    byId("prompt").textContent = visible(prompt);
    if (this.prompt === undefined) byId("prompt-box").open = prompt.length <= SHORT_PROMPT;
    this.prompt = prompt;
    this.firstShown = Math.floor(this.token / PAGE_TOKENS) * PAGE_TOKENS;
    const last = Math.min(response.length, this.firstShown + PAGE_TOKENS);
    byId("pages").hidden = response.length <= PAGE_TOKENS;
    byId("page-shown").textContent = `tokens ${shown(this.firstShown, 0)} to ${shown(last - 1, 0)} of ${shown(response.length, 0)}`;
    byId("earlier").disabled = this.firstShown === 0;
    byId("later").disabled = last === response.length;
    this.panes = this.critics().map((critic, i) => {
      const box = node("div", "pane");
      if (this.data.critics.length) box.append(node("p", "pane-title", visible(`${letterOf(critic)} ${this.data.critics[critic]}`)));
      const pane = node("div", "text tokens");
      pane.tabIndex = 0;
      pane.setAttribute("role", "listbox");
      pane.setAttribute("aria-label", "Tokens of the response");
      const spans = [];
      for (let t = this.firstShown; t < last; t++) spans.push(this.span(t, i));
      pane.append(...spans);
      box.append(pane);
      return { box, pane, spans, critic };
    });
    byId("panes").replaceChildren(...this.panes.map((one) => one.box));
    this.paint();
    this.tell();
  }

  critics() {
    return this.right >= 0 && this.right !== this.left ? [this.left, this.right] : [this.left];
  }

  span(t, pane) {
    const index = this.data.tokens[this.response.start + t];
    const text = this.data.vocabularySeen[index];
    const more = this.data.vocabulary[index].length - text.length;
    const span = node("span");
    span.id = `token-${pane}-${t}`;
    span.dataset.t = t;
    span.setAttribute("role", "option");
    if (text === "") span.append(node("i", "escape", "[empty]"));
    let from = 0;
    for (const found of text.matchAll(/[^\t -~]/gu)) {
      const character = found[0];
      if (character !== "\n" && !IS_INVISIBLE.test(character)) continue;
      span.append(text.slice(from, found.index));
      if (character === "\n") span.append(node("i", "escape", "↵"), "\n");
      else span.append(node("i", "escape", escapeOf(character)));
      from = found.index + character.length;
    }
    span.append(text.slice(from));
    if (more > 0) span.append(node("i", "escape", `… ${shown(more, 0)} more characters`));
    return span;
  }

  paint() {
    const quantity = this.quantities().find((one) => one.id === this.colour);
    const every = Math.ceil(this.listed.length / SCALE_RESPONSES);
    const sample = this.listed.map((one) => one.response).sort((a, b) => a.place - b.place).filter((_, i) => i % every === 0);
    const everything = sample.flatMap((response) => this.critics().map((critic) => this.numbersOf(this.colour, response, critic)));
    if (this.colour === "value") everything.push(...sample.map((response) => this.column("returns", response)));
    const scale = scaleFor(quantity.scale, everything.filter(Boolean));
    for (const { spans, critic } of this.panes) {
      const numbers = this.numbersOf(this.colour, this.response, critic);
      spans.forEach((span, i) => { span.className = `t ${numbers ? level(scale, numbers[this.firstShown + i]) : "nan"}`; });
    }
    this.legend(quantity, scale);
    this.curves(quantity);
  }

  legend(quantity, scale) {
    const bar = node("span", "bar");
    const steps = scale.kind === "up" ? [0, LEVELS] : scale.kind === "down" ? [-LEVELS, 0] : [-LEVELS, LEVELS];
    for (let i = steps[0]; i <= steps[1]; i++) bar.append(node("i", `t ${i === 0 ? "z" : i > 0 ? `p${i}` : `n${-i}`}`));
    const unit = { logprob: "nats", entropy: "nats" }[quantity.id] ?? "units of reward";
    const name = quantity.id === "advantage" ? `advantage at λ = ${this.lambda.toFixed(3)}` : quantity.name;
    const gap = scale.high - scale.low;
    const digits = Math.max(0, Math.min(4, 1 - Math.floor(Math.log10(gap))));
    byId("scale").replaceChildren(
      node("span", "", `${name}, ${unit}:`), node("span", "end", shown(scale.low, digits)), bar, node("span", "end", shown(scale.high, digits)),
      node("span", "t nan", "NaN"), node("span", "how", "not finite or not known"),
    );
  }

  curves(quantity) {
    const { response } = this;
    if (!response.length) return byId("course").replaceChildren();
    const looks = (i) => `c${i % 7} d${i % 4}`;
    const critics = this.data.critics.length ? this.critics() : [];
    const values = critics.map((i) => ({ name: visible(`V ${letterOf(i)}`), css: looks(i), numbers: this.column("values", response, i) }));
    const first = [{ name: "return", css: "truth", numbers: this.column("returns", response) }, ...values];
    const drawings = [];
    const below = !["value", "return"].includes(quantity.id) && this.numbersOf(quantity.id, response, this.left);
    drawings.push(course("Values and Monte-Carlo returns by token", "reward", first, below ? 136 : 160, 2, !below));
    if (below) {
      const own = ["advantage", "error"].includes(quantity.id) ? critics : [this.left];
      const lines = own.map((i) => ({ name: own === critics ? `${letterOf(i)}: ${quantity.name}` : quantity.name, css: own === critics ? looks(i) : "c5 d0", numbers: this.numbersOf(quantity.id, response, i) }));
      drawings.push(course(`${quantity.name} by token`, { logprob: "nats", entropy: "nats" }[quantity.id] ?? "reward", lines, 136, 2, true));
    }
    byId("course").replaceChildren(...drawings);
  }

  // ---- one token

  moveTo(t) {
    this.token = t;
    this.hovered = null;
    const first = Math.floor(t / PAGE_TOKENS) * PAGE_TOKENS;
    if (first !== this.firstShown) this.draw();
    for (const { pane, spans } of this.panes) {
      const span = spans[t - this.firstShown];
      const above = span.offsetTop - pane.offsetTop - pane.scrollTop;
      if (above < 0) pane.scrollTop += above - 8;
      else if (above + span.offsetHeight > pane.clientHeight) pane.scrollTop += above + span.offsetHeight - pane.clientHeight + 8;
    }
    this.tell();
    byId("spoken").textContent = [...byId("readout").querySelectorAll(".cell")].map((one) => one.textContent).join(", ");
  }

  textKey(event) {
    const { token, response } = this;
    const to = {
      ArrowLeft: () => token - 1, ArrowRight: () => token + 1, ArrowUp: () => this.lineAway(-1), ArrowDown: () => this.lineAway(1),
      PageUp: () => token - 50, PageDown: () => token + 50, Home: () => 0, End: () => response.length - 1,
    }[event.key];
    if (!to || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    this.moveTo(Math.min(response.length - 1, Math.max(0, to())));
  }

  // The token of the line above or below that is nearest to where the reader is.
  lineAway(direction) {
    const pane = this.panes.find((one) => one.pane === document.activeElement) ?? this.panes[0];
    const boxOf = (t) => pane.spans[t - this.firstShown]?.getClientRects()[0];
    const here = boxOf(this.token);
    let best = this.token, line = null, distance = Infinity;
    for (let t = this.token + direction; boxOf(t); t += direction) {
      const box = boxOf(t);
      if (Math.abs(box.top - here.top) < 3) continue;
      if (line !== null && Math.abs(box.top - line) > 3) break;
      line = box.top;
      if (Math.abs(box.left - here.left) < distance) [best, distance] = [t, Math.abs(box.left - here.left)];
    }
    return line === null ? this.token + direction : best;
  }

  tell() {
    const t = this.hovered ?? this.token;
    const { response } = this;
    for (const { pane, spans } of this.panes) {
      const before = pane.querySelector(".now");
      before?.classList.remove("now");
      before?.removeAttribute("aria-selected");
      const span = spans[t - this.firstShown];
      span?.classList.add("now");
      span?.setAttribute("aria-selected", "true");
      if (span) pane.setAttribute("aria-activedescendant", span.id);
    }
    for (const svg of byId("course").children) svg.moveTo(t);
    const readout = byId("readout");
    if (!response.length) return readout.replaceChildren(node("div", "", "an empty response"));
    const token = this.data.vocabulary[this.data.tokens[response.start + t]];
    const critics = this.data.critics.length ? this.critics() : [];
    const at = (id, critic) => { const column = this.numbersOf(id, response, critic); return column && shown(column[t], this.decimals(id, critic)); };
    const line = (who, cells) => {
      const row = node("div", "who");
      if (who) row.append(node("b", "", who));
      for (const [name, value, id] of cells) {
        if (value === null || value === undefined) continue;
        const cell = node("div", "cell", "");
        const number = node("b", "", value);
        number.dataset.number = id;
        cell.append(node("span", "", `${name} `), number);
        row.append(cell);
      }
      return row;
    };
    const text = node("pre", "", visible(token).replaceAll("\n", "↵\n") || "[empty]");
    text.tabIndex = 0;
    text.setAttribute("aria-label", "The whole token");
    const general = line("", [
      ["token", shown(t, 0), "token"], ["return", at("return"), "return"],
      ["log-probability", at("logprob"), "logprob"], ["entropy", at("entropy"), "entropy"],
    ]);
    const ofCritics = critics.map((i) => line(letterOf(i), [
      ["value", at("value", i), `value-${i}`], ["value − return", at("error", i), `error-${i}`],
      [`advantage at λ ${this.lambda.toFixed(3)}`, at("advantage", i), `advantage-${i}`],
    ]));
    readout.replaceChildren(text, general, ...ofCritics);
  }
}

function letterOf(place) {
  return String.fromCharCode(65 + (place % 26)) + (place >= 26 ? Math.floor(place / 26) : "");
}
