// Dark or light: as the system has it, until somebody says otherwise. Runs before the first paint.
(() => {
  const NAME = "warmwire.theme";
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => {
    try {
      return localStorage.getItem(NAME);
    } catch {
      return null; // storage is switched off
    }
  };
  const now = () => chosen() ?? (dark.matches ? "dark" : "light");
  const show = () => {
    root.dataset.theme = now();
    const button = document.querySelector("#theme");
    button?.setAttribute("aria-label", now() === "dark" ? "Light colours" : "Dark colours");
  };
  show();
  dark.addEventListener("change", show);
  addEventListener("storage", (event) => event.key === NAME && show());
  addEventListener("DOMContentLoaded", () => {
    show();
    document.querySelector("#theme").addEventListener("click", () => {
      const next = now() === "dark" ? "light" : "dark";
      try {
        if (next === (dark.matches ? "dark" : "light")) localStorage.removeItem(NAME);
        else localStorage.setItem(NAME, next);
      } catch {
        // storage is switched off: the system's colours stay
      }
      show();
    });
  });
})();
