// Shows whether the HQ answers. DOM calls only: no markup is ever made from text.
const PERIOD_MS = 5000;
const PATIENCE_MS = 3000;

export function mount(element, context) {
  const name = context?.hostAppId ?? "HQ";
  const line = document.createElement("p");
  line.setAttribute("role", "status");
  line.textContent = `${name}: asking ...`;
  element.append(line);

  let stopped = false;
  let timer;

  function tell(text) {
    // Screen readers announce a status when it changes, so an unchanged one is left alone.
    if (!stopped && line.textContent !== text) line.textContent = text;
  }

  async function beat() {
    try {
      const answer = await fetch("/health", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
      const health = await answer.json();
      tell(health.ok ? `${name} ${health.instanceId} answers` : `${name} answers, and is not well`);
    } catch {
      tell(`${name} does not answer`);
    }
    if (!stopped) timer = setTimeout(beat, PERIOD_MS);
  }

  beat();
  return {
    unmount() {
      stopped = true;
      clearTimeout(timer);
      line.remove();
    },
  };
}
