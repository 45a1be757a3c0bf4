// The page around the viewer: theme, copying, saving, printing.

const THEMES = ["system", "light", "dark"];

function theme() {
  const button = document.getElementById("theme");
  const set = (name) => {
    if (name === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    button.querySelector("span").textContent = name === "system" ? "as the system" : name;
    button.dataset.now = name;
  };
  set("system");
  button.hidden = false;
  button.addEventListener("click", () => set(THEMES[(THEMES.indexOf(button.dataset.now) + 1) % THEMES.length]));
}

function copying() {
  for (const button of document.querySelectorAll("button.copy")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const pre = button.parentElement.querySelector("pre");
      let done = false;
      try {
        await navigator.clipboard.writeText(pre.textContent);
        done = true;
      } catch {
        getSelection().selectAllChildren(pre); // without the clipboard's permission the text is selected, for Ctrl C
      }
      button.textContent = done ? "Copied" : "Selected";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }
}

function saving() {
  const button = document.getElementById("save");
  button.hidden = false;
  button.addEventListener("click", () => {
    const json = JSON.stringify(JSON.parse(document.getElementById("report").textContent), null, 2);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([json + "\n"], { type: "application/json" }));
    link.download = "report.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  });
}

function printing() {
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("#tables details:not([open])")];
    for (const one of opened) one.open = true;
  });
  addEventListener("afterprint", () => { for (const one of opened) one.open = false; });
}

theme();
copying();
saving();
printing();
await viewer();
