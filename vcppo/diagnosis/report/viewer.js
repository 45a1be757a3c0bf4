// The viewer of single responses: the list of them, in an order, and the controls.

async function viewer() {
  const text = byId("packed").textContent;
  if (!text) return;
  const data = await decoded(text);
  data.vocabularySeen = data.vocabulary.map((token) => (token.length <= LONG_TOKEN ? token : token.slice(0, LONG_TOKEN)));
  new Viewer(data).begin();
  document.documentElement.dataset.readyAt = performance.now().toFixed(0); // ms since the page was opened, for tests
}

class Viewer extends Panes {
  constructor(data) {
    super(data);
    this.steps = [...new Set(data.responses.map((one) => one.step).filter((step) => step !== null))].sort((a, b) => a - b);
    this.step = this.steps.length ? this.steps[this.steps.length - 1] : null;
    this.sort = data.critics.length ? "error" : "longest";
  }

  begin() {
    byId("viewer").hidden = false;
    this.controls();
    this.order();
    this.choose(this.listed[0].response);
    this.listen();
  }

  choose(response) {
    const began = performance.now();
    this.response = response;
    this.token = 0;
    this.hovered = null;
    this.mark();
    this.draw();
    document.documentElement.dataset.drewIn = (performance.now() - began).toFixed(1); // ms
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
}
